//! A store in memory, for unit tests and simulation.
//!
//! It follows the same rules as [`Store::commit`] under one lock. Every method resolves at its first poll and needs no
//! runtime, so a simulation can run it on its own executor.

mod audit;
mod commit;
mod data;
mod read;
mod tasks;
mod undo_map;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorstep_event::{Sequence, Source, StreamKey, Timestamp};

use self::data::Data;
use crate::{
    AuditFilter, AuditId, AuditPage, Beat, ClaimTasks, Claimed, Commit, DeadLetter,
    DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeferredEvent, EntityKey, EntityRow,
    HolderRow, OutboxRow, OwnEpochs, ReadResult, ReadSet, Result, SequenceGap, SourceRow, Store,
    StoreError, StoreUsage, StreamRow, Streamless, Summary, TableUsage, TaskFilter, TaskHolder,
    TaskId, TaskProgress, TaskRow, WriteSet, source_id::new_source_id, tasks::leases,
};

/// A store in memory. Clones share it; it is dropped with the last of them.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    source: Source,
    data: Arc<Mutex<Data>>,
}

impl MemoryStore {
    /// Creates an empty store for a role, with a new source.
    ///
    /// # Panics
    /// If the role's name cannot be part of a source: empty, with control characters, or above 200 bytes.
    #[must_use]
    pub fn new(role: &str) -> Self {
        #[expect(clippy::expect_used, reason = "the program chooses the role names")]
        let source = new_source_id(role).expect("a role's name can be part of a source");
        Self::with_source(source)
    }

    /// Creates an empty store with this source, for simulations that must be reproducible.
    #[must_use]
    pub fn with_source(source: Source) -> Self {
        Self {
            source,
            data: Arc::default(),
        }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        // A panic during a commit would be a bug in this crate; other holders of the lock go on.
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn source(&self) -> &Source {
        &self.source
    }

    async fn load(&self, ask: ReadSet) -> Result<ReadResult> {
        Ok(self.data().load(&ask))
    }

    async fn read_entities(&self, entities: Vec<EntityKey>) -> Result<Vec<EntityRow>> {
        Ok(self.data().read_entities(&entities))
    }

    async fn commit(&self, changes: WriteSet) -> Result<Commit> {
        changes.check().map_err(|detail| StoreError::Unusable {
            store: format!("{} in memory", self.source),
            detail,
        })?;
        Ok(self.data().commit(changes))
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
        max_bytes: u64,
    ) -> Result<Vec<DeferredEvent>> {
        Ok(self.data().due(now, limit, max_bytes))
    }

    async fn repair_due(&self, now: Timestamp) -> Result<u64> {
        Ok(self.data().repair_due(now))
    }

    async fn clamp_due_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64> {
        Ok(self.data().clamp_due_times(now, beyond))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        Ok(self.data().next_due())
    }

    async fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>> {
        Ok(self.data().outbox(now, limit))
    }

    async fn entities(&self, after: Option<EntityKey>, limit: usize) -> Result<Vec<EntityRow>> {
        Ok(self.data().entities(after, limit))
    }

    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        Ok(self.data().dead(&filter, after.as_ref(), limit))
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>> {
        Ok(self.data().dead_letter_groups(limit))
    }

    async fn deferred_sequences(
        &self,
        stream: StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Sequence>> {
        Ok(self.data().deferred_sequences(&stream, after, limit))
    }

    async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<AuditPage> {
        Ok(self.data().audit(&filter, before, limit))
    }

    async fn gaps(
        &self,
        older_than: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SequenceGap>> {
        let is_old = |since| since < older_than || since > now;
        Ok(self.data().gaps(is_old, limit))
    }

    async fn prune_seen(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        Ok(self.data().prune_seen(older_than, limit))
    }

    async fn prune_crash_counts(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        Ok(self.data().prune_crash_counts(older_than, limit))
    }

    async fn prune_replies(&self, older_than: Timestamp, limit: usize) -> Result<u64> {
        Ok(self.data().prune_replies(older_than, limit))
    }

    async fn streamless(&self, least: TableUsage, limit: usize) -> Result<Streamless> {
        Ok(self.data().streamless(least, limit))
    }

    async fn claim_tasks(&self, ask: ClaimTasks) -> Result<Claimed> {
        let mut data = self.data();
        let Ok(claimed) = leases::claim(&mut *data, &ask);
        data.accept_tasks(!claimed.tasks.is_empty());
        Ok(claimed)
    }

    async fn beat_tasks(
        &self,
        holder: TaskHolder,
        progress: Vec<TaskProgress>,
        now: Timestamp,
    ) -> Result<Beat> {
        let mut data = self.data();
        let Ok(beat) = leases::beat(&mut *data, holder, &progress, now);
        data.accept_tasks(beat.alive);
        Ok(beat)
    }

    async fn task_holders(&self) -> Result<Vec<HolderRow>> {
        Ok(self.data().holders())
    }

    async fn take_over_tasks(
        &self,
        holder: TaskHolder,
        beat: u64,
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let mut data = self.data();
        let Ok(taken) = leases::take_over(&mut *data, holder, beat, now);
        data.accept_tasks(taken.is_some());
        Ok(taken)
    }

    async fn clamp_task_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64> {
        let mut data = self.data();
        let clamped = data.clamp_tasks(now, beyond);
        data.accept_tasks(clamped > 0);
        Ok(clamped)
    }

    async fn end_holder(&self, holder: TaskHolder, now: Timestamp) -> Result<()> {
        let mut data = self.data();
        let Ok(had_row) = leases::end_holder(&mut *data, holder, now);
        data.accept_tasks(had_row);
        Ok(())
    }

    async fn read_tasks(&self, ids: Vec<TaskId>) -> Result<Vec<Option<TaskRow>>> {
        Ok(self.data().read_tasks(&ids))
    }

    async fn tasks(
        &self,
        filter: TaskFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<TaskRow>> {
        Ok(self.data().list_tasks(&filter, after, limit))
    }

    async fn usage(&self) -> Result<StoreUsage> {
        Ok(self.data().usage())
    }

    async fn summary(&self, now: Timestamp) -> Result<Summary> {
        Ok(self.data().summary(now))
    }

    async fn epochs(&self) -> Result<OwnEpochs> {
        Ok(self.data().epochs())
    }

    async fn sources(&self, after: Option<Source>, limit: usize) -> Result<Vec<SourceRow>> {
        Ok(self.data().sources(after, limit))
    }

    async fn streams(&self, after: Option<StreamKey>, limit: usize) -> Result<Vec<StreamRow>> {
        Ok(self.data().streams(after, limit))
    }
}
