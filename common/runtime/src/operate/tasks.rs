//! Decisions of an operator about tasks: to cancel one, to run one now, or to resolve one without running it.

use doorstep_store::{
    AuditAction, Commit, Store, StoreError, TaskChange, TaskDirective, TaskId, TaskRow, TaskState,
    WriteSet,
};

use super::{ATTEMPTS, operator::Attribution};

/// A decision about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskDecision {
    /// To end it without running it again. A running task is asked to stop.
    Cancel,
    /// To run it now. A task of unknown effect begins again without its checkpoint: its effect may happen twice.
    Retry,
    /// To count it as done: its effect has happened.
    ResolveAsDone,
    /// To count it as failed: its effect has not happened and will not.
    ResolveAsFailed,
}

impl TaskDecision {
    fn directive(self) -> Option<TaskDirective> {
        match self {
            Self::Cancel => Some(TaskDirective::Cancel),
            Self::Retry => None,
            Self::ResolveAsDone => Some(TaskDirective::Done),
            Self::ResolveAsFailed => Some(TaskDirective::Failed),
        }
    }

    fn action(self) -> AuditAction {
        match self {
            Self::Cancel => AuditAction::CancelTask,
            Self::Retry => AuditAction::RetryTask,
            Self::ResolveAsDone | Self::ResolveAsFailed => AuditAction::ResolveTask,
        }
    }
}

/// The reason why a decision was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecideTaskError {
    #[error("task {0} is not live: it has ended, or was never started")]
    NotLive(TaskId),
    #[error("task {0} is running: it can only be cancelled; try again once it has ended")]
    Running(TaskId),
    #[error("task {0} is about to end by an earlier decision")]
    Decided(TaskId),
    /// It changed its state during each attempt.
    #[error("task {0} is too busy just now, try again")]
    Busy(TaskId),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decides about a task and records that in one commit. Returns the task as it was. The role's process carries the
