//! The arguments: commands, options, and the text of `--help`.
//!
//! Values are parsed here, and their errors are collected with those of `settings`, so that all are reported at once.

pub(crate) mod dead_letters;
pub(crate) mod mail;
pub(crate) mod report;
pub(crate) mod sources;
pub(crate) mod store;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod topology;

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand,
    builder::{StringValueParser, TypedValueParser},
};
use doorstep_cli::{
    args::{BrokerArgs, EndpointArgs, StoreArgs, TelemetryArgs},
    management::ManagementArgs,
    parse::{address, duration_arg, duration_within, idle_window, number_arg},
};
use doorstep_event::BrokerUser;
use doorstep_runtime::Limits;

use self::{
    dead_letters::DeadLettersCommand, mail::MailArgs, report::ReportArgs, sources::Sources,
    store::StoreCommand, streams::StreamsCommand, tasks::TasksCommand, topology::TopologyCommand,
};
use crate::{
    exit_codes::EXIT_CODES,
    roles::{self, RoleEntry, RoleSettings},
    stores::StoreLocation,
};

/// Doorstep's consumers: the roles that apply events, each once and in order, and the commands of their operators.
#[derive(Debug, Parser)]
#[command(name = "consumers", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one, several or (default) all roles, until stopped.
    ///
    /// A role takes events from its queue, applies each once and in order, and keeps its state in its store. SIGTERM or
    /// Ctrl-C lets it finish the work in progress; a second one ends it at once. Either way nothing is lost: unacked
    /// deliveries are redelivered and recognised. A running role survives every passing failure: broker restarts, cut
    /// networks, a full disk.
    ///
    /// A role's queues belong to the store that first consumed from them. Any other store, such as one in another
    /// folder, is rejected with exit code 78; `consumers store take-over` gives them to it.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),

    /// Show for each role: queue, lag, deferred, blocked and missing events, outbox and dead letters.
    ///
    /// READY counts the messages in the role's queue, and QUARANTINE those that the broker moved out of it after too many
    /// attempts; LAG adds the deferred events to both: all that have arrived and are not applied. None of them counts
    /// the deliveries that a running role has just taken, at most its prefetch. Without a broker the stores are still
    /// shown, and the exit code is 69. Works beside running roles.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),

    /// Query the health of running roles, at the address given by --health-addr.
    ///
    /// Exit code 0 if every role does its work; 2 with the reasons if one does not; 66 if no process responds. For
    /// container health checks and for people. With --live it checks whether the process makes progress at all: if not,
    /// restart it.
    #[command(after_help = HEALTH_HELP)]
    Health(HealthArgs),

    /// Show the state of one entity as JSON, or of `access_log` its report.
    ///
    /// Without a key, `access_log` shows requests, errors and response times by hour and endpoint; the quantiles are
    /// within 1 %. With --json that is a line for each hour and endpoint, then a line of totals. Works beside a running
    /// role.
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),

    /// Write every entity of a role as JSON lines, sorted by key.
    ///
    /// Keys are sorted as bytes, so that equal states give equal files. Works beside a running role; the state of each entity is then
    /// one that it has had at some moment of the export.
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),

    /// Report the sales or the deliveries of a period, as a page, CSV or JSON.
    ///
    /// The figures are those of the role `reports`, by day, country and stock code, or by day and city. Works beside the
    /// running role.
    #[command(override_usage = REPORT_USAGE, after_help = REPORT_HELP)]
    Report(ReportArgs),

    /// List, edit, replay and skip dead letters: rejected events and the streams that they block.
    #[command(subcommand, after_help = EXIT_CODES)]
    DeadLetters(DeadLettersCommand),

    /// Skip events that never came.
    #[command(subcommand, after_help = EXIT_CODES)]
    Streams(StreamsCommand),

    /// List, show, cancel, retry and resolve tasks: work with effects outside the store.
    #[command(subcommand, after_help = EXIT_CODES)]
    Tasks(TasksCommand),

    /// Manage the store of a role: its queues and its copies.
    #[command(subcommand, after_help = EXIT_CODES)]
    Store(StoreCommand),

    /// List and transfer the broker users that own the sources of events.
    #[command(subcommand, after_help = EXIT_CODES)]
    Sources(Sources),

    /// Show the topology, its differences from the broker, and the permissions that users need.
    #[command(subcommand, after_help = EXIT_CODES)]
    Topology(TopologyCommand),
}

