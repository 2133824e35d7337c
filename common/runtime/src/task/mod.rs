//! Tasks: the side effects of a role outside its store.
//!
//! A handler starts a task with [`Effects::start`](crate::Effects::start), in the commit of its cause. A process of the
//! role runs the task later, under a lease. The result returns to the role as a command, in one commit with the end of
//! the task.

mod context;
mod detached;
mod outcome;
mod set;

use std::{future::Future, time::Duration};

use doorstep_event::{EventType, MAX_DATA_BYTES, RequestContract, Subject};
use doorstep_store::TaskId;
use serde::{Serialize, de::DeserializeOwned};

pub use crate::engine::tasks::{
    fate::{OnUnknown, TaskPolicy},
    finished::{FinishedTask, TaskFinish, TaskOutput},
};
pub use context::{MAX_CHECKPOINT_BYTES, MAX_NOTE_BYTES, StopReason, TaskContext};
pub(crate) use context::{ProgressReport, ReadStates, SaveCheckpoint, TaskControl};
pub use detached::{AttemptFacts, DetachedAttempt};
pub use outcome::{TaskEnding, TaskOutcome};
pub use set::TaskSet;

/// A kind of task, with its input as fields.
///
/// An attempt may be interrupted at any point, and the task then runs again, perhaps in another process. The store
/// accepts results and checkpoints of the present lease alone, whatever an earlier attempt still does. Nothing protects
/// the world outside: pass [`TaskContext::idempotency_key`] to it where it can recognize a repetition, and save a
/// checkpoint before a step that it cannot recognize.
///
/// Code that blocks its thread is stopped by [`TaskContext::proceed`] only. Run such code in
/// [`tokio::task::spawn_blocking`].
pub trait Task: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind: a versioned type, such as `depot.print_label.v1`.
    const TYPE: &'static str;

    /// The bounds of the kind, unless [`TaskSet::with_policy`] sets others.
    const POLICY: TaskPolicy = TaskPolicy::DEFAULT;

    /// Connections, folders and the like, given at the start of the process.
    type Resources: Clone + Send + Sync + 'static;

    /// The command that returns the result to the role.
    type Output: RequestContract + Send;

    /// Checks the rules beyond the format.
    ///
    /// # Errors
    /// Describes the violated rule, with the values.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Runs one attempt.
    ///
    /// # Errors
    /// A [`TaskError`]. A panic makes the task a dead letter.
    fn run(
        self,
        context: TaskContext,
        resources: Self::Resources,
    ) -> impl Future<Output = Result<Self::Output, TaskError>> + Send;
}

/// The end of an attempt without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskError {
    /// An error that may pass: the task is retried by backoff.
    Retry(String),
    /// An error that may pass, with the least time until the next attempt.
    RetryAfter(Duration, String),
    /// An error that does not pass: the task becomes a dead letter.
    Fail(String),
    /// The side effect may have happened; [`TaskPolicy::on_unknown`] decides.
    Unknown(String),
    /// The attempt was asked to stop and did.
    Stopped,
}

/// An effect on the role's tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEffect {
    Start {
        id: TaskId,
        kind: EventType,
        subject: Subject,
        /// In JSON.
        input: Vec<u8>,
    },
    Cancel(TaskId),
}

impl TaskEffect {
    /// Creates the start of a task.
    ///
    /// # Errors
    /// Describes the rule of its own that the task breaks, or that it exceeds 1 MiB: the event that led to it is rejected,
    /// rather than a task started that cannot run.
    pub(crate) fn start<T: Task>(id: TaskId, subject: &Subject, task: &T) -> Result<Self, String> {
        let rejected = |detail: String| format!("cannot start {}: {detail}", T::TYPE);
        task.check().map_err(rejected)?;
        let input = serde_json::to_vec(task).map_err(|e| rejected(e.to_string()))?;
        if input.len() > MAX_DATA_BYTES {
            let detail = format!("its input has {} bytes, more than 1 MiB", input.len());
            return Err(rejected(detail));
        }
        Ok(Self::Start {
            id,
            kind: kind_of::<T>(),
            subject: subject.clone(),
            input,
        })
    }
}

/// Returns [`Task::TYPE`] as a type.
///
/// # Panics
/// If it is not well-formed, which is a bug in the program.
#[must_use]
pub fn kind_of<T: Task>() -> EventType {
    #[expect(clippy::expect_used, reason = "a constant of the program")]
    EventType::new(T::TYPE).expect("a task's TYPE is a well-formed type")
}
