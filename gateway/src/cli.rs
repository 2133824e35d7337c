//! Command line: commands, options, and the text of `--help`.
//!
//! Values that can be wrong are taken as text here and checked all together in `settings`, so that all wrong ones are told at once.

use clap::{Args, Parser, Subcommand};

use doorstep_cli::{
    args::{BrokerArgs, EndpointArgs, StoreArgs, TelemetryArgs},
    copies,
};

use crate::exit_codes::EXIT_CODES;

/// Doorstep's HTTP gateway: takes orders and positions from users, and looks after its users and its store.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Command to run.
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the HTTP gateway: logins, orders, positions and the live feed.
    ///
    /// It keeps its users and what it has promised in a store of its own, called `gateway`. What needs an answer is asked of the roles
    /// over the broker; what does not is accepted also while the broker is away. The first operator is added by `gateway user add`.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeArgs>),

    /// Add, list, disable, enable and delete users of the gateway, set their passwords, and end their sessions.
    ///
    /// All of it works on the gateway's store, beside a gateway that may be running, which notices within 5 s. Operators do the same over
    /// HTTP, at /v1/users.
    #[command(subcommand)]
    User(User),

    /// Look after the gateway's store: copies of it, and what a restored one needs.
    #[command(subcommand, after_help = EXIT_CODES)]
    Store(StoreCommand),
}

const SERVE_HELP: &str = "\
Examples:
  gateway serve --listen 0.0.0.0:8080 --health-addr 127.0.0.1:9101
  gateway serve --openapi > openapi.json";

const USER_ADD_HELP: &str = "\
Examples:
  gateway user add root --role operator < password.txt
  gateway user add mario --role restaurant --restaurant luigi < password.txt";

const USER_LIST_HELP: &str = "\
Examples:
  gateway user list
  gateway user list --json | jq -r 'select(.role == \"operator\") | .name'";

const USER_PASSWORD_HELP: &str = "\
Example:
  gateway user password ada < password.txt";

const USER_DELETE_HELP: &str = "\
Example:
  gateway user delete ada";

const USER_REVOKE_HELP: &str = "\
Example:
  gateway user revoke ada";

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user. The password is a line of standard input, or DOORSTEP_USER_PASSWORD.
    #[command(after_help = USER_ADD_HELP)]
    Add(UserAddArgs),

    /// List all users by name: name, role, status, the day on which they were added, and the restaurant.
    #[command(after_help = USER_LIST_HELP)]
    List(UserListArgs),

    /// Keep a user from logging in, and end all sessions of that user. Orders and deliveries go on.
    Disable(UserArgs),

    /// Let a disabled user log in again.
    Enable(UserArgs),

    /// Delete a user for good, and end all sessions of that user.
    ///
    /// The password is forgotten. Orders and deliveries go on, and keep the name, which is therefore not given again. A courier's deliveries
    /// stay that courier's, so let them be handed over first. The last operator cannot be deleted or disabled.
    #[command(after_help = USER_DELETE_HELP)]
    Delete(UserArgs),

    /// Set another password, and end all sessions of the user. It is a line of standard input, or DOORSTEP_USER_PASSWORD.
    #[command(after_help = USER_PASSWORD_HELP)]
    Password(UserArgs),

    /// End all sessions of a user.
    #[command(after_help = USER_REVOKE_HELP)]
    Revoke(UserArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy the store into a file while the gateway runs: all of it as of one moment, read back whole, never over a file that is there.
    #[command(
        after_help = "Examples:\n  gateway store backup --to /backups\n  gateway store backup --to gateway.backup --json"
    )]
    Backup(StoreBackupArgs),

    /// Put a backup in the place of the gateway's store. The gateway must not run.
    ///
    /// A restored store numbers anew what it had numbered since the backup. Consumers take such events for numbering conflicts, so run
    /// `store restored` before the gateway is started. Users, passwords and ended sessions are those of the backup.
    #[command(
        after_help = "Example:\n  gateway store restore --from /backups/gateway-20261130T060000Z.sqlite3 --move-aside"
    )]
    Restore(StoreRestoreArgs),

    /// Give a store that was restored or copied a source of its own: its streams begin with 1 under it. The gateway must not run.
    #[command(
        after_help = "Example:\n  gateway store restored --keep-outbox --reason 'back from the backup of 6:00'"
    )]
    Restored(StoreRestoredArgs),

    /// Accept that the gateway's store was restored: the gateway is degraded by it no more.
    #[command(after_help = "Example:\n  gateway store accept --reason 'users told'")]
    Accept(StoreAcceptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 takes any free port.
    #[arg(
        long,
        env = "DOORSTEP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: String,

    /// Print the OpenAPI document, and serve nothing.
    #[arg(long)]
    pub(crate) openapi: bool,

    /// Lifetime of a login.
    #[arg(
        long,
        env = "DOORSTEP_SESSION",
        value_name = "TIME",
        default_value = "12h"
    )]
    pub(crate) session: String,

    /// Requests that a user may make per second; four times as many in a burst.
    #[arg(
        long,
        env = "DOORSTEP_RATE",
        value_name = "COUNT",
        default_value = "50"
    )]
    pub(crate) rate: String,

    /// Limit of requests in flight, a quarter of them logins that are still being sent, and an eighth (8 at least) those of one
    /// user; beyond it they are sent away.
    #[arg(
        long,
        env = "DOORSTEP_REQUESTS",
        value_name = "COUNT",
        default_value = "1024"
    )]
    pub(crate) requests: String,

    /// The address of the proxy in front of the gateway, if there is one: of its requests, the last address in X-Forwarded-For counts as who
    /// asks, with a port or without; Forwarded is not read, and what is no address counts as the proxy. Otherwise everybody behind it shares the tries to log in that one address has (two in a second).
    #[arg(long, env = "DOORSTEP_PROXY", value_name = "ADDRESS")]
    pub(crate) proxy: Option<String>,

    /// Time that payment and restaurant have together to answer for an order; it is abandoned then, and nothing is charged.
    #[arg(
        long,
        env = "DOORSTEP_ANSWER_WITHIN",
        value_name = "TIME",
        default_value = "8s"
    )]
    pub(crate) answer_within: String,

    /// Time that a stop leaves requests in flight to finish: an order needs 5 s beside --answer-within.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    pub(crate) grace: String,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) health: EndpointArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// The user's name: small letters, digits, dashes and underscores. Also the customer's or courier's own in events.
    pub(crate) name: String,

    /// Role of the user.
    #[arg(long, value_parser = ["customer", "courier", "restaurant", "operator"])]
    pub(crate) role: String,

    /// Which restaurant the user works for; with the role `restaurant`.
    #[arg(long, value_name = "RESTAURANT")]
    pub(crate) restaurant: Option<String>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserListArgs {
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// The user's name.
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StoreBackupArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) copy: copies::BackupArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StoreRestoreArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) copy: copies::RestoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StoreRestoredArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) copy: copies::RestoredArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StoreAcceptArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) copy: copies::AcceptArgs,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use doorstep_cli::{
        reference::{assert_section, command_line, settings},
        variables::unknown_to_warnings,
    };

    use super::*;

    #[test]
    fn every_argument_variable_is_known() {
        assert_eq!(unknown_to_warnings(&Cli::command()), BTreeSet::new());
    }

    #[test]
    fn reference_pages_of_the_command_line() {
        let program = Cli::command();
        assert_section("settings.md", "gateway", &settings(&program));
        assert_section("cli-gateway.md", "commands", &command_line(program));
    }
}
