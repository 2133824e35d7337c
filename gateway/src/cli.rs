//! Command line: commands, options, and the text of `--help`.
//!
//! Values are parsed here, and their errors are collected with those of `settings`, so that all are reported at once.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use doorstep_cli::{
    ReasonArgs,
    args::{BrokerArgs, EndpointArgs, StoreArgs, TelemetryArgs},
    backups::{self, OnCopy},
    checked,
    parse::{address, duration_arg, duration_within, from_str, number_arg},
};
use doorstep_contracts::{RestaurantId, check_text};
use strum::VariantNames;

use crate::{domain::UserName, exit_codes::EXIT_CODES, routes::RoleName};

/// Doorstep's HTTP gateway: accepts orders and positions, and manages its users and its store.
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
    /// Serve the HTTP gateway: logins, orders, positions and live feeds.
    ///
    /// The gateway stores its users and accepted requests in a store of its own, called `gateway`. It calls the roles
    /// over the broker for requests that need a reply. It accepts all others while the broker is unavailable. Add the
    /// first operator with `gateway user add`.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeArgs>),

    /// Add, list, disable, enable and delete users of the gateway, set their passwords, and end their sessions.
    ///
    /// The commands work on the gateway's store, also beside a running gateway, which notices within 5 s. Operators do
    /// the same over HTTP, at /v1/users.
    #[command(subcommand)]
    User(User),

    /// Back up and restore the gateway's store.
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

    /// List all users by name: name, role, status, date of creation, and restaurant.
    #[command(after_help = USER_LIST_HELP)]
    List(UserListArgs),

    /// Disable a user, and end all sessions of that user. Orders and deliveries go on.
    Disable(UserArgs),

    /// Enable a disabled user, who may then log in again.
    Enable(UserArgs),

    /// Delete a user for good, and end all sessions of that user.
    ///
    /// The password is erased. Orders and deliveries go on and keep the name, so it cannot be used again. A courier's
    /// deliveries stay with that courier, so reassign them first. The last operator cannot be deleted or disabled.
    #[command(after_help = USER_DELETE_HELP)]
    Delete(UserArgs),

    /// Set a new password, and end all sessions of the user. The password is a line of standard input, or
    /// DOORSTEP_USER_PASSWORD.
    #[command(after_help = USER_PASSWORD_HELP)]
    Password(UserArgs),

    /// End all sessions of a user.
    #[command(after_help = USER_REVOKE_HELP)]
    Revoke(UserArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy the store into a file while the gateway runs. The copy is complete as of one moment, is verified, and never
    /// overwrites a file.
    #[command(
        after_help = "Examples:\n  gateway store backup --to /backups\n  gateway store backup --to gateway.backup --json"
    )]
    Backup(OnCopy<StoreArgs, backups::BackupArgs>),

    /// Replace the gateway's store with a backup. The gateway must not run.
    ///
    /// A restored store assigns again the numbers that it had assigned since the backup. Consumers treat such events as
    /// numbering conflicts, so run `store restored` before you start the gateway. Users, passwords and ended sessions
    /// are those of the backup.
    #[command(
        after_help = "Example:\n  gateway store restore --from /backups/gateway-20261130T060000Z.sqlite3 --move-aside"
    )]
    Restore(OnCopy<StoreArgs, backups::RestoreArgs>),

    /// Give a restored or copied store a new source, whose streams begin with 1. The gateway must not run.
    #[command(
        after_help = "Example:\n  gateway store restored --keep-outbox --reason 'back from the backup of 6:00'"
    )]
    Restored(OnCopy<StoreArgs, backups::RestoredArgs>),

    /// Accept that the gateway's store was restored; the gateway is then no longer degraded because of it.
    #[command(after_help = "Example:\n  gateway store accept --reason 'users told'")]
    Accept(OnCopy<StoreArgs, ReasonArgs>),
}

/// The lifetime that a login may have.
const SESSION: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(30 * 24);
/// The lifetime that a link to a report may have: up to a year.
const LINK: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(8_784);
/// The bounds of the order timeout: long enough for two replies, and short enough for a request to end by itself.
const ANSWER: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(20);

fn proxy(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>();
    let address = address.map_err(|_| format!("{text:?} is no IP address, such as 10.0.0.2"))?;
    Ok(address.to_canonical())
}

