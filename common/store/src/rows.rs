//! Rows and results read from a store.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use derive_more::Display;
use doorstep_event::{
    Epoch, Event, EventId, EventType, RequestId, Sequence, Source, StreamKey, Subject, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    OwnerRow, Restored, RestoredSource, SourceEpochs, StreamEpoch, TaskId, TaskKindCount, TaskToken,
};

/// A store's own handle to a row, so that updating the row needs no lookup. Opaque outside the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowRef(pub(crate) i64);

/// The key of an entity within its role, usually the subject of its events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display)]
#[serde(from = "String", into = "String")]
pub struct EntityKey(std::sync::Arc<str>);

impl EntityKey {
    /// Accepts any text; keys are compared as bytes.
    #[must_use]
    pub fn new(key: impl Into<std::sync::Arc<str>>) -> Self {
        Self(key.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EntityKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl From<EntityKey> for String {
    fn from(key: EntityKey) -> Self {
        key.0.as_ref().to_owned()
    }
}

impl From<&Subject> for EntityKey {
    fn from(subject: &Subject) -> Self {
        Self::new(subject.clone())
    }
}

/// The id of a dead letter, derived from the event, so that the same rejection met twice is the same dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display)]
pub struct DeadLetterId(pub String);

impl DeadLetterId {
    /// Returns the part that stays the same however often the event is rejected: everything before the last `-`.
    #[must_use]
    pub fn event_digest(&self) -> &str {
        self.0
            .rsplit_once('-')
            .map_or(&self.0, |(letter, _)| letter)
    }
}

/// The number of a deferred event within its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeferredId(pub i64);

/// The number of an outbox row within its store, in the order of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// The rows that a batch reads.
#[derive(Debug, Default, Clone)]
pub struct ReadSet {
    /// Streams, each with the deferred events that follow its cursor.
    pub streams: Vec<StreamKey>,
    /// The maximum of deferred events to load for each stream: those right after its cursor, up to the first gap.
    pub deferred_per_stream: usize,
    /// The approximate maximum of bytes of deferred events to load for all streams together.
    pub deferred_bytes: u64,
    /// Deferred events at these exact sequences, to tell a duplicate from a numbering conflict.
    pub deferred_at: Vec<(StreamKey, Sequence)>,
    pub entities: Vec<EntityKey>,
    /// Ids of events without a sequence, to recognize duplicates.
    pub seen: Vec<(Source, EventId)>,
    /// Ids of poison candidates, to read their crash counts.
    pub crash_counts: Vec<(Source, EventId)>,
    /// Subjects on which the role emits, to read the last sequence emitted on each.
    pub emitted_sequences: Vec<Subject>,
    /// Sources whose known epochs are read.
    pub epochs: Vec<Source>,
    /// Commands by caller and id, to read their earlier replies.
    pub replies: Vec<(Source, RequestId)>,
    /// Sources whose owners are read.
    pub owners: Vec<Source>,
    /// Leases of tasks, to read which are still held.
    pub leases: Vec<(TaskId, TaskToken)>,
}

/// The rows that a batch has read. Vectors have the order of their [`ReadSet`].
#[derive(Debug, Default, Clone)]
pub struct ReadResult {
    /// One row for each requested stream.
    pub streams: Vec<StreamRow>,
    /// Deferred events right after the cursors, by stream and sequence.
    pub deferred: Vec<DeferredEvent>,
    /// For each requested sequence, the id and the epoch of the event deferred there.
    pub deferred_at: Vec<Option<(EventId, Option<Epoch>)>>,
    /// One row for each requested entity.
    pub entities: Vec<EntityRow>,
    /// For each id, true if it was seen.
    pub seen: Vec<bool>,
    /// The crash count of each event, 0 if none was recorded.
    pub crash_counts: Vec<u32>,
    /// The last sequence emitted on each subject, 0 if there was none.
    pub emitted_sequences: Vec<u64>,
    /// The known epochs of each source.
    pub epochs: Vec<SourceEpochs>,
    /// The reply to each command; `None` if it was never replied to or the reply was pruned.
    pub replies: Vec<Option<ReplyRow>>,
    pub owners: Vec<OwnerRow>,
    /// For each lease, true if it is held.
    pub leases: Vec<bool>,
    /// The times up to which seen ids and replies were pruned; read only if the batch asks for some.
    pub pruned_to: PrunedTo,
}

/// The latest times that pruning has reached: rows at or before them may be gone. `None` if nothing was pruned yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrunedTo {
    pub seen: Option<Timestamp>,
    pub replies: Option<Timestamp>,
}

/// Tells apart two commands with the same id: SHA-256 of the command's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

/// A recorded reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRow {
    /// The hash of the command that was answered.
    pub hash: RequestHash,
    pub reply: Bytes,
}

/// The progress of a role in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    pub key: StreamKey,
    /// The row's handle, `None` if there is no row yet.
    pub row: Option<RowRef>,
    /// The version, 0 if there is no row yet.
    pub version: u64,
    /// The last sequence applied or skipped, 0 at the start.
    pub cursor: u64,
    /// The id of the event at the cursor, `None` at the start or if a gap was skipped there.
    pub last_id: Option<EventId>,
    /// The dead letter that blocks the stream: its event is the one after the cursor.
    pub blocked: Option<DeadLetterId>,
    /// The number of its deferred events.
    pub deferred: u64,
    pub epoch: Option<StreamEpoch>,
}

