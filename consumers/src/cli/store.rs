//! The arguments of `consumers store`.

use clap::{Args, Subcommand};
use doorstep_cli::{
    ReasonArgs,
    args::BrokerArgs,
    backups::{self, OnCopy},
    parse::from_str,
};
use doorstep_event::Source;

use crate::stores::StoreLocation;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Give the queues of a role to this store, whichever store owns them.
    ///
    /// A role's queues belong to the store that first consumed from them, and any other is rejected with exit code 78.
    /// Take them over only if the other store is gone for good: events that it has acked are not delivered again. No
    /// consumer may use the queues meanwhile. Afterwards the other store is rejected.
    #[command(after_help = TAKE_OVER_HELP)]
    TakeOver(TakeOverArgs),

    /// Copy a store into a file while its role runs: a complete snapshot, verified, never over an existing file.
    #[command(
        after_help = "Examples:\n  consumers store backup orders --to /backups\n  consumers store backup orders --to orders.backup --json"
    )]
    Backup(OnCopy<StoreLocation, backups::BackupArgs>),

    /// Restore a role's store from a backup. Its role must not run.
    ///
    /// A restored store reuses the sequences that it had assigned since the backup. Consumers would report numbering
    /// conflicts, so run `store restored` before the role is started.
    #[command(
        after_help = "Example:\n  consumers store restore orders --from /backups/orders-20261130T060000Z.sqlite3 --move-aside"
    )]
    Restore(OnCopy<StoreLocation, backups::RestoreArgs>),

    /// Give a restored or copied store a source of its own: its streams begin with 1 under it. Its role must not run.
    #[command(
        after_help = "Example:\n  consumers store restored orders --keep-outbox --reason 'back from the backup of 6:00'"
    )]
    Restored(OnCopy<StoreLocation, backups::RestoredArgs>),

    /// Accept that a role's store, or the store of a source that it consumes, was restored: the role is no longer
    /// degraded by it.
    #[command(
        after_help = "Examples:\n  consumers store accept orders --reason 'gaps filled'\n  consumers store accept tracking --source orders/0198c --reason 'has a new source now'"
    )]
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// A source whose store was restored, rather than the role's own store.
    #[arg(long, value_name = "SOURCE", value_parser = from_str::<Source>("shop/1"))]
    pub(crate) source: Option<Source>,

    #[command(flatten)]
    pub(crate) record: ReasonArgs,
}

const TAKE_OVER_HELP: &str = "\
Example:
  consumers store take-over inventory --reason 'the disk of the old host is lost'";

#[derive(Debug, Args)]
pub(crate) struct TakeOverArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    #[command(flatten)]
    pub(crate) record: ReasonArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}
