//! Tasks: work with side effects outside the store. A commit starts them, and a process runs them afterwards.
//!
//! A process claims a task under a lease with a token, and each change that it makes names that token. A lease ends
//! with the task, or when another process takes over the tasks of a holder whose heartbeat has stopped. No rule here
//! compares two times: the observer decides on its own clock when a heartbeat has stopped.

pub(crate) mod leases;
pub(crate) mod table;
mod transitions;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use doorstep_event::{Epoch, EventType, Subject, Timestamp};
use serde::Serialize;

/// The maximum bytes of a task's id.
pub const MAX_TASK_ID_BYTES: usize = 200;

/// The maximum number of tasks with a directive that one claim returns. Their number is bounded apart from the room
/// for others, since they run no code.
pub const MAX_DIRECTED_TASKS: usize = 32;

/// The id of a task, derived by the role from the task's cause. Unique among the live tasks of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// Validates the text.
    ///
    /// # Errors
    /// Fails if the text is empty, exceeds [`MAX_TASK_ID_BYTES`] or contains control characters.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, TaskIdError> {
        let text = text.into();
        if text.is_empty() {
            return Err(TaskIdError::Empty);
        }
        if text.len() > MAX_TASK_ID_BYTES {
            return Err(TaskIdError::TooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(TaskIdError::ControlCharacter);
        }
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    #[error("a task's id is empty")]
    Empty,
    #[error("a task's id has {bytes} bytes, more than {MAX_TASK_ID_BYTES}")]
    TooLong { bytes: usize },
    #[error("a task's id contains a control character")]
    ControlCharacter,
}

/// The fencing token of a lease. A store gives out each token once, even if a task's id is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskToken(pub i64);

/// A process that runs tasks: one start of the role on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskHolder(pub Epoch);

impl fmt::Display for TaskHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits to be claimed.
    Ready,
    /// Leased to a process.
    Running,
    /// Its effect outside may have happened: an operator decides.
    Unknown,
}

/// A decision about a task. The process that claims the task carries it out and ends the task without running its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskDirective {
    Cancel,
    /// Count it as done: its effect has happened.
    Done,
    /// Count it as failed: its effect has not happened and will not.
    Failed,
}

/// A task to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    pub id: TaskId,
    /// The kind of task: its versioned type.
    pub kind: EventType,
    pub subject: Subject,
    /// W3C trace context of the message that has started it.
    pub traceparent: Option<String>,
    pub input: Bytes,
    /// The number of dead letters made of it so far.
    pub dead: u32,
    pub if_live: IfLive,
}

/// The treatment of a new task whose id a live task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfLive {
    /// The live task stays, and the new one is dropped.
    Keep,
    /// The commit is a conflict.
    Conflict,
}

/// A change of a task. A commit applies its changes in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskChange {
    Start(NewTask),
    /// Cancels a task. No change if it has ended, or if its effect is unknown.
    Cancel(TaskId),
    /// Ends a lease. A conflict unless the task is running under this token.
    End(TaskEnd),
    /// An operator's decision. A conflict unless the task is in the expected state. A running task can only be
    /// cancelled.
    Decide {
        id: TaskId,
        expected: TaskState,
        /// `None`: to run it now. A task of unknown effect then starts again from the beginning, without its checkpoint.
        directive: Option<TaskDirective>,
    },
}

/// The end of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnd {
    pub id: TaskId,
    pub token: TaskToken,
    pub fate: TaskFate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFate {
    /// It is gone: the commit contains its result, and the store counts it as done.
    Done,
    /// It is gone without a result: failed, cancelled or settled.
    Ended,
    /// Its effect may have happened: it waits for an operator.
    Unknown { error: String },
    /// It is ready again at this time, after an error. Its crash count returns to 0.
    Retry { due: Timestamp, error: String },
    /// It is ready at once, and nothing is counted.
    Release,
}

