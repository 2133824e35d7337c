//! The command that tells a role of a task's end without a result.

use doorstep_event::{EventType, RequestContract, RequestKind, Subject};
use serde::{Deserialize, Serialize};

/// The end of a task without a result, as a command to its role. A role that answers it as an unknown type needs no word
/// of such ends: the task ends all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskOutcome {
    /// The task's id.
    pub task: String,
    pub kind: EventType,
    /// The task's subject.
    pub subject: Subject,
    pub ending: TaskEnding,
    /// The error, or the operator's reason; may be empty.
    pub detail: String,
}

/// The kind of an end without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnding {
    /// It has become a dead letter. A replay starts it again.
    Failed,
    Cancelled,
    /// Its side effect may have happened. It has not ended: an operator decides.
    Unknown,
    /// An operator has decided that its side effect has happened.
    SettledDone,
    /// An operator has decided that its side effect has not happened and will not.
    SettledFailed,
}

impl RequestContract for TaskOutcome {
    const TYPE: &'static str = "task.outcome.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}