impl StreamRow {
    /// Returns what is read of a stream without a row.
    pub(crate) fn absent(key: StreamKey) -> Self {
        Self {
            key,
            row: None,
            version: 0,
            cursor: 0,
            last_id: None,
            blocked: None,
            deferred: 0,
            epoch: None,
        }
    }
}

/// The state of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRow {
    pub key: EntityKey,
    /// The row's handle, `None` if there is no row yet.
    pub row: Option<RowRef>,
    /// The version, 0 if there is no row yet.
    pub version: u64,
    /// The state in JSON; `None` if no event was applied to the entity yet.
    pub state: Option<Bytes>,
}

impl EntityRow {
    /// Returns what is read of an entity without a row.
    pub(crate) fn absent(key: EntityKey) -> Self {
        Self {
            key,
            row: None,
            version: 0,
            state: None,
        }
    }
}

/// The reason why an event is deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeferReason {
    /// Its predecessor is missing or blocked.
    OutOfOrder,
    /// It waits for an event of another stream to change this entity.
    WaitingFor(EntityKey),
    /// It replays this dead letter.
    Replay(DeadLetterId),
    /// It is a timer of the role: it waits only for its due time and belongs to no stream.
    Scheduled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredEvent {
    pub id: DeferredId,
    pub event: Event,
    /// The reason why no handler gets the event: it only occupies its sequence, and becomes a dead letter when it is
    /// next.
    pub defect: Option<String>,
    pub reason: DeferReason,
    /// The time from which it has been waiting for its present reason.
    pub since: Timestamp,
    /// The number of times that a handler has deferred it.
    pub attempts: u32,
}

/// The status of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterStatus {
    /// No operator has decided yet.
    Open,
    /// A replay was requested and has not run yet.
    Replaying,
    /// It was replayed and waits for an event of another stream; its own stream stays blocked by it.
    Awaiting,
}

/// A dead letter: an event, or a message that should have been one, that was rejected for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    /// The event, if the message could be decoded; its data is always the message's body.
    pub event: Option<Event>,
    /// The message's body as first received. An edit changes the event's data, never this.
    pub body: Bytes,
    /// True if it blocks a stream.
    pub blocks: bool,
    /// The reason in a few words, the same for all of a kind.
    pub reason: String,
    /// The reason in full, with the values.
    pub detail: String,
    /// Groups dead letters of one kind: a digest of role, type, reason and the shape of the detail.
    pub fingerprint: String,
    /// The number of times that a handler has tried it.
    pub attempts: u32,
    /// The time when it was dead-lettered.
    pub since: Timestamp,
    pub status: DeadLetterStatus,
    /// The defect found when the message was decoded, if any.
    pub defect: Option<String>,
    /// The task that failed; its input is the event's data. `None` for an event or message.
    pub task: Option<TaskId>,
}

impl DeadLetter {
    /// Returns true if its event's data differs from the message's body.
    #[must_use]
    pub fn is_edited(&self) -> bool {
        self.event.as_ref().is_some_and(|e| e.data != self.body)
    }
}

