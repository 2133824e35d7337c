//! What can be typed: commands, options, and the text of `--help`.
//!
//! Values that can be wrong are taken as text here and checked all together in `settings`, so that all wrong ones are told at once.

pub(crate) mod dead;
pub(crate) mod sources;
pub(crate) mod store;
pub(crate) mod topology;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};
use doorstep_program::{
    args::{BrokerArgs, EndpointArgs, StoreArgs, TelemetryArgs},
    management::ManagementArgs,
};
use doorstep_runtime::Limits;

use self::{dead::Dead, sources::Sources, store::StoreCommand, topology::TopologyCommand};
use crate::{exit_codes::EXIT_CODES, roles};

/// Doorstep's consumers: the roles that apply events, each once and in order, and the commands of those who look after them.
#[derive(Debug, Parser)]
#[command(name = "consumers", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one, several or (default) all roles, until stopped.
    ///
    /// A role takes events from its queue, applies each once and in order, and keeps its state in its store. SIGTERM or Ctrl-C lets it
    /// finish what it has begun; a second one ends it at once. Either way nothing is lost: what was not settled comes again and is
    /// recognised. Once running, a role survives everything that can pass: broker restarts, cut networks, a full disk.
    ///
    /// A role's queues belong to the store that first consumed from them. Any other store is refused with exit code 78, such as one that
    /// another folder has begun; `consumers store take-over` gives them to it.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),

    /// Show for each role: queue, lag, what is held, blocked, missing, owed and dead.
    ///
    /// READY is what waits in the role's queue and NET what the broker took out of it after too many attempts; LAG is both and what is
    /// held: events that have arrived and are not applied. What a running role has just taken is in none of them, which is no more than its
    /// prefetch. Without a broker the stores are shown all the same, and the exit code is 69. Works beside running roles.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),

    /// Ask running roles how they are, at the address that they were given by --health-addr.
    ///
    /// Exit code 0 if every role does its work; 2 with the reasons if one does not; 66 if nobody answers. For container health checks
    /// and for people. With --live it asks whether the process makes progress at all: if not, restart it.
    #[command(after_help = HEALTH_HELP)]
    Health(HealthArgs),

    /// Show the state of one entity as JSON.
    ///
    /// Works beside a running role.
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),

    /// Write every entity of a role as JSON lines, sorted by key.
    ///
    /// Keys are sorted as bytes, so that equal states give equal files. Works beside a running role; the state of each entity is then
    /// one that it has had at some moment of the export.
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),

    /// Look at, edit, replay and skip dead letters: what was refused for good, and the streams that it blocks.
    #[command(subcommand, after_help = EXIT_CODES)]
    Dead(Dead),

    /// Look after the store of a role: whose queues it has.
    #[command(subcommand, after_help = EXIT_CODES)]
    Store(StoreCommand),

    /// Look at and change the users of the broker that sources of events belong to.
    #[command(subcommand, after_help = EXIT_CODES)]
    Sources(Sources),

    /// Show what Doorstep declares, how the broker differs, and what users must be allowed to do.
    #[command(subcommand, after_help = EXIT_CODES)]
    Topology(TopologyCommand),
}

const RUN_HELP: &str = "\
Examples:
  consumers run
  consumers run orders tracking
  consumers run --until-idle 3s";

const STATUS_HELP: &str = "\
Examples:
  consumers status
  consumers status --json | jq '.roles[] | {role, lag}'";

const HEALTH_HELP: &str = "\
Examples:
  consumers health
  consumers health --live
  consumers health --json --health-addr 127.0.0.1:9100 | jq '.roles[] | {role, status, reasons}'";

const SHOW_HELP: &str = "\
Examples:
  consumers show inventory stock/85123A
  consumers show orders order/536365 --json";

