//! The connection between an attempt of a task and the process that runs it.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use doorstep_event::Timestamp;
use doorstep_store::{EntityKey, EntityRow, LeasedTask, Result, Store, TaskId, TaskToken};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot, watch};

use super::TaskError;
use crate::engine::state_of;

/// The maximum bytes of a checkpoint in JSON.
pub const MAX_CHECKPOINT_BYTES: usize = 64 * 1024;

/// The maximum bytes of a progress note. Longer ones are cut.
pub const MAX_NOTE_BYTES: usize = 200;

/// The reason why an attempt has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A handler or an operator has cancelled the task.
    Cancelled,
    /// The process stops, or tries an event alone that may have crashed it. The task runs again at once, perhaps in
    /// another process.
    Shutdown,
    /// Another process may run the task now.
    LeaseLost,
    /// The attempt has exceeded its timeout.
    TimedOut,
}

/// The progress that an attempt has reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProgressReport {
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) note: Option<String>,
}

/// A checkpoint to save with the next heartbeat.
#[derive(Debug)]
pub(crate) struct SaveCheckpoint {
    /// The lease of the attempt, which may have been lost since.
    pub(crate) token: TaskToken,
    pub(crate) checkpoint: Bytes,
    /// Receives a word once the checkpoint is durable; dropped if the lease is lost.
    pub(crate) saved: oneshot::Sender<()>,
}

type ReadFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<EntityRow>>> + Send + 'a>>;

/// The reads of [`Store`] that a task may use.
pub(crate) trait ReadStates: Send + Sync {
    fn entities_of(&self, keys: Vec<EntityKey>) -> ReadFuture<'_>;
    fn page(&self, after: Option<EntityKey>, limit: usize) -> ReadFuture<'_>;
}

impl<S: Store> ReadStates for S {
    fn entities_of(&self, keys: Vec<EntityKey>) -> ReadFuture<'_> {
        Box::pin(self.read_entities(keys))
    }

    fn page(&self, after: Option<EntityKey>, limit: usize) -> ReadFuture<'_> {
        Box::pin(self.entities(after, limit))
    }
}

/// An attempt's view of its task. Clones are the same attempt.
#[derive(Clone)]
pub struct TaskContext(Arc<Inner>);

struct Inner {
    lease: LeasedTask,
    key: String,
    progress: watch::Sender<ProgressReport>,
    checkpoints: mpsc::Sender<SaveCheckpoint>,
    stop: watch::Receiver<Option<StopReason>>,
    states: Arc<dyn ReadStates>,
}

/// The executor's side of a [`TaskContext`].
#[derive(Debug)]
pub(crate) struct TaskControl {
    pub(crate) progress: watch::Receiver<ProgressReport>,
    pub(crate) stop: watch::Sender<Option<StopReason>>,
}

impl TaskContext {
    /// Creates the context of an attempt. `key` is the idempotency key.
    pub(crate) fn new(
        lease: LeasedTask,
        key: String,
        checkpoints: mpsc::Sender<SaveCheckpoint>,
        states: Arc<dyn ReadStates>,
    ) -> (Self, TaskControl) {
        let row = &lease.row;
        let (progress, reported) = watch::channel(ProgressReport {
            done: row.done,
            total: row.total,
            note: row.note.clone(),
        });
        let (stop, stopped) = watch::channel(None);
        let context = Self(Arc::new(Inner {
            lease,
            key,
            progress,
            checkpoints,
            stop: stopped,
            states,
        }));
        let control = TaskControl {
            progress: reported,
            stop,
        };
        (context, control)
    }

