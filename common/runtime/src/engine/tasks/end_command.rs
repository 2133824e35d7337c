//! The command by which a role hears of the end of a task.

use bytes::Bytes;
use doorstep_event::{
    EventType, Idempotency, Rejection, Request, RequestContract, RequestId, RequestKind, Source,
    Timestamp,
};
use doorstep_store::{TaskDirective, TaskId, TaskToken};
use sha2::{Digest, Sha256};

use super::{
    fate::GaveUp,
    finished::{FinishedTask, TaskFinish},
};
use crate::task::{TaskEnding, TaskOutcome};

impl FinishedTask {
    /// Returns the command by which the role hears of the end: the result, or a [`TaskOutcome`]. Nobody waits for a
    /// reply, so it has no deadline.
    pub(in crate::engine) fn request(&self, caller: &Source) -> Request {
        let (kind, data) = match &self.finish {
            TaskFinish::Result(output) => (output.kind.clone(), output.data.clone()),
            TaskFinish::Failed { detail, .. } => self.outcome(TaskEnding::Failed, detail),
            TaskFinish::Poison { .. } => self.outcome(TaskEnding::Failed, &self.crashed()),
            TaskFinish::Unknown { error } => self.outcome(TaskEnding::Unknown, error),
            TaskFinish::Directed(TaskDirective::Cancel) => self.outcome(TaskEnding::Cancelled, ""),
            TaskFinish::Directed(TaskDirective::Done) => {
                self.outcome(TaskEnding::SettledDone, self.last_error())
            }
            TaskFinish::Directed(TaskDirective::Failed) => {
                self.outcome(TaskEnding::SettledFailed, self.last_error())
            }
        };
        Request {
            id: request_id(&self.lease.row.id, self.lease.token),
            caller: caller.clone(),
            kind,
            act: RequestKind::Command,
            time: self.lease.row.since,
            deadline: Timestamp::MAX,
            idempotency: Idempotency::OneShot,
            traceparent: self.lease.row.traceparent.clone(),
            data,
        }
    }

    fn outcome(&self, ending: TaskEnding, detail: &str) -> (EventType, Bytes) {
        let row = &self.lease.row;
        let outcome = TaskOutcome {
            task: row.id.to_string(),
            kind: row.kind.clone(),
            subject: row.subject.clone(),
            ending,
            detail: detail.to_owned(),
        };
        #[expect(clippy::expect_used, reason = "texts and names have a form in JSON")]
        let data = serde_json::to_vec(&outcome).expect("an outcome has a form in JSON");
        (TaskOutcome::request_type(), data.into())
    }

    fn last_error(&self) -> &str {
        self.lease.row.error.as_deref().unwrap_or_default()
    }

    /// Describes the crashes of a poison task.
    pub(in crate::engine) fn crashed(&self) -> String {
        let crashes = self.lease.row.crashes;
        format!("the process ended {crashes} times while it ran this task")
    }

    /// Returns whether the role hears of it.
    pub(in crate::engine) fn is_told(&self) -> bool {
        self.finish != TaskFinish::Poison { tell: false }
    }

    /// Returns the failure of a task whose result was rejected.
    pub(in crate::engine) fn with_rejected_result(self, rejected: &Rejection) -> Self {
        Self {
            finish: TaskFinish::Failed {
                gave_up: GaveUp::ResultRejected,
                detail: rejected.to_string(),
            },
            ..self
        }
    }
}

/// Returns the id of the command that ends a lease: another one for each lease.
fn request_id(task: &TaskId, token: TaskToken) -> RequestId {
    let mut hash = Sha256::new();
    hash.update(token.0.to_be_bytes());
    hash.update(task.as_str());
    #[expect(clippy::expect_used, reason = "64 hexadecimal digits are well formed")]
    let id = RequestId::new(hex::encode(hash.finalize())).expect("digits are an id");
    id
}
