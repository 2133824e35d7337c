//! The ends of attempts, on their way from the executor to the engine.

use bytes::Bytes;
use doorstep_event::EventType;
use doorstep_store::{LeasedTask, TaskDirective};

use super::fate::GaveUp;

/// The result of a task: the command that it sends to its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutput {
    /// The command's type.
    pub kind: EventType,
    /// The command's data in JSON.
    pub data: Bytes,
}

/// A leased task that ends. The engine decides it like a command, in one commit with the end of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTask {
    pub lease: LeasedTask,
    pub finish: TaskFinish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFinish {
    /// The result of its code, which the role executes as a command.
    Result(TaskOutput),
    /// It becomes a dead letter, and the role hears of it.
    Failed { gave_up: GaveUp, detail: String },
    /// It becomes a dead letter, since it has crashed as many processes as allowed. The role hears of it if `tell`.
    Poison { tell: bool },
    /// Its side effect may have happened: it waits for an operator, and the role hears of it.
    Unknown { error: String },
    /// A directive is carried out, and the role hears of it.
    Directed(TaskDirective),
}
