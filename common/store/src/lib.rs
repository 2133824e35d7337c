//! The state of a role: one interface, [`Store`], and its implementations.
//!
//! A store belongs to one role. It contains:
//! - **entities**: keyed state;
//! - **streams**, with a cursor each;
//! - **deferred** events, which cannot be applied yet, and **timers**, the role's events to itself;
//! - **dead letters**;
//! - **seen** ids of events without a sequence;
//! - **emitted sequences**: the last one on each subject of the role;
//! - **owners** of sources, and the **epochs** of each source;
//! - **crash counts** of poison candidates;
//! - **replies** to commands;
//! - **tasks** that commits have started, with the leases under which processes run them;
//! - **outbox** rows, which were committed and are not published yet;
//! - the **audit** records of operators' actions.
//!
//! All changes of a batch are one [`WriteSet`], and a store writes it completely or not at all. Every stream and every
//! entity is a row with a version. A batch names the versions that it has read; if any has changed, nothing is written
//! and the result is [`Commit::Conflict`]. That lets several processes share a store: correctness never depends on a
//! single owner.
//!
//! Only this crate contains SQL, and it knows neither RabbitMQ nor orders.

mod audit;
mod begin_epoch;
mod changes;
mod epochs;
pub mod memory;
mod original_bodies;
mod overflow;
mod rows;
mod size;
mod source_id;
mod source_owners;
pub mod sqlite;
mod tasks;

pub use audit::{
    AuditAction, AuditBounds, AuditFilter, AuditId, AuditPage, AuditRow, MAX_AUDIT, NewAudit,
};
pub use begin_epoch::begin_epoch;
pub use changes::{
    Commit, CommitReceipt, CrashCountChange, DeadLetterEdit, DeferredRetry, EmittedSequence,
    EntityChange, ExpectedVersion, NewDeadLetter, NewDeferred, NewOutbox, NewReply, NewStreamless,
    NewTimer, OutboxRetry, Resolution, StreamChange, StreamState, StreamlessBounds, WriteSet,
};
pub use epochs::{
    EpochStatus, LearnedEpoch, MAX_OWN_EPOCHS, MAX_RESTORED_SOURCES, MAX_SOURCE_EPOCHS, OwnEpoch,
    OwnEpochs, Restored, RestoredChange, RestoredSource, RestoredSourceChange, SourceEpochs,
    StreamEpoch, stream_epoch,
};
pub use memory::MemoryStore;
pub use rows::{
    DeadLetter, DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeadLetterStatus, DeferReason,
    DeferredEvent, DeferredId, EntityKey, EntityRow, EventCounts, KeptLog, OutboxId, OutboxKind,
    OutboxRow, PrunedTo, ReadResult, ReadSet, ReplyRow, RequestHash, RowRef, SequenceGap,
    StoreUsage, StreamRow, Streamless, StreamlessKind, Summary, TableUsage,
};
pub use source_owners::{FormerOwner, OwnerChange, OwnerRow, SourceOwner, SourceRow};
pub use sqlite::SqliteStore;
pub use tasks::{
    Beat, Candidates, ClaimTasks, Claimed, HolderRow, IfLive, LeasedTask, MAX_DIRECTED_TASKS,
    MAX_TASK_ID_BYTES, NewTask, TaskChange, TaskDirective, TaskEnd, TaskFate, TaskFilter,
    TaskHolder, TaskId, TaskIdError, TaskKindCount, TaskLease, TaskProgress, TaskRow, TaskState,
    TaskToken,
};

use doorstep_event::{Sequence, Source, StreamKey, Timestamp};