const RUN_HELP: &str = "\
Examples:
  consumers run
  consumers run orders tracking
  consumers run --exit-when-idle 3s";

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
  consumers show orders order/536365 --json
  consumers show access_log";

const EXPORT_HELP: &str = "\
Examples:
  consumers export inventory | head
  consumers export orders --output orders.jsonl";

const REPORT_USAGE: &str = "\
consumers report [OPTIONS] --from <DATE> --to <DATE> --html <FILE> <KIND>
       consumers report [OPTIONS] --from <DATE> --to <DATE> --csv <FILE> <KIND>
       consumers report [OPTIONS] --from <DATE> --to <DATE> --json <KIND>";

const REPORT_HELP: &str = "\
Examples:
  consumers report sales --from 2010-12-01 --to 2010-12-31 --html december.html
  consumers report deliveries --from 2022-05-01 --to 2022-05-31 --json | jq .total";

/// The maximum prefetch of a quorum queue.
const MAX_PREFETCH: u16 = 2_000;
/// The maximum of events in a commit: larger batches only take memory.
const MAX_BATCH: usize = 100_000;
/// With a maximum of one, healthy events would be rejected together with the poison message. Each further attempt may
/// cost a process.
const CRASHES: RangeInclusive<u32> = 2..=100;
/// Long enough for alerts to see a copy, and short enough for the broker, which counts milliseconds in 32 bits.
const COPY_TTL: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(49 * 24);

