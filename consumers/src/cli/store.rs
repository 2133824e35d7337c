//! What can be typed after `consumers store`.

use clap::{Args, Subcommand};

use doorstep_program::args::BrokerArgs;

use super::dead::{PlaceArgs, WhoArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Give the queues of a role to this store, whichever store they belong to.
    ///
    /// A role's queues belong to the store that first consumed from them, and any other is refused with exit code 78. Take them over only
    /// if the other store is gone for good: what it has acknowledged comes to this one no more. Nothing may consume from the queues
    /// meanwhile. Afterwards the other store is refused.
    #[command(after_help = TAKE_OVER_HELP)]
    TakeOver(TakeOverArgs),
}

const TAKE_OVER_HELP: &str = "\
Example:
  consumers store take-over inventory --reason 'the disk of the old host is lost'";

#[derive(Debug, Args)]
pub(crate) struct TakeOverArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,

    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,

    #[command(flatten)]
    pub(crate) who: WhoArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}
