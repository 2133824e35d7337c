//! Where a role keeps what it knows: one interface, [`Store`], and its implementations.
//!
//! A store belongs to one role. It holds the role's **entities** (keyed state), its **streams** (a cursor each), what is **held**
//! because it cannot be applied yet, the **dead** letters, the ids **seen** of events without a sequence, the **outgoing** sequences
//! that the role has given, the **owner** of each source, **trials** of events that a process may have died of, **replies** to commands, events that the role has
//! **scheduled** to itself, and the **outbox**: what a commit still owes the world.
//!
//! Everything that one batch does is one [`WriteSet`], and a store writes it whole or not at all. Every stream and every entity is
//! a row with a version. A batch says which versions it has read; unless each is unchanged, nothing is written and the answer is
//! [`Commit::Conflict`]. That is what lets several processes share a store: correctness never rests on there being one owner.
//!
//! No SQL is named outside this crate, and nothing here knows RabbitMQ or an order.

mod audit;
mod changes;
mod epochs;
pub mod memory;
mod mint;
mod originals;
mod overflow;
mod owners;
mod rows;
mod size;
pub mod sqlite;

pub use audit::{AuditAction, AuditFilter, AuditId, AuditPage, AuditRow, MAX_AUDIT, NewAudit};
pub use changes::{
    Commit, CommitReceipt, CrashCountChange, DeadLetterEdit, DeferredRetry, EmittedSequence,
    EntityChange, ExpectedVersion, NewDeadLetter, NewDeferred, NewOutbox, NewReply, NewStreamless,
    NewTimer, OutboxRetry, Resolution, StreamChange, StreamState, StreamlessBounds, WriteSet,
};
pub use epochs::{
    EpochStatus, LearnedEpoch, MAX_OWN_EPOCHS, MAX_RESTORED_SOURCES, MAX_SOURCE_EPOCHS, OwnEpoch,
    OwnEpochs, Restored, RestoredChange, RestoredSource, RestoredSourceChange, SourceEpochs,
    StreamEpoch, begin_epoch, stream_epoch,
};
pub use memory::MemoryStore;
pub use owners::{FormerOwner, OwnerChange, OwnerRow, SourceOwner, SourceRow};
pub use rows::{
    DeadLetter, DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeadLetterStatus, DeferReason,
    DeferredEvent, DeferredId, EntityKey, EntityRow, EventCounts, KeptLog, OutboxId, OutboxKind,
    OutboxRow, PrunedTo, ReadResult, ReadSet, ReplyRow, RequestHash, RowRef, SequenceGap,
    StoreUsage, StreamRow, Streamless, StreamlessKind, Summary, TableUsage,
};
pub use sqlite::SqliteStore;

use std::future::Future;

use doorstep_event::{Sequence, Source, StreamKey, Timestamp};

