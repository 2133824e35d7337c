//! The arguments of `consumers sources`.

use clap::{Args, Subcommand};
use doorstep_cli::{checked, parse::from_str};
use doorstep_event::{BrokerUser, Source};
use doorstep_messaging::{SettingsError, UserId};

use super::dead_letters::RecordArgs;
use crate::stores::StoreLocation;

#[derive(Debug, Subcommand)]
pub(crate) enum Sources {
    /// List the sources whose events a role accepts, with the broker user that owns each.
    ///
    /// A source belongs to the first user that publishes events under it. Events under it from any other user become
    /// dead letters with the reason `foreign source`. A source whose events carry no user id has no owner until a user
    /// publishes under it.
    #[command(
        after_help = "Examples:\n  consumers sources list orders\n  consumers sources list orders --json | jq 'select(.user == null)'"
    )]
    List(SourcesListArgs),

    /// Make another broker user the owner of a source, as after a program's user was renamed.
    ///
    /// Events of the former owner may still be queued, so they are accepted for another 24 hours. With --refuse-former
    /// they are rejected at once, as when the former owner has published in the name of another. Works whether the role
    /// runs or not.
    #[command(
        after_help = "Examples:\n  consumers sources transfer orders shop/7f3a --to shop-eu --reason 'renamed'\n  consumers sources transfer orders shop/7f3a --to shop-eu --refuse-former"
    )]
    Transfer(SourcesTransferArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SourcesListArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SourcesTransferArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The source, as `sources list` shows it.
    #[arg(value_parser = from_str::<Source>("shop/1"))]
    pub(crate) source: Source,

    /// The broker user that becomes its owner.
    #[arg(long, value_name = "USER", value_parser = checked(broker_user, "x"))]
    pub(crate) to: BrokerUser,

    /// Reject the former owner's events from now on.
    #[arg(long)]
    pub(crate) refuse_former: bool,

    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Parses the name of a broker user, which has the bounds of a user id.
fn broker_user(name: &str) -> Result<BrokerUser, SettingsError> {
    name.parse::<UserId>().map(|_| BrokerUser::new(name))
}
