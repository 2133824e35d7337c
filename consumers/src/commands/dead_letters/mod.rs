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

pub(super) use skip::{WHEN, combine, failed};

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

impl Selection {
    /// Returns a kind if there is a fingerprint, otherwise the dead letters with these ids.
    fn new(ids: Vec<DeadLetterId>, fingerprint: Option<String>) -> Self {
        fingerprint.map_or(Self::Ids(ids), Self::Group)
    }
}