/// A live task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Its number within the store, in the order of starting; never reused.
    pub number: u64,
    pub id: TaskId,
    pub kind: EventType,
    pub subject: Subject,
    pub traceparent: Option<String>,
    pub input: Bytes,
    /// The time of the commit that has started it.
    pub since: Timestamp,
    pub state: TaskState,
    /// The lease of a running task.
    pub lease: Option<TaskLease>,
    pub directive: Option<TaskDirective>,
    /// The time of the next attempt.
    pub due: Timestamp,
    /// The number of attempts that ended with an error.
    pub attempts: u32,
    /// The number of processes that have ended while they ran it, since it last got further.
    pub crashes: u32,
    /// The number of dead letters made of it so far.
    pub dead: u32,
    /// The units of work done, as last reported.
    pub done: u64,
    /// All units of work, 0 if unknown.
    pub total: u64,
    /// The highest `done` ever reported.
    pub reached: u64,
    /// The progress in words.
    pub note: Option<String>,
    /// The data with which the next attempt continues.
    pub checkpoint: Option<Bytes>,
    /// The last error.
    pub error: Option<String>,
}

/// The right of one process to run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLease {
    pub token: TaskToken,
    pub holder: TaskHolder,
    /// The time of the claim by the holder's clock, for people only.
    pub claimed: Timestamp,
}

/// A claim of tasks.
#[derive(Debug, Clone)]
pub struct ClaimTasks {
    pub holder: TaskHolder,
    /// A description of the process for operators, such as its host and its id.
    pub process: String,
    pub now: Timestamp,
    /// The kinds that the process can run, each with the maximum of running tasks in the store.
    pub kinds: Vec<(EventType, u32)>,
    /// The number of further tasks that the process has room for.
    pub room: usize,
    pub candidates: Candidates,
    /// The tasks that the process knows to be leased to it.
    pub held: Vec<TaskId>,
}

/// The claim of poison candidates: tasks with a crash count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidates {
    None,
    /// One candidate without fresh tasks beside it, or fresh tasks if no candidate is due.
    One,
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimed {
    /// Tasks leased to the holder, each with its lease: those missing in [`ClaimTasks::held`], those with a directive,
    /// and those to run.
    pub tasks: Vec<LeasedTask>,
    /// The number of due candidates of the given kinds that were not claimed.
    pub candidates_due: u64,
}

/// A task with the token of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedTask {
    pub row: TaskRow,
    pub token: TaskToken,
}

/// The progress of a running task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProgress {
    pub id: TaskId,
    pub token: TaskToken,
    pub done: u64,
    pub total: u64,
    pub note: Option<String>,
    /// The new checkpoint; `None` keeps the stored one.
    pub checkpoint: Option<Bytes>,
}

/// The reply to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// False if another process has taken over: all leases of the holder are lost.
    pub alive: bool,
    /// The tasks among the reported ones that are no longer leased under their token.
    pub lost: Vec<TaskId>,
    /// The holder's running tasks that are to be cancelled.
    pub cancelled: Vec<TaskId>,
}

/// A holder of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderRow {
    pub holder: TaskHolder,
    /// The number of its last heartbeat. No two heartbeats of a store have the same number.
    pub beat: u64,
    /// The number of its running tasks.
    pub running: u64,
    pub process: String,
    /// The time of its last heartbeat by its own clock, for people only.
    pub renewed: Timestamp,
}

/// Selects the tasks to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub state: Option<TaskState>,
    pub kind: Option<EventType>,
}

/// The live tasks of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskKindCount {
    pub kind: EventType,
    pub ready: u64,
    pub running: u64,
    pub unknown: u64,
    /// Age in milliseconds of the oldest that is ready.
    pub oldest_ready_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_and_readable() {
        let longest = "x".repeat(MAX_TASK_ID_BYTES);
        for valid in ["mail/order/1/confirmed", "é", &longest] {
            assert_eq!(TaskId::new(valid).unwrap().as_str(), valid);
        }
        assert_eq!(TaskId::new(""), Err(TaskIdError::Empty));
        assert_eq!(
            TaskId::new(format!("{longest}x")),
            Err(TaskIdError::TooLong { bytes: 201 })
        );
        for control in ["a\nb", "a\u{7f}", "\u{85}"] {
            assert_eq!(TaskId::new(control), Err(TaskIdError::ControlCharacter));
        }
    }
}
