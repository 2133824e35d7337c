//! The arguments of `consumers tasks`.

use clap::{Args, Subcommand, ValueEnum};
use doorstep_cli::parse::from_str;
use doorstep_event::EventType;
use doorstep_store::{TaskFilter, TaskId, TaskState};

use super::dead_letters::{ReasonedArgs, RecordArgs};
use crate::{
    roles::{self, RoleEntry},
    stores::StoreLocation,
};
use doorstep_cli::args::StoreArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// List live tasks: mails, reports and other work with effects outside the store, oldest first.
    ///
    /// A task that has failed for good is a dead letter, and one that has ended is gone. Works beside running roles.
    #[command(after_help = LIST_HELP)]
    List(TasksListArgs),

    /// Show one live task: state, progress, attempts, last error and input.
    #[command(after_help = "Example:\n  consumers tasks show reports report/0b7e")]
    Show(TaskShowArgs),

    /// Cancel a task: it ends without being run again, and a running one is asked to stop.
    ///
    /// A running task may still end with its result. Works whether the role runs or not.
    #[command(
        after_help = "Example:\n  consumers tasks cancel reports report/0b7e --reason 'asked for twice'"
    )]
    Cancel(TaskCancelArgs),

    /// Run tasks now: those that wait for a retry, or those whose effect is unknown.
    ///
    /// A task of unknown effect begins again without its checkpoint, so its effect may happen twice.
    #[command(override_usage = RETRY_USAGE, after_help = RETRY_HELP)]
    Retry(TaskRetryArgs),

    /// Decide what became of tasks whose effect is unknown, without running them again.
    #[command(override_usage = RESOLVE_USAGE, after_help = RESOLVE_HELP)]
    Resolve(TaskResolveArgs),
}

// Written by hand: clap puts a group before the role, and could not parse that itself.
const RETRY_USAGE: &str = "\
consumers tasks retry [OPTIONS] <ROLE> <ID>...
       consumers tasks retry [OPTIONS] <ROLE> --unknown";

const RESOLVE_USAGE: &str = "\
consumers tasks resolve [OPTIONS] --as <OUTCOME> --reason <TEXT> <ROLE> <ID>...
       consumers tasks resolve [OPTIONS] --as <OUTCOME> --reason <TEXT> <ROLE> --unknown";

const LIST_HELP: &str = "\
Examples:
  consumers tasks list
  consumers tasks list notifications --state unknown
  consumers tasks list --json | jq -r 'select(.attempts > 3) | .error'";

const RETRY_HELP: &str = "\
Examples:
  consumers tasks retry notifications mail/order/536365/confirmed
  consumers tasks retry notifications --unknown --reason 'the server had lost its queue'";

const RESOLVE_HELP: &str = "\
Examples:
  consumers tasks resolve notifications mail/order/536365/confirmed --as done --reason 'in the server log'
  consumers tasks resolve notifications --unknown --as failed --dry-run";

#[derive(Debug, Args)]
pub(crate) struct TasksListArgs {
    /// The roles [default: all].
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) roles: Vec<RoleEntry>,

    /// Only tasks in this state.
    #[arg(long)]
    pub(crate) state: Option<StateArg>,

    /// Only tasks of this kind, such as `reports.render.v1`.
    #[arg(long, value_parser = from_str::<EventType>("reports.render.v1"))]
    pub(crate) kind: Option<EventType>,

    /// Print one JSON object a line, for all of them, instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// The maximum of rows per role in the table.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = doorstep_cli::parse::number_arg(1..=100_000_usize))]
    pub(crate) limit: usize,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

impl TasksListArgs {
    /// Returns the filter of the store.
    pub(crate) fn filter(&self) -> TaskFilter {
        TaskFilter {
            state: self.state.map(StateArg::state),
            kind: self.kind.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArg {
    /// Waits to be run.
    Ready,
    /// A process runs it.
    Running,
    /// Its effect may have happened.
    Unknown,
}

impl StateArg {
    fn state(self) -> TaskState {
        match self {
            Self::Ready => TaskState::Ready,
            Self::Running => TaskState::Running,
            Self::Unknown => TaskState::Unknown,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TaskShowArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The task's id, as `tasks list` shows it.
    #[arg(value_parser = task_id())]
    pub(crate) id: TaskId,

    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskCancelArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The ids of the tasks.
    #[arg(required = true, value_name = "ID", value_parser = task_id())]
    pub(crate) ids: Vec<TaskId>,

    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// Named tasks, or all of unknown effect.
#[derive(Debug, Args)]
pub(crate) struct TaskSelection {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = task_id(), required_unless_present = "unknown")]
    pub(crate) ids: Vec<TaskId>,

    /// Take all tasks whose effect is unknown.
    #[arg(long, conflicts_with = "ids")]
    pub(crate) unknown: bool,

    /// Of these only the tasks of this kind.
    #[arg(long, requires = "unknown", value_parser = from_str::<EventType>("notifications.mail.v1"))]
    pub(crate) kind: Option<EventType>,
}

#[derive(Debug, Args)]
pub(crate) struct TaskRetryArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    #[command(flatten)]
    pub(crate) chosen: TaskSelection,

    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TaskResolveArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    #[command(flatten)]
    pub(crate) chosen: TaskSelection,

    /// What became of their effect.
    #[arg(long = "as", value_name = "OUTCOME")]
    pub(crate) outcome: Outcome,

    #[command(flatten)]
    pub(crate) decision: ReasonedArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    /// It has happened.
    Done,
    /// It has not happened and will not.
    Failed,
}

fn task_id() -> impl clap::builder::TypedValueParser<Value = TaskId> {
    use clap::builder::{StringValueParser, TypedValueParser};
    StringValueParser::new().try_map(TaskId::new)
}
