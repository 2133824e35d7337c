//! The settings of `consumers store`.

use doorstep_cli::{SettingsErrors, copies::CopyJob};
use doorstep_messaging::BrokerSettings;
use doorstep_runtime::operate::Attribution;

use super::{StoreLocation, place};
use crate::cli::store::{StoreCommand, TakeOverArgs};

/// A command on a store with its settings.
#[derive(Debug)]
pub(crate) enum StoreJob {
    /// Make a copy of it, restore one, or accept a restored one.
    Copy { place: StoreLocation, job: CopyJob },
    /// Give the queues of its role to it.
    TakeOver {
        place: StoreLocation,
        broker: Box<BrokerSettings>,
        by: Attribution,
    },
}

impl StoreCommand {
    fn check(self, wrong: &mut SettingsErrors) -> Option<StoreJob> {
        let (at, job) = match self {
            Self::TakeOver(args) => return take_over(args, wrong),
            Self::Backup(args) => (args.place, Some(args.copy.job())),
            Self::Restore(args) => (args.place, Some(args.copy.job())),
            Self::Restored(args) => (args.place, args.copy.check(wrong)),
            Self::Accept(args) => {
                let source = args.source.as_deref();
                (args.place, args.accept.check(source, wrong))
            }
        };
        Some(StoreJob::Copy {
            place: place(at.role, at.store.folder, wrong)?,
            job: job?,
        })
    }
}

pub(super) fn store(command: StoreCommand, wrong: &mut SettingsErrors) -> Option<StoreJob> {
    command.check(wrong)
}

fn take_over(args: TakeOverArgs, wrong: &mut SettingsErrors) -> Option<StoreJob> {
    let broker = args.broker.check(wrong);
    let by = args.who.by(Some(&args.reason), wrong);
    Some(StoreJob::TakeOver {
        place: place(args.place.role, args.place.store.folder, wrong)?,
        broker: Box::new(broker?),
        by: by?,
    })
}