fn restaurant(text: &str) -> Result<RestaurantId, String> {
    check_text(text).map_err(|e| e.to_string())?;
    RestaurantId::new(text).map_err(|e| e.to_string())
}

fn role() -> impl TypedValueParser<Value = RoleName> {
    PossibleValuesParser::new(RoleName::VARIANTS).try_map(|name| name.parse::<RoleName>())
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 takes any free port.
    #[arg(
        long,
        env = "DOORSTEP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080", value_parser = address())]
    pub(crate) listen: SocketAddr,

    /// Print the OpenAPI document and exit.
    #[arg(long)]
    pub(crate) openapi: bool,

    /// Time until a session expires.
    #[arg(
        long,
        env = "DOORSTEP_SESSION_TTL",
        value_name = "TIME",
        default_value = "12h", value_parser = duration_within(SESSION))]
    pub(crate) session_ttl: Duration,

    /// Requests that a user may make per second; four times as many in a burst.
    #[arg(
        long,
        env = "DOORSTEP_RATE_LIMIT",
        value_name = "COUNT",
        default_value = "50", value_parser = number_arg(1..=1_000_000_u32))]
    pub(crate) rate_limit: u32,

    /// Limit of requests in flight; beyond it the gateway rejects requests. Logins whose body is still being sent get a
    /// quarter of it at most, and one user gets an eighth (8 at least).
    #[arg(
        long,
        env = "DOORSTEP_MAX_CONCURRENT_REQUESTS",
        value_name = "COUNT",
        default_value = "1024", value_parser = number_arg(1..=100_000_usize))]
    pub(crate) max_concurrent_requests: usize,

    /// Publish an event for each request, for the role `access_log`. No request waits for it: while the broker is away,
    /// a buffer of 10,000 requests fills, and further ones are only counted.
    #[arg(long, env = "DOORSTEP_ACCESS_LOG")]
    pub(crate) access_log: bool,

    /// Address of the proxy in front of the gateway, if there is one. For its requests, the last address in
    /// X-Forwarded-For is the client's, with or without a port. Forwarded is not read, and anything that is no address
    /// counts as the proxy. Without this option, all clients behind the proxy share the login attempts of one address
    /// (two per second).
    #[arg(long, env = "DOORSTEP_TRUSTED_PROXY", value_name = "ADDRESS", value_parser = checked(proxy, "10.0.0.2"))]
    pub(crate) trusted_proxy: Option<IpAddr>,

    /// Time that payment and restaurant have together to reply for an order; then it is abandoned, and nothing is
    /// charged.
    #[arg(
        long,
        env = "DOORSTEP_ORDER_TIMEOUT",
        value_name = "TIME",
        default_value = "8s", value_parser = duration_within(ANSWER))]
    pub(crate) order_timeout: Duration,

    /// Time for requests in flight to finish after a stop: an order needs 5 s beside --order-timeout.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration_arg())]
    pub(crate) shutdown_timeout: Duration,

    /// The folder with the files of requested reports, which the role `reports` writes [default: `reports` in the
    /// folder of the stores].
    #[arg(long, env = "DOORSTEP_REPORTS_DIR", value_name = "FOLDER")]
    reports_dir: Option<PathBuf>,

    /// Time until a link to a report expires; it works without a login. From 1m to 8784h.
    #[arg(
        long,
        env = "DOORSTEP_REPORT_LINK_TTL",
        value_name = "TIME",
        default_value = "168h", value_parser = duration_within(LINK))]
    pub(crate) report_link_ttl: Duration,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) health: EndpointArgs,
}

impl ServeArgs {
    /// Returns the folder of reports.
    pub(crate) fn reports_dir(&self) -> PathBuf {
        let folder = self.reports_dir.clone();
        folder.unwrap_or_else(|| self.store.folder.join("reports"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// Name of the user: small letters, digits, dashes and underscores. Also the id of the customer or courier in
    /// events.
    #[arg(value_parser = from_str::<UserName>("ada"))]
    pub(crate) name: UserName,

    /// Role of the user.
    #[arg(long, value_parser = role())]
    pub(crate) role: RoleName,

    /// Restaurant that the user works for; only with the role `restaurant`.
    #[arg(long, value_name = "RESTAURANT", value_parser = checked(restaurant, "luigi"))]
    pub(crate) restaurant: Option<RestaurantId>,

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
    /// Name of the user.
    #[arg(value_parser = from_str::<UserName>("ada"))]
    pub(crate) name: UserName,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
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