/// What a role's engine, its relay and its operator's commands need of a store.
///
/// Handles are cheap to clone and share one store. Every method may be cancelled: a commit that was begun is then either written
/// whole or not at all, and the caller does not know which, exactly as after a crash.
///
/// # Errors
/// Every method fails with [`StoreError`] where the store cannot be reached, read or written. Nothing was written then, or, for
/// [`Store::commit`], perhaps everything; trying again from fresh reads is always right.
pub trait Store: Clone + Send + Sync + 'static {
    /// The id that was minted when this store was created: the tail of the source that the role emits under.
    fn source(&self) -> &Source;

    /// Reads all that a batch is about to touch, in one consistent read. What does not exist comes back as an absent row
    /// (no [`RowRef`], version 0).
    fn load(&self, ask: ReadSet) -> impl Future<Output = Result<ReadResult, StoreError>> + Send;

    /// Reads entities beside whoever writes: all of them at one moment, at which every commit that has returned is there. Nothing that is
    /// written may rest on it, since it waits for no writer and keeps none waiting.
    fn read_entities(
        &self,
        entities: Vec<EntityKey>,
    ) -> impl Future<Output = Result<Vec<EntityRow>, StoreError>> + Send;

    /// Writes a batch, whole or not at all.
    ///
    /// Rules that the store keeps by itself, in the same transaction, after all else in it:
    /// - a stream that is changed loses what is held at or below its cursor (dead letters are not touched); a cursor that would fall
    ///   is a conflict;
    /// - a stream that is changed, not blocked, and holds its next event (`cursor + 1`) gets that one due at [`WriteSet::now`], unless
    ///   that one has a due time of its own: a backoff stays what it is;
    /// - an entity whose state changes makes every held event that awaits it due at [`WriteSet::now`], also those that the same changes
    ///   hold or put off;
    /// - [`StreamRow::held`] and [`StoreUsage`] are kept exact; an event without a sequence has no place, and counts in no stream;
    /// - something held under a (stream, sequence) that is there already, a seen id that is there already, and a reply under a (caller,
    ///   request id) that is there already, are a conflict. What the same changes release makes room first;
    /// - what is scheduled is released and put off like what is held; put off, it is held from then on;
    /// - a dead letter of an event whose dead letter the same changes settle as gone takes over the body that first came;
    /// - an epoch of a source that proves two lineages of it lists the source as restored;
    /// - an epoch that is begun is the latest one already for what the same changes number;
    /// - an event of the outbox that has a sequence and no epoch gets the latest epoch;
    /// - when more is recorded than [`WriteSet::audit_bounds`] allows, the oldest records go.
    fn commit(&self, changes: WriteSet) -> impl Future<Output = Result<Commit, StoreError>> + Send;

    /// Held and scheduled events that are due by `now`, the longest due first: at most `limit`, and, from the second on, only as many
    /// as are together within `max_bytes`.
    fn due(
        &self,
        now: Timestamp,
        limit: usize,
        max_bytes: u64,
    ) -> impl Future<Output = Result<Vec<DeferredEvent>, StoreError>> + Send;

    /// The net under [`Store::due`]: makes due what is held as next (`cursor + 1`) of a stream that is not blocked and has no
    /// due time of its own. Returns how many there were; in a sound store none.
    fn repair_due(&self, now: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Makes due held events and outbox rows that are put off until after `beyond`, longer than any backoff: the clock has been set back
    /// since. Scheduled events keep their time. Returns the number of rows.
    fn clamp_due_times(
        &self,
        now: Timestamp,
        beyond: Timestamp,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// When the next held or scheduled event falls due, if any has a due time.
    fn next_due(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;

    /// Outbox rows that are due by `now`, in the order in which they were written, at most `limit` rows. Where more are due, those that
    /// were tried in vain before get at most half of the room that others want, so that they hold back nothing.
    fn outbox(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// A page of entities that have a state, by key in byte order, after the given key, at most `limit`.
    fn entities(
        &self,
        after: Option<EntityKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<EntityRow>, StoreError>> + Send;

    /// A page of dead letters that the filter lets through, oldest first, after the given one, at most `limit`. Where the given one
    /// is gone, the page begins with the oldest.
    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DeadLetter>, StoreError>> + Send;

    /// The kinds of dead letters there are, by the oldest of each, at most `limit`.
    fn dead_letter_groups(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DeadLetterGroup>, StoreError>> + Send;

    /// The sequences that are held of a stream above `after`, in their order, at most `limit`.
    fn deferred_sequences(
        &self,
        stream: StreamKey,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Sequence>, StoreError>> + Send;

    /// A page of the records that the filter lets through, the newest first, older than the given one, at most `limit`.
    fn audit(
        &self,
        filter: AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> impl Future<Output = Result<AuditPage, StoreError>> + Send;

    /// Streams that hold events behind a missing one since before `older_than`, at most `limit`. A gap from after `now` counts as old: the
    /// clock was ahead when it was recorded.
    fn gaps(
        &self,
        older_than: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SequenceGap>, StoreError>> + Send;

    /// Prunes seen ids from before `older_than`, at most `limit` of them, the oldest first. Raises [`PrunedTo::seen`] to the latest of
    /// them in the same transaction. Returns their number.
    fn prune_seen(
        &self,
        older_than: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Forgets trials that were last counted before `older_than`, at most `limit` of them: their events have never come again.
    /// Returns how many. No mark of it is kept, since trials never tell a duplicate: one that is pruned too early lets an event that
    /// ends its process end a few more.
    fn prune_crash_counts(
        &self,
        older_than: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Prunes replies from before `older_than`, at most `limit` of them, the oldest first. Raises [`PrunedTo::replies`] to the latest of
    /// them in the same transaction. Returns their number.
    fn prune_replies(
        &self,
        older_than: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Counts dead letters that belong to no stream, with at most `limit` kinds that have as many rows, or as many bytes, as `least`.
    ///
    /// # Errors
    /// The store could not be used.
    fn streamless(
        &self,
        least: TableUsage,
        limit: usize,
    ) -> impl Future<Output = Result<Streamless, StoreError>> + Send;

    /// How full the bounded tables are, however much is in them.
    fn usage(&self) -> impl Future<Output = Result<StoreUsage, StoreError>> + Send;

    /// Counts of everything, for status and for deciding whether a role is idle.
    fn summary(&self, now: Timestamp) -> impl Future<Output = Result<Summary, StoreError>> + Send;

    /// The store's own epochs, the newest first.
    fn epochs(&self) -> impl Future<Output = Result<OwnEpochs, StoreError>> + Send;

    /// Cuts the write-ahead log back where it has outgrown its bound. Returns the log if a reader keeps it. Does nothing for a store without
    /// such a log.
    fn trim_log(&self) -> impl Future<Output = Result<Option<KeptLog>, StoreError>> + Send {
        async { Ok(None) }
    }

    /// A page of the sources of which the store knows something, in byte order, after the given one, at most `limit`.
    fn sources(
        &self,
        after: Option<Source>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<SourceRow>, StoreError>> + Send;

    /// All streams of which the store knows something, in pages by key, for tests and for looking things up.
    fn streams(
        &self,
        after: Option<StreamKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StreamRow>, StoreError>> + Send;
}

/// A store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be written or read now (locked for too long, disk full, I/O error): waiting may help.
    #[error("the store {store} cannot be used now: {detail}")]
    Unavailable {
        /// Which store.
        store: String,
        /// What went wrong, with the remedy where one is known.
        detail: String,
    },
    /// The store is not one that this program can work with: waiting does not help.
    #[error("the store {store} cannot be opened: {detail}")]
    Unusable {
        /// Which store.
        store: String,
        /// What is wrong, and the remedy.
        detail: String,
    },
}
