//! The arguments of `consumers streams`.

use clap::{Args, Subcommand};
use doorstep_cli::OperatorArgs;

use super::dead_letters::PlaceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamsCommand {
    /// Skip missing events: the stream continues with the next one.
    ///
    /// Works whether the role runs or not. If a skipped event arrives later, it is not applied. `dead-letters audit` keeps a record.
    #[command(
        override_usage = "consumers streams skip-gap [OPTIONS] --source <SOURCE> --reason <TEXT> <ROLE> <SUBJECT> <FROM..TO>",
        after_help = "Example:\n  consumers streams skip-gap inventory stock/85123A 3..5 --source shop/1 --reason 'till 7 burnt'"
    )]
    SkipGap(SkipGapArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SkipGapArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,

    /// The subject whose events are missing.
    pub(crate) subject: String,

    /// The missing sequences, as `status` names them.
    #[arg(value_name = "FROM..TO")]
    pub(crate) range: String,

    /// The source whose events are missing.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) source: String,

    /// Only show the outcome, and change nothing; needs no reason.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// The reason, for the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) who: OperatorArgs,
}