    /// Returns the task's id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.0.lease.row.id
    }

    /// Returns the key by which the world outside can recognize a repetition: `NAMESPACE.ROLE/ID`. It is the same for
    /// every attempt, after a replay, and in a restored store.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.0.key
    }

    /// Returns the fencing token of this attempt's lease. Each later attempt of any task of the store has a higher one, so
    /// a system outside that remembers the highest token of a task can refuse an earlier attempt.
    #[must_use]
    pub fn fencing_token(&self) -> i64 {
        self.0.lease.token.0
    }

    /// Returns the number of this attempt, from 1 on. Attempts of processes that have crashed are not counted.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.lease.row.attempts.saturating_add(1)
    }

    /// Returns the time of the commit that has started the task: the same for every attempt.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.0.lease.row.since
    }

    /// Reports progress; a `total` of 0 is unknown. Never waits: the newest report goes out with the next heartbeat.
    pub fn progress(&self, done: u64, total: u64) {
        self.0.progress.send_modify(|report| {
            report.done = done;
            report.total = total;
        });
    }

    /// Reports progress in words, cut to [`MAX_NOTE_BYTES`]. Never waits.
    pub fn note(&self, text: &str) {
        let end = text.floor_char_boundary(MAX_NOTE_BYTES);
        let note = text[..end].to_owned();
        self.0
            .progress
            .send_modify(|report| report.note = Some(note));
    }

    /// Returns the checkpoint with which this attempt has begun.
    ///
    /// # Errors
    /// [`TaskError::Fail`] if the checkpoint cannot be read: it may be of another version of the program.
    pub fn checkpoint<C: DeserializeOwned>(&self) -> Result<Option<C>, TaskError> {
        let stored = self.0.lease.row.checkpoint.as_ref();
        stored
            .map(|bytes| serde_json::from_slice(bytes))
            .transpose()
            .map_err(|e| TaskError::Fail(format!("its checkpoint cannot be read: {e}")))
    }

    /// Saves a checkpoint for the next attempt. It is durable once this returns, and the lease was held then.
    ///
    /// May be cancelled: the checkpoint may then be saved or not.
    ///
    /// # Errors
    /// [`TaskError::Stopped`] if the lease is lost, [`TaskError::Fail`] if the checkpoint exceeds
    /// [`MAX_CHECKPOINT_BYTES`].
    pub async fn save_checkpoint<C: Serialize + Sync>(
        &self,
        checkpoint: &C,
    ) -> Result<(), TaskError> {
        let failed = |detail: String| TaskError::Fail(format!("its checkpoint: {detail}"));
        let bytes = serde_json::to_vec(checkpoint).map_err(|e| failed(e.to_string()))?;
        if bytes.len() > MAX_CHECKPOINT_BYTES {
            let length = bytes.len();
            return Err(failed(format!(
                "{length} bytes, more than {MAX_CHECKPOINT_BYTES}"
            )));
        }
        let (saved, durable) = oneshot::channel();
        let ask = SaveCheckpoint {
            token: self.0.lease.token,
            checkpoint: bytes.into(),
            saved,
        };
        let keeper = &self.0.checkpoints;
        keeper.send(ask).await.map_err(|_| TaskError::Stopped)?;
        durable.await.map_err(|_| TaskError::Stopped)
    }

    /// Waits until the attempt is asked to stop. It is dropped soon afterwards: at once if its lease is lost.
    pub async fn stopped(&self) -> StopReason {
        let mut stop = self.0.stop.clone();
        let reason = stop.wait_for(Option::is_some).await;
        // The executor is gone with its lease.
        reason.map_or(StopReason::LeaseLost, |reason| {
            reason.unwrap_or(StopReason::LeaseLost)
        })
    }

    /// Checks between two steps whether the attempt may go on; for code that blocks.
    ///
    /// # Errors
    /// [`TaskError::Stopped`] if it was asked to stop.
    pub fn proceed(&self) -> Result<(), TaskError> {
        let stop = &self.0.stop;
        if stop.borrow().is_some() || stop.has_changed().is_err() {
            return Err(TaskError::Stopped);
        }
        Ok(())
    }

    /// Reads states of the role, `None` for each that does not exist. All of them are of one moment.
    ///
    /// # Errors
    /// [`TaskError::Retry`] if the store cannot be read.
    pub async fn read_entities<S: DeserializeOwned>(
        &self,
        keys: Vec<EntityKey>,
    ) -> Result<Vec<Option<S>>, TaskError> {
        let rows = self.0.states.entities_of(keys).await.map_err(retried)?;
        rows.iter()
            .map(|row| state_of(row).map_err(retried))
            .collect()
    }

    /// Reads a page of the role's states, by key in byte order, after the given key, at most `limit`.
    ///
    /// # Errors
    /// [`TaskError::Retry`] if the store cannot be read.
    pub async fn entities<S: DeserializeOwned>(
        &self,
        after: Option<EntityKey>,
        limit: usize,
    ) -> Result<Vec<(EntityKey, S)>, TaskError> {
        let rows = self.0.states.page(after, limit).await.map_err(retried)?;
        let states = rows.into_iter().filter_map(|row| {
            let state = state_of(&row).transpose()?;
            Some(state.map(|state| (row.key.clone(), state)).map_err(retried))
        });
        states.collect()
    }
}

fn retried(error: doorstep_store::StoreError) -> TaskError {
    TaskError::Retry(error.to_string())
}