/// A summary of the dead letters of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterGroup {
    /// The fingerprint that they share.
    pub fingerprint: String,
    pub count: u64,
    /// The number of those that await a decision.
    pub open: u64,
    /// The time when the first of them was dead-lettered.
    pub first: Timestamp,
    /// The time when the last of them was dead-lettered.
    pub last: Timestamp,
    pub reason: String,
    /// Their common event type; `None` if the messages could not be decoded.
    #[serde(rename = "type")]
    pub kind: Option<EventType>,
    pub example: DeadLetterId,
    /// The detail of the oldest.
    pub detail: String,
}

/// Selects the dead letters to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeadLetterFilter {
    #[default]
    All,
    Id(DeadLetterId),
    /// Those of one kind.
    Fingerprint(String),
    /// Those of one event, however often it was rejected: their ids are [`DeadLetterId::event_digest`] and a number.
    Letter(String),
}

/// Missing events of a stream: `from..=to` are missing, later ones are deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceGap {
    pub stream: StreamKey,
    pub from: u64,
    pub to: u64,
    /// The number of events deferred behind the gap.
    pub deferred: u64,
    pub since: Timestamp,
}

/// The content of an outbox row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxKind {
    Event(Event),
    /// A copy of a dead letter, for the management UI, alerts and other tools.
    DeadCopy {
        id: DeadLetterId,
        /// The headers of the copy.
        headers: BTreeMap<String, String>,
        body: Bytes,
    },
}

impl OutboxKind {
    /// Returns true if it is a copy of one of these dead letters.
    pub(crate) fn copies_one_of(&self, dead: &HashSet<DeadLetterId>) -> bool {
        match self {
            Self::Event(_) => false,
            Self::DeadCopy { id, .. } => dead.contains(id),
        }
    }
}

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    pub id: OutboxId,
    pub kind: OutboxKind,
    /// The number of failed attempts to publish it.
    pub attempts: u32,
    /// The time when it was written.
    pub since: Timestamp,
}

/// Rows and bytes of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TableUsage {
    pub rows: u64,
    /// The approximate bytes of their events.
    pub bytes: u64,
}

impl TableUsage {
    /// Returns true if there are more rows or bytes than these.
    pub(crate) fn is_above(self, most: Self) -> bool {
        self.rows > most.rows || self.bytes > most.bytes
    }
}

/// The usage of the tables whose growth is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreUsage {
    pub deferred: TableUsage,
    pub dead_letters: TableUsage,
    pub seen: TableUsage,
    pub outbox: TableUsage,
    pub replies: TableUsage,
    /// Timers of the role.
    pub timers: TableUsage,
    /// Live tasks.
    pub tasks: TableUsage,
}

/// Counts of what a role did with deliveries since its store was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EventCounts {
    pub applied: u64,
    /// Known events of types that the role does not handle: only their cursor moved.
    pub ignored: u64,
    /// Deliveries dropped because their event had been applied, deferred or dead-lettered before.
    pub duplicates: u64,
    /// Events deferred on arrival.
    pub deferred: u64,
    pub dead_letters: u64,
    /// Dead letters replayed and then applied.
    pub replayed: u64,
    /// Dead letters and gaps skipped.
    pub skipped: u64,
    /// Commands executed, each once.
    pub executed: u64,
    /// Tasks ended with a result; counted by the store.
    pub tasks_done: u64,
}

impl EventCounts {
    pub fn add(&mut self, more: &Self) {
        let counts = [
            (&mut self.applied, more.applied),
            (&mut self.ignored, more.ignored),
            (&mut self.duplicates, more.duplicates),
            (&mut self.deferred, more.deferred),
            (&mut self.dead_letters, more.dead_letters),
            (&mut self.replayed, more.replayed),
            (&mut self.skipped, more.skipped),
            (&mut self.executed, more.executed),
            (&mut self.tasks_done, more.tasks_done),
        ];
        for (count, more) in counts {
            *count = count.saturating_add(more);
        }
    }
}

