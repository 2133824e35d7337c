//! What `consumers store` is to do.

use std::path::PathBuf;

use doorstep_event::Source;
use doorstep_messaging::BrokerSettings;
use doorstep_program::Wrong;
use doorstep_runtime::operate::By;
use doorstep_store::sqlite::{InPlace, OldOutbox};

use super::{Form, Place, dead::by, form, place};
use crate::cli::store::{StoreCommand, TakeOverArgs};

/// What to do to a store.
#[derive(Debug)]
pub(crate) enum StoreJob {
    /// Copy it while it is in use.
    Backup {
        place: Place,
        to: PathBuf,
        form: Form,
    },
    /// Put a backup in its place.
    Restore {
        place: Place,
        from: PathBuf,
        in_place: InPlace,
    },
    /// Give it a source of its own.
    Restored {
        place: Place,
        outbox: OldOutbox,
        by: By,
    },
    /// Accept that it, or the store of this source, was restored.
    Accept {
        place: Place,
        source: Option<Source>,
        by: By,
    },
    /// Give the queues of its role to it.
    TakeOver {
        place: Place,
        broker: Box<BrokerSettings>,
        by: By,
    },
}

impl StoreCommand {
    fn check(self, wrong: &mut Wrong) -> Option<StoreJob> {
        match self {
            Self::TakeOver(args) => take_over(args, wrong),
            Self::Backup(args) => Some(StoreJob::Backup {
                place: place(args.place.role, args.place.store.folder, wrong)?,
                to: args.to,
                form: form(args.json),
            }),
            Self::Restore(args) => Some(StoreJob::Restore {
                place: place(args.place.role, args.place.store.folder, wrong)?,
                from: args.from,
                in_place: if args.move_aside {
                    InPlace::MoveAside
                } else {
                    InPlace::Refuse
                },
            }),
            Self::Restored(args) => {
                let by = by(args.who.operator, Some(&args.reason), wrong);
                Some(StoreJob::Restored {
                    place: place(args.place.role, args.place.store.folder, wrong)?,
                    outbox: if args.keep_outbox {
                        OldOutbox::Keep
                    } else {
                        OldOutbox::MustBeEmpty
                    },
                    by: by?,
                })
            }
            Self::Accept(args) => {
                let by = by(args.who.operator, Some(&args.reason), wrong);
                let source = args.source.map(|text| {
                    let source = Source::new(text).map_err(|e| e.to_string());
                    wrong.note("--source", source)
                });
                // Absent is as good as readable.
                let source = match source {
                    Some(source) => Some(source?),
                    None => None,
                };
                Some(StoreJob::Accept {
                    place: place(args.place.role, args.place.store.folder, wrong)?,
                    source,
                    by: by?,
                })
            }
        }
    }
}

pub(super) fn store(command: StoreCommand, wrong: &mut Wrong) -> Option<StoreJob> {
    command.check(wrong)
}

fn take_over(args: TakeOverArgs, wrong: &mut Wrong) -> Option<StoreJob> {
    let broker = args.broker.check(wrong);
    let by = by(args.who.operator, Some(&args.reason), wrong);
    Some(StoreJob::TakeOver {
        place: place(args.place.role, args.place.store.folder, wrong)?,
        broker: Box::new(broker?),
        by: by?,
    })
}
