//! What `consumers dead` is to do.

use std::path::PathBuf;

use doorstep_event::{Source, StreamKey, Subject};
use doorstep_program::{SettingsErrors, parse::number};
use doorstep_runtime::operate::Attribution;
use doorstep_store::DeadLetterId;

use super::{GapRange, OutputFormat, StoreLocation, form, place, range};
use crate::{
    cli::dead::{Dead, DeadEditArgs, DeadReplayArgs, DeadSkipArgs},
    roles::{self, RoleEntry},
};

/// What to do with dead letters.
#[derive(Debug)]
pub(crate) enum DeadJob {
    /// List them.
    List {
        /// Of which roles.
        roles: Vec<RoleEntry>,
        /// Their stores.
        folder: PathBuf,
        /// By kind or one by one.
        listing: ListMode,
        /// How many of each role a table shows.
        limit: usize,
        /// For whom.
        form: OutputFormat,
    },
    /// Show one.
    Show {
        /// Where it is.
        place: StoreLocation,
        /// Which.
        id: DeadLetterId,
        /// For whom.
        form: OutputFormat,
    },
    /// Edit.
    Edit {
        /// Where they are.
        place: StoreLocation,
        /// Which.
        chosen: Selection,
        /// How.
        change: EditSource,
        /// By whom.
        by: Attribution,
        /// Dry run, or for good.
        mode: Mode,
    },
    /// Try again.
    Replay {
        /// Where they are.
        place: StoreLocation,
        /// Which, and how.
        replay: Replay,
        /// By whom.
        by: Attribution,
        /// Dry run, or for good.
        mode: Mode,
    },
    /// Step over dead letters.
    Skip {
        /// Where they are.
        place: StoreLocation,
        /// Which.
        chosen: Selection,
        /// By whom.
        by: Attribution,
        /// Dry run, or for good.
        mode: Mode,
    },
    /// Step over missing events.
    SkipGap {
        /// Where they are missing.
        place: StoreLocation,
        /// Which.
        gap: GapRange,
        /// By whom.
        by: Attribution,
        /// Dry run, or for good.
        mode: Mode,
    },
    /// Write them as lines.
    Export {
        /// Where they are.
        place: StoreLocation,
        /// Which.
        chosen: Selection,
    },
    /// Take lines back.
    Import {
        /// Where they belong.
        place: StoreLocation,
        /// The file, `-` for standard input.
        file: PathBuf,
        /// By whom.
        by: Attribution,
        /// Dry run, or for good.
        mode: Mode,
    },
    /// List what was done.
    Audit {
        /// Where.
        place: StoreLocation,
        /// How many a table shows.
        limit: usize,
        /// For whom.
        form: OutputFormat,
    },
}

/// How dead letters are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListMode {
    /// One line for each kind.
    Kinds,
    /// One line for each.
    Each,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// These.
    Ids(Vec<DeadLetterId>),
    /// Those of one kind.
    Group(String),
    /// All of them.
    All,
}

/// How data is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditSource {
    /// By the patch in this file, `-` for standard input.
    Patch(PathBuf),
    /// By hand.
    Editor,
}

/// What to replay, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replay {
    /// Which.
    pub(crate) chosen: Selection,
    /// At most so many a second.
    pub(crate) rate: Option<u32>,
    /// Whether to wait for what becomes of them.
    pub(crate) wait: WaitMode,
}

/// Whether to wait for what the role makes of replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// As long as something happens.
    ForTheRole,
    /// Not at all.
    No,
}

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is.
    Write,
    /// It is only told.
    DryRun,
}

/// The most dead letters that may be replayed a second.
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
