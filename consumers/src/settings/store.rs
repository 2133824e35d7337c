//! What `consumers store` is to do.

use doorstep_messaging::BrokerSettings;
use doorstep_program::Wrong;
use doorstep_runtime::operate::By;

use super::{Place, dead::by, place};
use crate::cli::store::{StoreCommand, TakeOverArgs};

/// What to do to a store.
#[derive(Debug)]
pub(crate) enum StoreJob {
    /// Give the queues of its role to it.
    TakeOver {
        place: Place,
        broker: Box<BrokerSettings>,
        by: By,
    },
}

pub(super) fn store(command: StoreCommand, wrong: &mut Wrong) -> Option<StoreJob> {
    match command {
        StoreCommand::TakeOver(args) => take_over(args, wrong),
    }
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