const EXPORT_HELP: &str = "\
Examples:
  consumers export inventory | head
  consumers export orders --output orders.jsonl";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The roles to run [default: all].
    #[arg(value_name = "ROLE", value_parser = role_names())]
    pub(crate) roles: Vec<String>,

    /// Stop by itself once for this whole time nothing was ready or unsettled in the queues of these roles, their outboxes were empty
    /// and nothing held could become due by itself: with exit code 0, or 2 and a list if anything is blocked, missing or dead, or if a
    /// full store keeps a role from taking more.
    ///
    /// Of what another process has taken from the same queues, only the commits to the store are seen. Where there is one, all has to be
    /// quiet for at least four heartbeats (40 s): by then the broker has given up a process that is frozen or cut off, and has handed
    /// what it had taken to this one. A process that is alive and amid one batch for longer than that is not waited for.
    #[arg(long, value_name = "TIME")]
    pub(crate) until_idle: Option<String>,

    /// How long a stopping role may take to finish and settle its batch, and to send what it owes.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) grace: String,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) management: ManagementArgs,

    /// The users of the broker whose requests the roles answer, separated by commas [default: all, and who sends no user id].
    #[arg(
        long,
        env = "DOORSTEP_RPC_CALLERS",
        value_name = "USERS",
        value_delimiter = ','
    )]
    pub(crate) rpc_callers: Option<Vec<String>>,

    /// The most deliveries that the broker hands out before they are settled, from 1 to 2000.
    #[arg(
        long,
        env = "DOORSTEP_PREFETCH",
        value_name = "NUMBER",
        default_value = "2000"
    )]
    pub(crate) prefetch: String,

    /// The time that a delivery may go unacknowledged, as while the store is away, before its role suspends consuming and gives it back to
    /// the queue. Keep it well below the broker's consumer_timeout, which is 30 minutes unless configured otherwise.
    #[arg(
        long,
        env = "DOORSTEP_ACK_TIMEOUT",
        value_name = "TIME",
        default_value = "5m"
    )]
    pub(crate) ack_timeout: String,

    /// The most events that are applied in one commit, from 1 to 100000.
    #[arg(
        long,
        env = "DOORSTEP_BATCH",
        value_name = "NUMBER",
        default_value_t = Limits::default().batch_size.to_string()
    )]
    pub(crate) batch: String,

    /// How many processes may end while an event is tried before it becomes a dead letter, from 2 to 100.
    ///
    /// What was delivered before and never settled may be what a process has died of. Its tries are counted in the role's store, and
    /// from the second on it is tried alone.
    #[arg(
        long,
        env = "DOORSTEP_TRIALS",
        value_name = "NUMBER",
        default_value = "3"
    )]
    pub(crate) trials: String,

    /// The most events that a role holds, from 1000 on, of 1 KiB each on average: at this bound it takes no further deliveries. Where what
    /// is missing is itself in the queue, behind what would have to be held, a higher bound lets the role reach it.
    #[arg(
        long,
        env = "DOORSTEP_MAX_HELD",
        value_name = "NUMBER",
        default_value_t = Limits::default().held.rows.to_string()
    )]
    pub(crate) max_held: String,

    /// The time that the copy of a dead letter stays in its queue for the management UI and alerts, from 1m to 1176h. The dead letter itself stays
    /// in the role's store until it is resolved.
    #[arg(
        long,
        env = "DOORSTEP_DEAD_COPY_TTL",
        value_name = "TIME",
        default_value = "24h"
    )]
    pub(crate) dead_copy_ttl: String,

    /// Consume also where the broker does not let this user record which store a role's queues belong to. Nothing then keeps another
    /// store, such as one in another folder, from taking the role's events.
    #[arg(long, env = "DOORSTEP_WITHOUT_OWNER_RECORD")]
    pub(crate) without_owner_record: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) health: EndpointArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Ask whether the process makes progress, rather than whether it does its work.
    #[arg(long)]
    pub(crate) live: bool,

    /// The answer as it comes, one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the roles answer.
    #[arg(
        long,
        env = "DOORSTEP_HEALTH_ADDR",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9100"
    )]
    pub(crate) health_addr: String,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The roles to show [default: all].
    #[arg(value_name = "ROLE", value_parser = role_names())]
    pub(crate) roles: Vec<String>,

    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The role.
    #[arg(value_name = "ROLE", value_parser = role_names())]
    pub(crate) role: String,

    /// The entity's key, such as `stock/85123A`.
    pub(crate) key: String,

    /// One line as in an export, key included.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The role.
    #[arg(value_name = "ROLE", value_parser = role_names())]
    pub(crate) role: String,

    /// The file to write instead of standard output. It appears under its name once it is complete.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

fn role_names() -> PossibleValuesParser {
    PossibleValuesParser::new(roles::ALL.iter().map(|role| role.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command as Clap, CommandFactory};
    use doorstep_program::{
        reference::{assert_section, command_line, settings},
        variables::unknown_to_warnings,
    };

    use super::*;

    #[test]
    fn every_variable_of_an_argument_is_known_to_the_warnings() {
        assert_eq!(unknown_to_warnings(&Cli::command()), BTreeSet::new());
    }

    #[test]
    fn reference_pages_of_the_command_line() {
        let program = Cli::command();
        assert_section("settings.md", "consumers", &settings(&program));
        assert_section("cli-consumers.md", "commands", &command_line(program));
    }

    /// A word in the place of a placeholder.
    fn sample(placeholder: &str) -> &str {
        match placeholder {
            "ROLE" => "orders",
            "FROM..TO" => "1..2",
            "SUBJECT" => "order/1",
            _ => "x",
        }
    }

    /// Types each usage line of a command as it is written, without what is optional.
    fn type_usage(command: &mut Clap, tried: &mut usize) {
        let usage = command.render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap();
        for line in usage.lines() {
            let words: Vec<&str> = line
                .split_whitespace()
                .filter(|word| !word.starts_with('['))
                .map(|word| {
                    let bare = word.trim_end_matches("...");
                    let placeholder = bare.strip_prefix('<').and_then(|b| b.strip_suffix('>'));
                    placeholder.map_or(word, sample)
                })
                .collect();
            let typed = Cli::try_parse_from(&words);
            assert!(typed.is_ok(), "{line}\n{words:?}\n{}", typed.unwrap_err());
            *tried += 1;
        }
    }

    fn all_usages(command: &mut Clap, tried: &mut usize) {
        if command.has_subcommands() {
            for sub in command.get_subcommands_mut() {
                if sub.get_name() != "help" {
                    all_usages(sub, tried);
                }
            }
        } else {
            type_usage(command, tried);
        }
    }

    #[test]
    fn usage_lines_work_as_they_are_written() {
        let mut command = Cli::command();
        command.build();
        let mut tried = 0;
        all_usages(&mut command, &mut tried);
        assert!(tried > 20, "{tried}");
    }
}
