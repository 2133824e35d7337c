//! Attempts without an executor, for tests of a task's code.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use doorstep_event::{EventType, Subject, Timestamp};
use doorstep_store::{LeasedTask, Store, TaskId, TaskRow, TaskState, TaskToken};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{SaveCheckpoint, StopReason, TaskContext, TaskControl};

/// The facts with which a detached attempt begins.
#[derive(Debug, Clone)]
pub struct AttemptFacts {
    pub id: TaskId,
    /// The number of the attempt, from 1 on.
    pub attempt: u32,
    pub started_at: Timestamp,
    /// In JSON, as an earlier attempt has saved it.
    pub checkpoint: Option<Bytes>,
}

impl AttemptFacts {
    /// Creates the facts of a task's first attempt.
    #[must_use]
    pub fn first(id: TaskId, started_at: Timestamp) -> Self {
        Self {
            id,
            attempt: 1,
            started_at,
            checkpoint: None,
        }
    }

    /// Returns the facts of the next attempt, which continues from this checkpoint.
    ///
    /// # Panics
    /// If the checkpoint has no form in JSON.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a helper that fails fails its test")]
    pub fn then_from<C: Serialize>(mut self, checkpoint: &C) -> Self {
        let bytes = serde_json::to_vec(checkpoint).expect("a checkpoint in JSON");
        self.checkpoint = Some(bytes.into());
        self.attempt += 1;
        self
    }
}

/// The test's side of a [`TaskContext`] without an executor. Its lease is lost when this is dropped.
#[derive(Debug)]
pub struct DetachedAttempt {
    control: TaskControl,
    saved: Arc<Mutex<Vec<Bytes>>>,
}

impl TaskContext {
    /// Creates an attempt without an executor, for tests of a task's code: nothing limits its time or drops it, and its
    /// checkpoints are kept in memory. Reads go to the given store. The idempotency key is `detached/ID`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[must_use]
    #[expect(clippy::expect_used, reason = "constants")]
    pub fn detached<S: Store>(store: S, facts: AttemptFacts) -> (Self, DetachedAttempt) {
        let key = format!("detached/{}", facts.id);
        let row = TaskRow {
            number: 1,
            id: facts.id,
            kind: EventType::new("task.detached.v1").expect("a type"),
            subject: Subject::new("task/detached").expect("a subject"),
            traceparent: None,
            input: Bytes::new(),
            since: facts.started_at,
            state: TaskState::Running,
            lease: None,
            directive: None,
            due: facts.started_at,
            attempts: facts.attempt.saturating_sub(1),
            crashes: 0,
            dead: 0,
            done: 0,
            total: 0,
            reached: 0,
            note: None,
            checkpoint: facts.checkpoint,
            error: None,
        };
        let token = TaskToken(1);
        let (checkpoints, asked) = mpsc::channel(1);
        let lease = LeasedTask { row, token };
        let (context, control) = Self::new(lease, key, checkpoints, Arc::new(store));
        let saved = Arc::default();
        let stop = control.stop.subscribe();
        tokio::spawn(keep(asked, stop, Arc::clone(&saved)));
        (context, DetachedAttempt { control, saved })
    }
}

/// Keeps checkpoints until the lease is lost.
async fn keep(
    mut asked: mpsc::Receiver<SaveCheckpoint>,
    stop: tokio::sync::watch::Receiver<Option<StopReason>>,
    saved: Arc<Mutex<Vec<Bytes>>>,
) {
    while let Some(ask) = asked.recv().await {
        if *stop.borrow() == Some(StopReason::LeaseLost) || stop.has_changed().is_err() {
            return;
        }
        let mut all = saved.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(ask.checkpoint);
        // The attempt may have been dropped meanwhile.
        let _ = ask.saved.send(());
    }
}

impl DetachedAttempt {
    /// Asks the attempt to stop. After [`StopReason::LeaseLost`], no checkpoint is saved.
    pub fn stop(&self, reason: StopReason) {
        self.control.stop.send_replace(Some(reason));
    }

    /// Returns the last reported progress: the units done, and all units.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let report = self.control.progress.borrow();
        (report.done, report.total)
    }

    /// Returns the last note.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.control.progress.borrow().note.clone()
    }

    /// Returns the saved checkpoints, oldest first.
    ///
    /// # Panics
    /// If one is not of this type.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a helper that fails fails its test")]
    pub fn checkpoints<C: DeserializeOwned>(&self) -> Vec<C> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |bytes: &Bytes| serde_json::from_slice(bytes).expect("a checkpoint of the type");
        saved.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use doorstep_store::MemoryStore;

    use super::*;
    use crate::task::TaskError;

    #[tokio::test]
    async fn detached_attempt_keeps_checkpoints() {
        let id = TaskId::new("label/7").unwrap();
        let facts = AttemptFacts::first(id, Timestamp::UNIX_EPOCH).then_from(&4_u32);
        let (context, attempt) = TaskContext::detached(MemoryStore::new("depot"), facts);
        assert_eq!(context.attempt(), 2);
        assert_eq!(context.idempotency_key(), "detached/label/7");
        assert_eq!(context.checkpoint::<u32>(), Ok(Some(4)));
        assert_eq!(context.entities::<u32>(None, 1).await, Ok(vec![]));
        context.progress(5, 9);
        context.note("half");
        assert_eq!(
            (attempt.progress(), attempt.note()),
            ((5, 9), Some("half".to_owned()))
        );
        context.save_checkpoint(&5_u32).await.unwrap();
        assert_eq!(context.proceed(), Ok(()));
        attempt.stop(StopReason::LeaseLost);
        assert_eq!(context.stopped().await, StopReason::LeaseLost);
        assert_eq!(context.proceed(), Err(TaskError::Stopped));
        let refused = context.save_checkpoint(&6_u32).await;
        assert_eq!(refused, Err(TaskError::Stopped));
        assert_eq!(attempt.checkpoints::<u32>(), [5]);
    }
}
