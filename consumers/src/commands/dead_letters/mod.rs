//! `consumers dead-letters`: the dead letters of a role and the actions on them.

mod audit;
mod audit_view;
mod diff;
mod dry_run;
mod edit;
mod editor;
mod export;
mod import;
mod list;
mod patch;
mod replay;
mod selection;
mod show;
mod skip;
mod view;

pub(super) use skip::{WHEN, failed};

use doorstep_store::DeadLetterId;

pub(crate) use audit::audit;
pub(crate) use edit::edit;
pub(crate) use export::export;
pub(crate) use import::import;
pub(crate) use list::list;
pub(crate) use replay::replay;
pub(crate) use show::show;
pub(crate) use skip::skip;

/// A selection of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    Ids(Vec<DeadLetterId>),
    /// Those with this fingerprint.
    Group(String),
    All,
}

/// The selection and the pace of replays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replay {
    pub(crate) chosen: Selection,
    /// The maximum of replays per second.
    pub(crate) rate: Option<u32>,
    /// True to wait as long as outcomes keep coming.
    pub(crate) waits: bool,
}

/// The choice between a change and a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    DryRun,
}

impl Mode {
    pub(crate) fn from_flag(dry_run: bool) -> Self {
        if dry_run { Self::DryRun } else { Self::Write }
    }
}
