//! The settings of `consumers dead`.

use std::path::PathBuf;

use doorstep_cli::{SettingsErrors, parse::number};
use doorstep_event::{Source, StreamKey, Subject};
use doorstep_runtime::operate::Attribution;
use doorstep_store::DeadLetterId;

use super::{GapRange, OutputFormat, StoreLocation, form, place, range};
use crate::{
    cli::dead::{Dead, DeadEditArgs, DeadReplayArgs, DeadSkipArgs},
    roles::{self, RoleEntry},
};

/// A command on dead letters with its settings.
#[derive(Debug)]
pub(crate) enum DeadJob {
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
    /// Skip missing events.
    SkipGap {
        place: StoreLocation,
        gap: GapRange,
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

pub(super) fn dead(command: Dead, wrong: &mut SettingsErrors) -> Option<DeadJob> {
    match command {
        Dead::List(args) => Some(DeadJob::List {
            limit: wrong.check("--limit", number(&args.limit, 1..=usize::MAX))?,
            roles: roles::chosen(args.role.as_slice()),
            folder: args.store.folder,
            listing: if args.each {
                ListMode::Each
            } else {
                ListMode::Kinds
            },
            form: form(args.json),
        }),
        Dead::Show(args) => Some(DeadJob::Show {
            place: place(args.place.role, args.place.store.folder, wrong)?,
            id: DeadLetterId(args.id),
            form: form(args.json),
        }),
        Dead::Edit(args) => edit(args, wrong),
        Dead::Replay(args) => replay(args, wrong),
        Dead::Skip(args) => skip(args, wrong),
        Dead::Export(args) => Some(DeadJob::Export {
            place: place(args.place.role, args.place.store.folder, wrong)?,
            chosen: args.group.map_or(Selection::All, Selection::Group),
        }),
        Dead::Import(args) => {
            let by = args.record.by(wrong);
            Some(DeadJob::Import {
                place: place(args.place.role, args.place.store.folder, wrong)?,
                file: args.file,
                by: by?,
                mode: mode(args.dry_run),
            })
        }
        Dead::Audit(args) => Some(DeadJob::Audit {
            limit: wrong.check("--limit", number(&args.limit, 1..=usize::MAX))?,
            place: place(args.place.role, args.place.store.folder, wrong)?,
            form: form(args.json),
        }),
    }
}

fn edit(args: DeadEditArgs, wrong: &mut SettingsErrors) -> Option<DeadJob> {
    let by = args.record.by(wrong);
    let place = place(args.place.role, args.place.store.folder, wrong)?;
    let ids = args.id.map(DeadLetterId).into_iter().collect();
    Some(DeadJob::Edit {
        place,
        chosen: args.group.map_or(Selection::Ids(ids), Selection::Group),
        change: args.patch.map_or(EditSource::Editor, EditSource::Patch),
        by: by?,
        mode: mode(args.dry_run),
    })
}

fn replay(args: DeadReplayArgs, wrong: &mut SettingsErrors) -> Option<DeadJob> {
    let by = args.record.by(wrong);
    let rate = match args.rate {
        Some(text) => wrong.check("--rate", number(&text, 1..=MAX_RATE)).map(Some),
        None => Some(None),
    };
    let place = place(args.place.role, args.place.store.folder, wrong)?;
    let chosen = match (args.group, args.all) {
        (Some(group), _) => Selection::Group(group),
        (None, true) => Selection::All,
        (None, false) => Selection::Ids(args.ids.into_iter().map(DeadLetterId).collect()),
    };
    Some(DeadJob::Replay {
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

fn skip(args: DeadSkipArgs, wrong: &mut SettingsErrors) -> Option<DeadJob> {
    let by = args.who.by(args.reason.as_deref(), wrong);
    let mode = mode(args.dry_run);
    let place = place(args.place.role, args.place.store.folder, wrong);
    let Some(gap) = args.gap else {
        let ids = args.what.into_iter().map(DeadLetterId).collect();
        return Some(DeadJob::Skip {
            place: place?,
            chosen: args.group.map_or(Selection::Ids(ids), Selection::Group),
            by: by?,
            mode,
        });
    };
    let subject = wrong.check("--gap", gap.parse::<Subject>());
    let source = args.source.unwrap_or_default();
    let source = wrong.check("--source", source.parse::<Source>());
    let range = wrong.check("FROM..TO", range(&args.what));
    let (from, to) = range?;
    Some(DeadJob::SkipGap {
        place: place?,
        gap: GapRange {
            stream: StreamKey {
                source: source?,
                subject: subject?,
            },
            from,
            to,
        },
        by: by?,
        mode,
    })
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Write }
}
