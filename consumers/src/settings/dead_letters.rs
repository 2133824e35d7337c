//! The settings of `consumers dead-letters`.

use std::path::PathBuf;

use doorstep_cli::{SettingsErrors, parse::number};
use doorstep_runtime::operate::Attribution;
use doorstep_store::DeadLetterId;

use super::{OutputFormat, StoreLocation, form, place};
use crate::{
    cli::dead_letters::{DeadLettersCommand, EditArgs, ReplayArgs, SkipArgs},
    roles::{self, RoleEntry},
};

/// A command on dead letters with its settings.
#[derive(Debug)]
pub(crate) enum DeadLettersJob {
    List {
        roles: Vec<RoleEntry>,
        /// The folder with their stores.
        folder: PathBuf,
        listing: ListMode,
        /// The maximum of rows per role in a table.
        limit: usize,
        form: OutputFormat,
    },
    Show {
        place: StoreLocation,
        id: DeadLetterId,
        form: OutputFormat,
    },
    Edit {
        place: StoreLocation,
        chosen: Selection,
        change: EditSource,
        by: Attribution,
        mode: Mode,
    },
    /// Replay dead letters.
    Replay {
        place: StoreLocation,
        replay: Replay,
        by: Attribution,
        mode: Mode,
    },
    /// Skip dead letters.
    Skip {
        place: StoreLocation,
        chosen: Selection,
        by: Attribution,
        mode: Mode,
    },
    /// Write dead letters as JSON lines.
    Export {
        place: StoreLocation,
        chosen: Selection,
    },
    /// Take exported lines back as edits.
    Import {
        place: StoreLocation,
        /// The file, `-` for standard input.
        file: PathBuf,
        by: Attribution,
        mode: Mode,
    },
    /// List the audit records.
    Audit {
        place: StoreLocation,
        /// The maximum of rows in a table.
        limit: usize,
        form: OutputFormat,
    },
}

/// The form of a list of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListMode {
    /// One line for each kind.
    Kinds,
    /// One line for each dead letter.
    Each,
}

/// A selection of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    Ids(Vec<DeadLetterId>),
    /// Those with this fingerprint.
    Group(String),
    All,
}

/// The source of an edit's new data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditSource {
    /// The patch in this file, `-` for standard input.
    Patch(PathBuf),
    Editor,
}

/// The selection and the pace of replays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replay {
    pub(crate) chosen: Selection,
    /// The maximum of replays per second.
    pub(crate) rate: Option<u32>,
    pub(crate) wait: WaitMode,
}

/// The wait for the outcomes of replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// As long as outcomes keep coming.
    ForTheRole,
    No,
}

/// The choice between a change and a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    DryRun,
}

/// The maximum rate of replays per second.
const MAX_RATE: u32 = 100_000;

pub(super) fn dead_letters(
    command: DeadLettersCommand,
    wrong: &mut SettingsErrors,
) -> Option<DeadLettersJob> {
    match command {
        DeadLettersCommand::List(args) => Some(DeadLettersJob::List {
            limit: wrong.check("--limit", number(&args.limit, 1..=usize::MAX))?,
            roles: roles::chosen(args.role.as_slice()),
            folder: args.store.folder,
            listing: if args.by_kind {
                ListMode::Kinds
            } else {
                ListMode::Each
            },
            form: form(args.json),
        }),
        DeadLettersCommand::Show(args) => Some(DeadLettersJob::Show {
            place: place(args.place.role, args.place.store.folder, wrong)?,
            id: DeadLetterId(args.id),
            form: form(args.json),
        }),
        DeadLettersCommand::Edit(args) => edit(args, wrong),
        DeadLettersCommand::Replay(args) => replay(args, wrong),
        DeadLettersCommand::Skip(args) => skip(args, wrong),
        DeadLettersCommand::Export(args) => Some(DeadLettersJob::Export {
            place: place(args.place.role, args.place.store.folder, wrong)?,
            chosen: args.fingerprint.map_or(Selection::All, Selection::Group),
        }),
        DeadLettersCommand::Import(args) => {
            let by = args.record.by(wrong);
            Some(DeadLettersJob::Import {
                place: place(args.place.role, args.place.store.folder, wrong)?,
                file: args.file,
                by: by?,
                mode: mode(args.dry_run),
            })
        }
        DeadLettersCommand::Audit(args) => Some(DeadLettersJob::Audit {
            limit: wrong.check("--limit", number(&args.limit, 1..=usize::MAX))?,
            place: place(args.place.role, args.place.store.folder, wrong)?,
            form: form(args.json),
        }),
    }
}

fn edit(args: EditArgs, wrong: &mut SettingsErrors) -> Option<DeadLettersJob> {
    let by = args.record.by(wrong);
    let place = place(args.place.role, args.place.store.folder, wrong)?;
    let ids = args.id.map(DeadLetterId).into_iter().collect();
    Some(DeadLettersJob::Edit {
        place,
        chosen: args
            .fingerprint
            .map_or(Selection::Ids(ids), Selection::Group),
        change: args.patch.map_or(EditSource::Editor, EditSource::Patch),
        by: by?,
        mode: mode(args.dry_run),
    })
}

fn replay(args: ReplayArgs, wrong: &mut SettingsErrors) -> Option<DeadLettersJob> {
    let by = args.record.by(wrong);
    let rate = match args.rate {
        Some(text) => wrong.check("--rate", number(&text, 1..=MAX_RATE)).map(Some),
        None => Some(None),
    };
    let place = place(args.place.role, args.place.store.folder, wrong)?;
    let chosen = match (args.fingerprint, args.all) {
        (Some(group), _) => Selection::Group(group),
        (None, true) => Selection::All,
        (None, false) => Selection::Ids(args.ids.into_iter().map(DeadLetterId).collect()),
    };
    Some(DeadLettersJob::Replay {
        place,
        replay: Replay {
            chosen,
            rate: rate?,
            wait: if args.no_wait {
                WaitMode::No
            } else {
                WaitMode::ForTheRole
            },
        },
        by: by?,
        mode: mode(args.dry_run),
    })
}

fn skip(args: SkipArgs, wrong: &mut SettingsErrors) -> Option<DeadLettersJob> {
    let by = args.who.by(args.reason.as_deref(), wrong);
    let place = place(args.place.role, args.place.store.folder, wrong)?;
    let ids = args.ids.into_iter().map(DeadLetterId).collect();
    Some(DeadLettersJob::Skip {
        place,
        chosen: args
            .fingerprint
            .map_or(Selection::Ids(ids), Selection::Group),
        by: by?,
        mode: mode(args.dry_run),
    })
}

pub(super) fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Write }
}