/// The lengths of leases of tasks: from what a slow disk needs for some heartbeats, to what may pass after a crash.
const TASK_LEASE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_mins(10);

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The roles to run [default: all].
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) roles: Vec<RoleEntry>,

    /// Stop once, for this whole time, no message was ready or unacked in the queues of these roles, their outboxes
    /// were empty, no task was ready or running, and no deferred event could become due by itself: with exit code 0, or 2 and a list if anything is
    /// blocked, missing or a dead letter, or if a full store keeps a role from taking more.
    ///
    /// Of another process on the same queues, only the commits to the store are visible. Beside one, all has to be
    /// quiet for at least four heartbeats (40 s): by then the broker has closed the connection of a frozen or
    /// disconnected process and redelivered its messages to this one. A live process that takes longer than that for
    /// one batch is not waited for.
    #[arg(long, value_name = "TIME", value_parser = idle_window())]
    pub(crate) exit_when_idle: Option<Duration>,

    /// The time in which a stopping role has to finish and ack its batch and to publish its outbox.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration_arg())]
    pub(crate) shutdown_timeout: Duration,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) management: ManagementArgs,

    /// The broker users whose requests the roles serve, separated by commas [default: all, and requests without a user
    /// id].
    #[arg(
        long,
        env = "DOORSTEP_RPC_CALLERS",
        value_name = "USERS",
        value_delimiter = ',', value_parser = StringValueParser::new().map(BrokerUser::new))]
    pub(crate) rpc_callers: Option<Vec<BrokerUser>>,

    /// The maximum of unacked deliveries per consumer, from 1 to 2000.
    #[arg(
        long,
        env = "DOORSTEP_PREFETCH",
        value_name = "NUMBER",
        default_value = "2000", value_parser = number_arg(1..=MAX_PREFETCH))]
    pub(crate) prefetch: u16,

    /// The time that a delivery may stay unacked, as while the store is unavailable, before its role suspends consuming
    /// and returns it to the queue. Keep it well below the broker's consumer_timeout, which is 30 minutes unless
    /// configured otherwise.
    #[arg(
        long,
        env = "DOORSTEP_ACK_TIMEOUT",
        value_name = "TIME",
        default_value = "5m", value_parser = idle_window())]
    pub(crate) ack_timeout: Duration,

    /// The maximum of events per commit, from 1 to 100000.
    #[arg(
        long,
        env = "DOORSTEP_BATCH_SIZE",
        value_name = "NUMBER",
        default_value_t = Limits::default().batch_size, value_parser = number_arg(1..=MAX_BATCH))]
    pub(crate) batch_size: usize,

    /// The number of process crashes during an event's attempts after which it becomes a dead letter, from 2 to 100.
    ///
    /// An event that was delivered before and never acked may have crashed a process. Its attempts are counted in the
    /// role's store, and from the second one on it is tried alone.
    #[arg(
        long,
        env = "DOORSTEP_MAX_CRASHES",
        value_name = "NUMBER",
        default_value = "3", value_parser = number_arg(CRASHES))]
    pub(crate) max_crashes: u32,

    /// The maximum of deferred events of a role, from 1000 on, of 1 KiB each on average: at this bound it takes no
    /// further deliveries. If a missing event is itself in the queue, behind events that would have to be deferred, a
    /// higher bound lets the role reach it.
    #[arg(
        long,
        env = "DOORSTEP_MAX_DEFERRED",
        value_name = "NUMBER",
        default_value_t = Limits::default().deferred.rows, value_parser = number_arg(1_000_u64..=1_000_000_000))]
    pub(crate) max_deferred: u64,

    /// The time that the copy of a dead letter stays in its queue for the management UI and alerts, from 1m to 1176h. The dead letter itself stays
    /// in the role's store until it is resolved.
    #[arg(
        long,
        env = "DOORSTEP_DEAD_LETTER_COPY_TTL",
        value_name = "TIME",
        default_value = "24h", value_parser = duration_within(COPY_TTL))]
    pub(crate) dead_letter_copy_ttl: Duration,

    /// The time after which another process may take over the tasks of one whose heartbeat has stopped, from 2s to 10m.
    /// A longer one bears longer outages of the store. All processes of a store need the same.
    #[arg(
        long,
        env = "DOORSTEP_TASK_LEASE",
        value_name = "TIME",
        default_value = "20s", value_parser = duration_within(TASK_LEASE))]
    pub(crate) task_lease: Duration,

    /// The maximum of tasks that a role runs at a time in this process, from 1 to 1024. Each kind has a maximum of its
    /// own, of all processes.
    #[arg(
        long,
        env = "DOORSTEP_MAX_RUNNING_TASKS",
        value_name = "NUMBER",
        default_value_t = Limits::default().running_tasks, value_parser = number_arg(1_usize..=1_024))]
    pub(crate) max_running_tasks: usize,

    #[command(flatten)]
    pub(crate) own: RoleSettings,

    #[command(flatten)]
    pub(crate) mail: MailArgs,

    /// Consume even if the broker does not let this user record which store owns a role's queues. Then another store,
    /// such as one in another folder, can take the role's events.
    #[arg(long, env = "DOORSTEP_WITHOUT_OWNER_RECORD")]
    pub(crate) without_owner_record: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) health: EndpointArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Check whether the process makes progress, rather than whether it does its work.
    #[arg(long)]
    pub(crate) live: bool,

    /// Print the response unchanged, one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// The address of the roles' health endpoint.
    #[arg(
        long,
        env = "DOORSTEP_HEALTH_ADDR",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9100", value_parser = address())]
    pub(crate) health_addr: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The roles to show [default: all].
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) roles: Vec<RoleEntry>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The entity's key, such as `stock/85123A`. Every role but `access_log` needs one.
    pub(crate) key: Option<String>,

    /// Print one line as in an export, key included; of the report, JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The file to write instead of standard output. It appears under its name once it is complete.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command as Clap, CommandFactory};
    use doorstep_cli::{
        SettingsErrors,
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
        assert_section("settings.md", "consumers", &settings(&program));
        assert_section("cli-consumers.md", "commands", &command_line(program));
    }

    /// Returns a word in the place of a placeholder.
    fn sample(placeholder: &str) -> &str {
        match placeholder {
            "ROLE" => "orders",
            "FROM..TO" => "1..2",
            "SUBJECT" => "order/1",
            "KIND" => "sales",
            "DATE" => "2010-12-01",
            "OUTCOME" => "done",
            _ => "x",
        }
    }

    /// Parses each usage line of a command as it is written, without its optional parts.
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
            let wrong = SettingsErrors::of_arguments().into_result(Some(()));
            assert!(wrong.is_ok(), "{line}: {}", wrong.unwrap_err());
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