/// The store operations that a role's engine, its relay and its operator's commands need.
///
/// Handles are cheap to clone and share one store. Every method may be cancelled: a commit in progress is then written
/// completely or not at all, and the caller does not know which, exactly as after a crash.
///
/// # Errors
/// Every method fails with [`StoreError`] if the store cannot be reached, read or written. Nothing was written then,
/// except that [`Store::commit`] and the methods that change tasks may have written everything. A retry from fresh reads
/// is always safe; a repeated claim returns the tasks of one whose reply was lost.
#[trait_variant::make(Send)]
pub trait Store: Clone + Send + Sync + 'static {
    /// The source under which the role emits. Its last part is an id minted when this store was created.
    fn source(&self) -> &Source;

    /// Reads all rows that a batch may change, in one consistent read. A missing row is returned as an absent one (no
    /// [`RowRef`], version 0).
    async fn load(&self, ask: ReadSet) -> Result<ReadResult>;

    /// Reads entities concurrently with writers. All of them are of one moment, and the read sees every commit that has
    /// returned. Never base a write on it: it takes no part in conflict detection.
    async fn read_entities(&self, entities: Vec<EntityKey>) -> Result<Vec<EntityRow>>;

    /// Writes a batch, completely or not at all.
    ///
    /// The store enforces these rules by itself, in the same transaction, after all other changes:
    /// - a changed stream loses the events deferred at or below its cursor (dead letters stay); a cursor that would go
    ///   back is a conflict;
    /// - if a changed stream is not blocked and its next event (`cursor + 1`) is deferred, that event becomes due at
    ///   [`WriteSet::now`]. If it has a due time already, that stays, since it is a backoff;
    /// - an entity whose state changes makes every deferred event that waits for it due at [`WriteSet::now`], including
    ///   those that the same changes defer;
    /// - [`StreamRow::held`] and [`StoreUsage`] are exact; an event without a sequence counts in no stream;
    /// - deferring an event under an occupied (stream, sequence), a known seen id, and a known (caller, request id) of
    ///   a reply are conflicts. Releases of the same changes are applied first;
    /// - a timer is released and deferred like a deferred event; once deferred, it is one;
    /// - if the same changes resolve an event's dead letter as gone, its new dead letter takes over the body first
    ///   received;
    /// - an epoch of a source that proves two lineages lists the source as restored;
    /// - a mark of a restored store makes every live task unknown and ends all leases;
    /// - an epoch that the changes begin applies to the sequences that they emit;
    /// - an outbox event with a sequence and without an epoch gets the latest epoch;
    /// - audit records beyond [`WriteSet::audit_bounds`] are deleted, the oldest first.
    async fn commit(&self, changes: WriteSet) -> Result<Commit>;

    /// Returns the deferred events and timers due by `now`, the longest due first: at most `limit`, and from the second
    /// on only while their total stays within `max_bytes`.
    async fn due(&self, now: Timestamp, limit: usize, max_bytes: u64)
    -> Result<Vec<DeferredEvent>>;

    /// The safety net under [`Store::due`]: makes due the deferred next event (`cursor + 1`) of each unblocked stream
    /// if it has no due time. Returns their number; in a sound store it is 0.
    async fn repair_due(&self, now: Timestamp) -> Result<u64>;

    /// Makes due the deferred events and outbox rows whose due time is after `beyond`, which is later than any backoff:
    /// the clock was set back. Timers keep their time. Returns the number of rows.
    async fn clamp_due_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64>;

    /// Returns the due time of the next deferred event or timer, if any has one.
    async fn next_due(&self) -> Result<Option<Timestamp>>;

    /// Returns the outbox rows due by `now` in the order of writing, at most `limit`. If more are due, rows after
    /// failed attempts get at most half of the space that new rows need, so that they delay nothing.
    async fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>>;

    /// Returns a page of the entities with a state, by key in byte order, after the given key, at most `limit`.
    async fn entities(&self, after: Option<EntityKey>, limit: usize) -> Result<Vec<EntityRow>>;

    /// Returns a page of the dead letters that the filter selects, oldest first, after the given one, at most `limit`.
    /// If the given one is gone, the page begins with the oldest.
    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Returns the kinds of dead letters, ordered by the oldest of each, at most `limit`.
    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>>;

    /// Returns the deferred sequences of a stream above `after` in their order, at most `limit`.
    async fn deferred_sequences(
        &self,
        stream: StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Sequence>>;

    /// Returns a page of the audit records that the filter selects, newest first, older than the given one, at most
    /// `limit`.
    async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<AuditPage>;

    /// Returns the gaps that have existed since before `older_than`, at most `limit`. A gap dated after `now` counts as
    /// old: the clock was ahead when it was recorded.
    async fn gaps(
        &self,
        older_than: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SequenceGap>>;

    /// Prunes at most `limit` seen ids from before `older_than`, the oldest first. Raises [`PrunedTo::seen`] to the
    /// latest of them in the same transaction. Returns their number.
    async fn prune_seen(&self, older_than: Timestamp, limit: usize) -> Result<u64>;

    /// Prunes at most `limit` crash counts that were last raised before `older_than`: their events were never
    /// redelivered. Returns their number. No mark is kept, since crash counts never detect duplicates. If one is pruned
    /// too early, its poison event may crash a few more processes.
    async fn prune_crash_counts(&self, older_than: Timestamp, limit: usize) -> Result<u64>;

    /// Prunes at most `limit` replies from before `older_than`, the oldest first. Raises [`PrunedTo::replies`] to the
    /// latest of them in the same transaction. Returns their number.
    async fn prune_replies(&self, older_than: Timestamp, limit: usize) -> Result<u64>;

    /// Counts the dead letters that belong to no stream, with at most `limit` kinds that have as many rows, or as many
    /// bytes, as `least`.
    ///
    /// # Errors
    /// As all methods of [`Store`].
    async fn streamless(&self, least: TableUsage, limit: usize) -> Result<Streamless>;

    /// Leases tasks to a holder, each under a new token:
    /// 1. those leased to it that it does not know of, since a reply was lost; they keep their token;
    /// 2. those with a directive, at most [`MAX_DIRECTED_TASKS`], whatever their kind and the holder's room;
    /// 3. those due, the longest due first. Of each kind at most the given number is running in the store.
    ///
    /// A claim that returns tasks is a heartbeat of the holder. One that returns none changes nothing. A store marked
    /// as restored returns none.
    async fn claim_tasks(&self, ask: ClaimTasks) -> Result<Claimed>;

    /// Records a heartbeat of a holder with the progress of its tasks. Progress beyond the furthest point that the
    /// task has reached returns its crash count to 0.
    async fn beat_tasks(
        &self,
        holder: TaskHolder,
        progress: Vec<TaskProgress>,
        now: Timestamp,
    ) -> Result<Beat>;

    /// Returns the holders in the order of their epochs.
    async fn task_holders(&self) -> Result<Vec<HolderRow>>;

    /// Takes over the tasks of a holder whose last heartbeat is still this one: they are ready at once, and their crash
    /// counts are raised. Returns their number, or `None`, without a change, if the holder has beaten since or is gone.
    async fn take_over_tasks(
        &self,
        holder: TaskHolder,
        beat: u64,
        now: Timestamp,
    ) -> Result<Option<u64>>;

    /// Makes due the tasks whose due time is after `beyond`, which is later than any backoff of a task: the clock was set
    /// back. Returns their number.
    async fn clamp_task_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64>;

    /// Ends a holder that stops: releases the tasks leased to it and counts nothing.
    async fn end_holder(&self, holder: TaskHolder, now: Timestamp) -> Result<()>;

    /// Reads tasks concurrently with writers, `None` for each that is not live. All of them are of one moment, and the
    /// read sees every commit that has returned.
    async fn read_tasks(&self, ids: Vec<TaskId>) -> Result<Vec<Option<TaskRow>>>;

    /// Returns a page of the live tasks that the filter selects, in the order of starting, after the given number, at
    /// most `limit`.
    async fn tasks(
        &self,
        filter: TaskFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<TaskRow>>;

    /// Returns the usage of the bounded tables, in constant time.
    async fn usage(&self) -> Result<StoreUsage>;

    /// Counts everything, for the status and to decide if a role is idle.
    async fn summary(&self, now: Timestamp) -> Result<Summary>;

    /// Returns the store's own epochs, the newest first.
    async fn epochs(&self) -> Result<OwnEpochs>;

    /// Truncates the write-ahead log if it has outgrown its bound. Returns the log if a reader prevents that. Does
    /// nothing for a store without such a log.
    fn trim_log(&self) -> impl Future<Output = Result<Option<KeptLog>>> + Send {
        async { Ok(None) }
    }

    /// Returns a page of the known sources in byte order, after the given one, at most `limit`.
    async fn sources(&self, after: Option<Source>, limit: usize) -> Result<Vec<SourceRow>>;

    /// Returns the known streams in pages by key, for tests and for diagnosis.
    async fn streams(&self, after: Option<StreamKey>, limit: usize) -> Result<Vec<StreamRow>>;
}

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be written or read now (locked for too long, disk full, I/O error): waiting may help.
    #[error("the store {store} cannot be used now: {detail}")]
    Unavailable {
        store: String,
        /// The cause, with the remedy if one is known.
        detail: String,
    },
    /// The file is no store that this program can use: waiting does not help.
    #[error("the store {store} cannot be opened: {detail}")]
    Unusable {
        store: String,
        /// The cause and the remedy.
        detail: String,
    },
}
