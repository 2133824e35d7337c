//! A store with faults that a test switches on and off.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use doorstep_event::{EventId, Sequence, Source, StreamKey, Timestamp};
use doorstep_store::{
    AuditFilter, AuditId, AuditPage, Beat, ClaimTasks, Claimed, Commit, DeadLetter,
    DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeferredEvent, EntityKey, EntityRow,
    HolderRow, KeptLog, OutboxRow, OwnEpochs, ReadResult, ReadSet, SequenceGap, SourceRow, Store,
    StoreError, StoreUsage, StreamRow, Streamless, Summary, TableUsage, TaskFilter, TaskHolder,
    TaskId, TaskProgress, TaskRow, WriteSet,
};
use tokio::sync::watch;

/// A fault of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every call fails, as with a full disk or an unreachable database.
    Fails,
    /// The next commit of a batch does not begin while this fault lasts.
    HangsBeforeCommit,
    /// The next commit of a batch is written, and does not return while this fault lasts.
    HangsAfterCommit,
}

/// A store of any kind with faults on demand. Clones share them.
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    inner: S,
    fault: Arc<watch::Sender<Fault>>,
    hanging: Arc<watch::Sender<u64>>,
    tried: Arc<Mutex<Vec<EventId>>>,
    kept_log: Arc<Mutex<Option<KeptLog>>>,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store, without a fault at first.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            fault: Arc::new(watch::Sender::new(Fault::None)),
            hanging: Arc::new(watch::Sender::new(0)),
            tried: Arc::default(),
            kept_log: Arc::default(),
        }
    }

    /// The wrapped store, which has no faults.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Replaces the fault; a call that hangs because of another fault continues.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Returns the number of calls that have hung so far.
    #[must_use]
    pub fn hung(&self) -> u64 {
        *self.hanging.borrow()
    }

    /// Returns the ids of the events whose crash count was raised, in the order of the commits.
    #[must_use]
    pub fn tried(&self) -> Vec<EventId> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.clone()
    }

    /// From now on reports that a reader keeps its write-ahead log.
    pub fn keep_log(&self, kept: KeptLog) {
        let mut log = self.kept_log.lock().unwrap_or_else(PoisonError::into_inner);
        *log = Some(kept);
    }

    /// A call cancelled by the end of its role stays where it hangs, as in a process killed there.
    async fn hang(&self, fault: Fault) {
        let mut faults = self.fault.subscribe();
        if *faults.borrow_and_update() != fault {
            return;
        }
        self.hanging.send_modify(|hung| *hung += 1);
        // The sender is `self`, so there is no error.
        let _ = faults.wait_for(|now| *now != fault).await;
    }

    fn usable(&self) -> Result<(), StoreError> {
        match *self.fault.borrow() {
            Fault::Fails => Err(StoreError::Unavailable {
                store: "under test".to_owned(),
                detail: "a fault set by the test".to_owned(),
            }),
            Fault::None | Fault::HangsBeforeCommit | Fault::HangsAfterCommit => Ok(()),
        }
    }
}

/// Methods that fail only if the store fails.
macro_rules! handed_on {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(
            fn $name(&self $(, $argument: $type)*) -> impl Future<Output = Result<$result, StoreError>> + Send {
                async move {
                    self.usable()?;
                    self.inner.$name($($argument),*).await
                }
            }
        )*
    };
}

impl<S: Store> Store for FaultyStore<S> {
    fn source(&self) -> &Source {
        self.inner.source()
    }

    async fn commit(&self, changes: WriteSet) -> Result<Commit, StoreError> {
        self.usable()?;
        // The relay commits as well, but reads no stream, executes no command, changes no task and writes no dead
        // letter.
        let of_a_batch = !changes.streams.is_empty()
            || !changes.replies.is_empty()
            || !changes.tasks.is_empty()
            || !changes.streamless.is_empty();
        if of_a_batch {
            self.hang(Fault::HangsBeforeCommit).await;
            self.usable()?;
        }
        let trials = changes.crash_counts.iter();
        let counted = trials.filter(|trial| trial.after > trial.before);
        let counted: Vec<_> = counted.map(|trial| trial.id.clone()).collect();
        let commit = self.inner.commit(changes).await?;
        if matches!(commit, Commit::Written(_)) {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            tried.extend(counted);
        }
        if of_a_batch {
            self.hang(Fault::HangsAfterCommit).await;
        }
        Ok(commit)
    }

    async fn trim_log(&self) -> Result<Option<KeptLog>, StoreError> {
        self.usable()?;
        let kept = {
            let log = self.kept_log.lock().unwrap_or_else(PoisonError::into_inner);
            log.clone()
        };
        match kept {
            Some(kept) => Ok(Some(kept)),
            None => self.inner.trim_log().await,
        }
    }

    handed_on! {
        fn load(&self, ask: ReadSet) -> ReadResult;
        fn read_entities(&self, entities: Vec<EntityKey>) -> Vec<EntityRow>;
        fn due(&self, now: Timestamp, limit: usize, max_bytes: u64) -> Vec<DeferredEvent>;
        fn repair_due(&self, now: Timestamp) -> u64;
        fn clamp_due_times(&self, now: Timestamp, beyond: Timestamp) -> u64;
        fn next_due(&self) -> Option<Timestamp>;
        fn outbox(&self, now: Timestamp, limit: usize) -> Vec<OutboxRow>;
        fn entities(&self, after: Option<EntityKey>, limit: usize) -> Vec<EntityRow>;
        fn dead_letters(&self, filter: DeadLetterFilter, after: Option<DeadLetterId>, limit: usize) -> Vec<DeadLetter>;
        fn dead_letter_groups(&self, limit: usize) -> Vec<DeadLetterGroup>;
        fn deferred_sequences(&self, stream: StreamKey, after: u64, limit: usize) -> Vec<Sequence>;
        fn audit(&self, filter: AuditFilter, before: Option<AuditId>, limit: usize) -> AuditPage;
        fn gaps(&self, older_than: Timestamp, now: Timestamp, limit: usize) -> Vec<SequenceGap>;
        fn prune_seen(&self, older_than: Timestamp, limit: usize) -> u64;
        fn prune_crash_counts(&self, older_than: Timestamp, limit: usize) -> u64;
        fn prune_replies(&self, older_than: Timestamp, limit: usize) -> u64;
        fn streamless(&self, least: TableUsage, limit: usize) -> Streamless;
        fn claim_tasks(&self, ask: ClaimTasks) -> Claimed;
        fn beat_tasks(&self, holder: TaskHolder, progress: Vec<TaskProgress>, now: Timestamp) -> Beat;
        fn task_holders(&self) -> Vec<HolderRow>;
        fn take_over_tasks(&self, holder: TaskHolder, beat: u64, now: Timestamp) -> Option<u64>;
        fn clamp_task_times(&self, now: Timestamp, beyond: Timestamp) -> u64;
        fn end_holder(&self, holder: TaskHolder, now: Timestamp) -> ();
        fn read_tasks(&self, ids: Vec<TaskId>) -> Vec<Option<TaskRow>>;
        fn tasks(&self, filter: TaskFilter, after: Option<u64>, limit: usize) -> Vec<TaskRow>;
        fn usage(&self) -> StoreUsage;
        fn summary(&self, now: Timestamp) -> Summary;
        fn epochs(&self) -> OwnEpochs;
        fn sources(&self, after: Option<Source>, limit: usize) -> Vec<SourceRow>;
        fn streams(&self, after: Option<StreamKey>, limit: usize) -> Vec<StreamRow>;
    }
}
