//! The ends of tasks, on their way from the executor to the role's loop and back.

use doorstep_store::MAX_DIRECTED_TASKS;
use tokio::sync::{mpsc, oneshot};

use crate::{CommandResult, Limits, task::FinishedTask};

/// The end of a task that waits for the role's loop.
#[derive(Debug)]
pub(in crate::runner) struct QueuedEnd {
    pub(in crate::runner) finished: FinishedTask,
    /// Receives the durable decision; dropped if there is none.
    pub(in crate::runner) decided: oneshot::Sender<Decision>,
}

/// The durable decision on an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum Decision {
    /// The task has ended, or waits for an operator.
    Ended,
    /// Another process has the task, or has ended it.
    LeaseLost,
}

impl Decision {
    /// Returns the decision in a command's result; `None` if it is not that of a task's end.
    pub(in crate::runner) fn from_result(result: &CommandResult) -> Option<Self> {
        match result {
            CommandResult::Ended => Some(Self::Ended),
            CommandResult::LeaseLost => Some(Self::LeaseLost),
            CommandResult::Answer(_) | CommandResult::Expired => None,
        }
    }
}

/// Returns the maximum of tasks that are leased to the process before it claims more: it claims tasks with a directive
/// beside those that run.
pub(super) fn max_held(limits: &Limits) -> usize {
    limits.running_tasks + MAX_DIRECTED_TASKS
}

/// Creates the channel to the role's loop. It has room for every task that may be leased at a time.
pub(in crate::runner) fn channel(
    limits: &Limits,
) -> (mpsc::Sender<QueuedEnd>, mpsc::Receiver<QueuedEnd>) {
    mpsc::channel(max_held(limits) + limits.running_tasks + MAX_DIRECTED_TASKS)
}