/// Dead letters that belong to no stream: those kept, and those written to the overflow file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Streamless {
    /// The dead letters kept in the store.
    pub usage: TableUsage,
    /// The number written to overflow files since the store was created.
    pub overflowed: u64,
    /// The number of those whose overflow file was deleted since.
    pub dropped: u64,
    /// The requested kinds, the largest first.
    pub kinds: Vec<StreamlessKind>,
}

/// Dead letters of one kind that belong to no stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamlessKind {
    pub fingerprint: String,
    pub reason: String,
    /// Their number and bytes.
    pub usage: TableUsage,
}

/// Counts of everything in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Entities with a state.
    pub entities: u64,
    pub streams: u64,
    pub blocked: u64,
    /// Streams with events deferred behind a missing one.
    pub gaps: u64,
    /// Deferred events that are due now or at a known time: deferred by a handler, or to be replayed.
    pub held_due: u64,
    /// Timers that are due and were not handled yet; [`StoreUsage::scheduled`] counts them, too.
    pub scheduled_due: u64,
    /// Rows and bytes of the bounded tables.
    pub usage: StoreUsage,
    /// Counts of the deliveries handled.
    pub tally: EventCounts,
    /// Changes with every commit of any process: two equal readings mean that nothing was written between them.
    pub commits: u64,
    /// The live tasks by kind, in the order of the kinds.
    pub tasks: Vec<TaskKindCount>,
    /// Age of the oldest outbox row in milliseconds.
    pub oldest_outbox_ms: Option<u64>,
    /// Age of the oldest deferred event in milliseconds.
    pub oldest_held_ms: Option<u64>,
    /// Age of the oldest dead letter in milliseconds.
    pub oldest_dead_ms: Option<u64>,
    /// The mark of a store that was restored from a backup or copied; `null` otherwise.
    pub restored: Option<Restored>,
    /// Sources found to be restored or copied that no operator has accepted, the longest first, at most
    /// [`crate::MAX_RESTORED_SOURCES`].
    pub restored_sources: Vec<RestoredSource>,
    /// The time when the oldest outbox row was written.
    #[serde(skip)]
    pub oldest_outbox: Option<Timestamp>,
    /// The time when the oldest deferred event was deferred.
    #[serde(skip)]
    pub oldest_deferred: Option<Timestamp>,
    /// The time when the oldest dead letter was made.
    #[serde(skip)]
    pub oldest_dead: Option<Timestamp>,
    /// Deferred events dated after the clock, plus the oldest outbox row if it is, too. Their age is unknown: the clock
    /// was ahead when they were written, or is behind now.
    pub dated_ahead: u64,
    /// Bytes of the write-ahead log, if the store has one.
    pub log_bytes: Option<u64>,
}

/// A write-ahead log above its bound that a reader keeps from being truncated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLog {
    /// The store's file; the log lies beside it.
    pub file: std::path::PathBuf,
    pub bytes: u64,
    /// The bound in bytes.
    pub max_bytes: u64,
}

impl fmt::Display for KeptLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1024 * 1024;
        let (log, bound) = (self.bytes.div_ceil(MIB), self.max_bytes.div_ceil(MIB));
        let file = self.file.display();
        write!(
            f,
            "the write-ahead log of {file} has grown to {log} MiB (its bound is {bound} MiB): a process keeps a read open, such as an SQL \
             shell or a backup; `lsof {file}` or `fuser -v {file}` lists the processes; once that read has ended, the log is cut back"
        )
    }
}

/// Returns the number of retried outbox rows in a page of `limit`, if this many retried and untried rows are due.
/// Untried rows get at least half of the page.
pub(crate) fn retry_share(limit: usize, retried: usize, untried: usize) -> usize {
    retried.min(limit - untried.min(limit / 2))
}

/// The tolerance before a row counts as dated ahead: clocks are corrected by small steps all the time.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(5);

/// The time after which rows are dated ahead of `now`.
pub(crate) fn ahead_of(now: Timestamp) -> Timestamp {
    now.checked_add(MAX_CLOCK_AHEAD).unwrap_or(Timestamp::MAX)
}

/// Milliseconds since a time, 0 if the clock has gone back since.
pub(crate) fn age_millis(since: Timestamp, now: Timestamp) -> u64 {
    let age = now.as_millisecond().saturating_sub(since.as_millisecond());
    u64::try_from(age).unwrap_or(0)
}