/// decision out.
///
/// # Errors
/// The task's state does not permit it, or the store could not be used. Nothing was written then.
pub async fn decide_task<S: Store>(
    store: &S,
    id: &TaskId,
    decision: TaskDecision,
    by: impl Into<Attribution>,
) -> Result<TaskRow, DecideTaskError> {
    let by = by.into();
    for _ in 0..ATTEMPTS {
        let row = store.read_tasks(vec![id.clone()]).await?.pop().flatten();
        let row = row.ok_or_else(|| DecideTaskError::NotLive(id.clone()))?;
        if row.directive.is_some() {
            return Err(DecideTaskError::Decided(id.clone()));
        }
        if row.state == TaskState::Running && decision != TaskDecision::Cancel {
            return Err(DecideTaskError::Running(id.clone()));
        }
        let changes = WriteSet {
            tasks: vec![TaskChange::Decide {
                id: id.clone(),
                expected: row.state,
                directive: decision.directive(),
            }],
            audit: vec![by.record(decision.action(), id.as_str())],
            ..WriteSet::at(by.at)
        };
        if let Commit::Written(_) = store.commit(changes).await? {
            return Ok(row);
        }
    }
    Err(DecideTaskError::Busy(id.clone()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use doorstep_event::{Epoch, Event, EventId, EventType, Subject, Timestamp};
    use doorstep_store::{
        AuditFilter, Candidates, ClaimTasks, DeadLetter, DeadLetterId, DeadLetterStatus, IfLive,
        LeasedTask, MemoryStore, NewDeadLetter, NewTask, TaskEnd, TaskFate, TaskHolder,
    };

    use super::*;
    use crate::operate::{OperateError, Operator, replay};

    fn id() -> TaskId {
        TaskId::new("mail/order/1").unwrap()
    }

    fn kind() -> EventType {
        EventType::new("shop.mail.v1").unwrap()
    }

    async fn change(store: &MemoryStore, change: TaskChange) {
        let changes = WriteSet {
            tasks: vec![change],
            ..WriteSet::at(Timestamp::UNIX_EPOCH)
        };
        let commit = store.commit(changes).await.unwrap();
        assert!(matches!(commit, Commit::Written(_)));
    }

    async fn started() -> MemoryStore {
        let store = MemoryStore::new("shop");
        let new = NewTask {
            id: id(),
            kind: kind(),
            subject: Subject::new("order/1").unwrap(),
            traceparent: None,
            input: Bytes::new(),
            dead: 0,
            if_live: IfLive::Keep,
        };
        change(&store, TaskChange::Start(new)).await;
        store
    }

    async fn claim(store: &MemoryStore) -> LeasedTask {
        let ask = ClaimTasks {
            holder: TaskHolder(Epoch::new(1, 1).unwrap()),
            process: String::new(),
            now: Timestamp::UNIX_EPOCH,
            kinds: vec![(kind(), 1)],
            room: 1,
            candidates: Candidates::None,
            held: vec![],
        };
        store.claim_tasks(ask).await.unwrap().tasks.remove(0)
    }

    async fn decide(
        store: &MemoryStore,
        decision: TaskDecision,
    ) -> Result<TaskRow, DecideTaskError> {
        let ada = Operator::new("ada").unwrap();
        let by = Attribution::new(ada, Timestamp::UNIX_EPOCH);
        let by = by.with_reason("asked by the customer").unwrap();
        decide_task(store, &id(), decision, by).await
    }

    #[tokio::test]
    async fn a_decision_is_recorded_with_its_change() {
        for (decision, directive, action) in [
            (TaskDecision::Retry, None, AuditAction::RetryTask),
            (
                TaskDecision::ResolveAsDone,
                Some(TaskDirective::Done),
                AuditAction::ResolveTask,
            ),
            (
                TaskDecision::ResolveAsFailed,
                Some(TaskDirective::Failed),
                AuditAction::ResolveTask,
            ),
        ] {
            let store = started().await;
            let task = claim(&store).await;
            let end = TaskEnd {
                id: id(),
                token: task.token,
                fate: TaskFate::Unknown {
                    error: "no reply".to_owned(),
                },
            };
            change(&store, TaskChange::End(end)).await;
            let before = decide(&store, decision).await.unwrap();
            assert_eq!(before.state, TaskState::Unknown);
            let claimed = claim(&store).await;
            assert_eq!(claimed.row.directive, directive);
            let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
            let record = &page.rows[0].entry;
            assert_eq!((page.rows.len(), record.action), (1, action));
            assert_eq!(
                (&record.operator[..], &record.about[..]),
                ("ada", "mail/order/1")
            );
            assert_eq!(record.reason.as_deref(), Some("asked by the customer"));
        }
    }

    #[tokio::test]
    async fn a_running_task_is_only_cancelled() {
        let store = started().await;
        let task = claim(&store).await;
        for decision in [TaskDecision::Retry, TaskDecision::ResolveAsDone] {
            let error = decide(&store, decision).await.unwrap_err();
            assert!(matches!(error, DecideTaskError::Running(_)), "{error}");
        }
        decide(&store, TaskDecision::Cancel).await.unwrap();
        let error = decide(&store, TaskDecision::Cancel).await.unwrap_err();
        assert!(matches!(error, DecideTaskError::Decided(_)), "{error}");
        let end = TaskEnd {
            id: id(),
            token: task.token,
            fate: TaskFate::Ended,
        };
        change(&store, TaskChange::End(end)).await;
        let error = decide(&store, TaskDecision::Retry).await.unwrap_err();
        assert!(matches!(error, DecideTaskError::NotLive(_)), "{error}");
        let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        assert_eq!(page.rows[0].entry.action, AuditAction::CancelTask);
    }

    #[tokio::test]
    async fn a_dead_letter_starts_its_task_again() {
        let store = started().await;
        let task = claim(&store).await;
        let event = Event {
            id: EventId::new("mail/order/1").unwrap(),
            source: store.source().clone(),
            event_type: kind(),
            subject: task.row.subject.clone(),
            time: None,
            sequence: None,
            epoch: None,
            traceparent: None,
            data: Bytes::from_static(b"input"),
        };
        let dead = DeadLetter {
            id: DeadLetterId("a-1".to_owned()),
            body: event.data.clone(),
            event: Some(event),
            blocks: false,
            reason: "task failed".to_owned(),
            detail: String::new(),
            fingerprint: String::new(),
            attempts: 1,
            since: Timestamp::UNIX_EPOCH,
            status: DeadLetterStatus::Open,
            defect: None,
            task: Some(id()),
        };
        let letter = dead.id.clone();
        let died = WriteSet {
            dead_letters: vec![NewDeadLetter { row: dead }],
            ..WriteSet::at(Timestamp::UNIX_EPOCH)
        };
        store.commit(died).await.unwrap();
        // The task under its id is live until its lease ends.
        let replayed = replay(&store, &letter, Timestamp::UNIX_EPOCH).await;
        let error = replayed.unwrap_err();
        assert!(
            matches!(error, OperateError::NotReplayable { .. }),
            "{error}"
        );
        let end = TaskEnd {
            id: id(),
            token: task.token,
            fate: TaskFate::Ended,
        };
        change(&store, TaskChange::End(end)).await;
        replay(&store, &letter, Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let again = claim(&store).await.row;
        assert_eq!((again.id, again.dead, again.number), (id(), 1, 2));
        assert_eq!(&again.input[..], b"input");
        assert_eq!(store.usage().await.unwrap().dead_letters.rows, 0);
        let replayed = replay(&store, &letter, Timestamp::UNIX_EPOCH).await;
        let error = replayed.unwrap_err();
        assert!(matches!(error, OperateError::AlreadySettled(_)), "{error}");
        let page = store.audit(AuditFilter::All, None, 9).await.unwrap();
        assert_eq!(page.rows.len(), 1);
        assert_eq!(page.rows[0].entry.action, AuditAction::Replay);
    }
}
