//! What is read from a store.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::{
    Epoch, Event, EventId, EventType, RequestId, Sequence, Source, StreamKey, Subject, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{OwnerRow, Restored, RestoredSource, SourceEpochs, StreamEpoch};

/// A store's own handle on a row, so that writing it again needs no look-up. Means nothing to anyone else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowRef(pub(crate) i64);

/// Names an entity within its role: mostly the subject that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct EntityKey(std::sync::Arc<str>);

impl EntityKey {
    /// Any text is a key; keys are compared as bytes.
    #[must_use]
    pub fn new(key: impl Into<std::sync::Arc<str>>) -> Self {
        Self(key.into())
    }

    /// The text.
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

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a dead letter: derived from what it is about, so that the same refusal met twice is the same dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetterId(pub String);

impl DeadLetterId {
    /// The part of it that stays the same however often the event is refused: what stands before its last `-`.
    #[must_use]
    pub fn event_digest(&self) -> &str {
        self.0
            .rsplit_once('-')
            .map_or(&self.0, |(letter, _)| letter)
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers a held event within its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeferredId(pub i64);

/// Numbers a row of the outbox within its store, in the order of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// What a batch wants to read.
#[derive(Debug, Default, Clone)]
pub struct ReadSet {
    /// Streams, with what they hold next.
    pub streams: Vec<StreamKey>,
    /// How many held events to bring along for a stream: those right after its cursor, without a gap.
    pub held_per_stream: usize,
    /// About how many bytes of held events to bring along for all streams together.
    pub held_bytes: u64,
    /// Held events at these very places, to tell a duplicate from a numbering conflict.
    pub held_at: Vec<(StreamKey, Sequence)>,
    /// Entities.
    pub entities: Vec<EntityKey>,
    /// Ids of events without a sequence, to tell which were seen.
    pub seen: Vec<(Source, EventId)>,
    /// Ids of events that a process may have died of, to tell their trials.
    pub trials: Vec<(Source, EventId)>,
    /// Subjects on which the role emits, to tell the last sequence given.
    pub outgoing: Vec<Subject>,
    /// Sources, to tell the epochs that they have had.
    pub epochs: Vec<Source>,
    /// Commands by caller and id, to tell what was replied to them.
    pub replies: Vec<(Source, RequestId)>,
    /// Sources, to tell their owners.
    pub owners: Vec<Source>,
}

/// What a batch has read. Vectors have the order of their [`ReadSet`].
#[derive(Debug, Default, Clone)]
pub struct ReadResult {
    /// One row for each stream asked for.
    pub streams: Vec<StreamRow>,
    /// Held events right after the cursors, by stream and sequence.
    pub held: Vec<DeferredEvent>,
    /// For each place asked for, the id and the epoch of the event that is held there.
    pub held_at: Vec<Option<(EventId, Option<Epoch>)>>,
    /// One row for each entity asked for.
    pub entities: Vec<EntityRow>,
    /// Whether each id was seen.
    pub seen: Vec<bool>,
    /// The trials of each event, 0 if there were none.
    pub trials: Vec<u32>,
    /// The last sequence given on each subject, 0 if none was.
    pub outgoing: Vec<u64>,
    /// The epochs that each source has had.
    pub epochs: Vec<SourceEpochs>,
    /// What was replied to each command, `None` if nothing was, or not any more.
    pub replies: Vec<Option<ReplyRow>>,
    /// The record of each source's owner.
    pub owners: Vec<OwnerRow>,
    /// The times up to which seen ids and replies were pruned; only read where some are asked for.
    pub pruned_to: PrunedTo,
}

/// The latest times of what was pruned: the memory of everything at or before them may be gone. `None` where nothing was pruned yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrunedTo {
    /// Of seen ids.
    pub seen: Option<Timestamp>,
    /// Of replies.
    pub replies: Option<Timestamp>,
}

/// Tells one command from another that comes under the same id: SHA-256 of what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

/// What was replied to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRow {
    /// Of the command that it was replied to.
    pub hash: RequestHash,
    /// The reply.
    pub reply: Bytes,
}

/// How far a role has got in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// Which stream.
    pub key: StreamKey,
    /// Its row, `None` if there is none yet.
    pub row: Option<RowRef>,
    /// Its version, 0 if there is no row yet.
    pub version: u64,
    /// The last sequence applied or stepped over, 0 at the start.
    pub cursor: u64,
    /// The id of the event at the cursor, `None` at the start or where a gap was stepped over.
    pub last_id: Option<EventId>,
    /// The dead letter that blocks the stream: its event is the one after the cursor.
    pub blocked: Option<DeadLetterId>,
    /// How many of its events are held.
    pub held: u64,
    /// The epoch of the event at the cursor.
    pub epoch: Option<StreamEpoch>,
}

/// The state of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRow {
    /// Which entity.
    pub key: EntityKey,
    /// Its row, `None` if there is none yet.
    pub row: Option<RowRef>,
    /// Its version, 0 if there is no row yet.
    pub version: u64,
    /// Its state in JSON; `None` if nothing has been applied to it yet.
    pub state: Option<Bytes>,
}

/// Why an event is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeferReason {
    /// Its predecessor is missing, or blocked.
    OutOfOrder,
    /// It waits for what another stream will bring to this entity.
    WaitingFor(EntityKey),
    /// It is this dead letter, to be tried again.
    Replay(DeadLetterId),
    /// The role has scheduled it to itself: it waits for nothing but its time, and has no place in any stream.
    Scheduled,
}

/// A held event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredEvent {
    /// Which row.
    pub id: DeferredId,
    /// The event.
    pub event: Event,
    /// Why no handler will be asked: the event is there only for its place, and will be refused when it is next.
    pub defect: Option<String>,
    /// Why it is held.
    pub reason: DeferReason,
    /// Since when it is held, or waits for what it waits for now.
    pub since: Timestamp,
    /// How often a handler has put it off.
    pub attempts: u32,
}

/// What has become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterStatus {
    /// Nobody has decided yet.
    Open,
    /// A replay was asked for and has not been worked yet.
    Replaying,
    /// It was replayed and waits for what another stream will bring; its stream stays blocked by it.
    Awaiting,
}

/// A dead letter: an event, or something that was to be one, that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which dead letter.
    pub id: DeadLetterId,
    /// The event, if the message could be read as one; its data is the message's body in any case.
    pub event: Option<Event>,
    /// The message's body as it first came. The event's data is another once it was edited.
    pub body: Bytes,
    /// Whether a stream is blocked by it.
    pub blocks: bool,
    /// The reason in a few words, the same for all of a kind.
    pub reason: String,
    /// The reason in full, with the values.
    pub detail: String,
    /// Groups dead letters of one kind: a digest of role, type, reason and the shape of the detail.
    pub fingerprint: String,
    /// How often a handler has seen it.
    pub attempts: u32,
    /// When it died.
    pub since: Timestamp,
    /// What has become of it.
    pub status: DeadLetterStatus,
    /// The defect that it was read with, if any.
    pub defect: Option<String>,
}

impl DeadLetter {
    /// Whether its event carries other data than its message did.
    #[must_use]
    pub fn is_edited(&self) -> bool {
        self.event.as_ref().is_some_and(|e| e.data != self.body)
    }
}

/// Dead letters of one kind, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// How many of them nobody has decided about.
    pub open: u64,
    /// When the first of them died.
    pub first: Timestamp,
    /// When the last of them died.
    pub last: Timestamp,
    /// The reason that they share.
    pub reason: String,
    /// The event type that they share; none where the messages could not be read as events.
    #[serde(rename = "type")]
    pub kind: Option<EventType>,
    /// The oldest of them.
    pub example: DeadLetterId,
    /// The detail of the oldest.
    pub detail: String,
}

/// Which dead letters to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeadLetterFilter {
    /// All of them.
    #[default]
    All,
    /// This one.
    Id(DeadLetterId),
    /// Those of one kind.
    Fingerprint(String),
    /// Those of one event, however often it was refused: whose ids are [`DeadLetterId::event_digest`] and a number.
    Letter(String),
}

/// Events that a stream misses: `from..=to` are not there, what follows is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceGap {
    /// Which stream.
    pub stream: StreamKey,
    /// The first one missing.
    pub from: u64,
    /// The last one missing.
    pub to: u64,
    /// How many are held behind the gap.
    pub held: u64,
    /// Since when.
    pub since: Timestamp,
}

/// What an outbox row owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxKind {
    /// An event to publish.
    Event(Event),
    /// A copy of a dead letter, for the management UI, alerts and other tools.
    DeadCopy {
        /// Which dead letter.
        id: DeadLetterId,
        /// What goes into the copy's headers.
        headers: BTreeMap<String, String>,
        /// The body.
        body: Bytes,
    },
}

impl OutboxKind {
    /// Whether it is a copy of one of these dead letters.
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
    /// Which row.
    pub id: OutboxId,
    /// What it owes.
    pub kind: OutboxKind,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it was written.
    pub since: Timestamp,
}

/// Rows and bytes of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TableUsage {
    /// Rows.
    pub rows: u64,
    /// Bytes of their events, about.
    pub bytes: u64,
}

impl TableUsage {
    /// Whether there are more rows or bytes than these.
    pub(crate) fn is_above(self, most: Self) -> bool {
        self.rows > most.rows || self.bytes > most.bytes
    }
}

/// How full the tables are that must not grow without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreUsage {
    /// Held events.
    pub held: TableUsage,
    /// Dead letters.
    pub dead: TableUsage,
    /// Seen ids.
    pub seen: TableUsage,
    /// The outbox.
    pub outbox: TableUsage,
    /// Replies to commands.
    pub replies: TableUsage,
    /// Events that the role has scheduled to itself.
    pub scheduled: TableUsage,
}

/// What a role has done with deliveries since its store was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EventCounts {
    /// Events applied.
    pub applied: u64,
    /// Known events of types that the role does not handle: their cursor moved, nothing else.
    pub ignored: u64,
    /// Deliveries dropped because they had been applied, held or refused before.
    pub duplicates: u64,
    /// Events held when they came.
    pub held: u64,
    /// Dead letters made.
    pub dead: u64,
    /// Dead letters replayed and then applied.
    pub replayed: u64,
    /// Dead letters and gaps stepped over.
    pub skipped: u64,
    /// Commands obeyed, each once.
    pub obeyed: u64,
}

impl EventCounts {
    pub(crate) fn add(&mut self, more: &Self) {
        let counts = [
            (&mut self.applied, more.applied),
            (&mut self.ignored, more.ignored),
            (&mut self.duplicates, more.duplicates),
            (&mut self.held, more.held),
            (&mut self.dead, more.dead),
            (&mut self.replayed, more.replayed),
            (&mut self.skipped, more.skipped),
            (&mut self.obeyed, more.obeyed),
        ];
        for (count, more) in counts {
            *count = count.saturating_add(more);
        }
    }
}

/// Dead letters that belong to no stream, and those that went to the overflow file instead.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Streamless {
    /// Those that are kept.
    pub usage: TableUsage,
    /// The number that went to the overflow file since the store was created.
    pub overflowed: u64,
    /// The number of these are in no overflow file any more.
    pub dropped: u64,
    /// The kinds that were asked for, the largest first.
    pub kinds: Vec<StreamlessKind>,
}

/// Dead letters of one kind that belong to no stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamlessKind {
    /// [`DeadLetter::fingerprint`].
    pub fingerprint: String,
    /// [`DeadLetter::reason`].
    pub reason: String,
    /// The number of them.
    pub usage: TableUsage,
}

/// Counts of everything in a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Entities with a state.
    pub entities: u64,
    /// Streams.
    pub streams: u64,
    /// Streams that are blocked.
    pub blocked: u64,
    /// Streams that hold events behind a missing one.
    pub gaps: u64,
    /// Held events whose time has come or will come by itself: put off by a handler, or to be replayed.
    pub held_due: u64,
    /// Scheduled events whose time has come and that were not worked yet; all of them are in [`StoreUsage::scheduled`].
    pub scheduled_due: u64,
    /// Rows and bytes.
    pub usage: StoreUsage,
    /// What was done.
    pub tally: EventCounts,
    /// Changes with every commit by anyone: two equal readings mean that nothing was written between them.
    pub commits: u64,
    /// Age of the oldest outbox row in milliseconds.
    pub oldest_outbox_ms: Option<u64>,
    /// Age of the oldest held event in milliseconds.
    pub oldest_held_ms: Option<u64>,
    /// Age of the oldest dead letter in milliseconds.
    pub oldest_dead_ms: Option<u64>,
    /// The mark of a store that was restored from a backup or copied; `null` otherwise.
    pub restored: Option<Restored>,
    /// Sources found to be restored or copied that no operator has accepted, the longest first, at most
    /// [`crate::MAX_RESTORED_SOURCES`].
    pub restored_sources: Vec<RestoredSource>,
    /// When the oldest outbox row was written.
    #[serde(skip)]
    pub oldest_outbox: Option<Timestamp>,
    /// When the oldest held event was held.
    #[serde(skip)]
    pub oldest_held: Option<Timestamp>,
    /// When the oldest dead letter was made.
    #[serde(skip)]
    pub oldest_dead: Option<Timestamp>,
    /// Rows dated after the clock, so that their age is unknown: held events, and the oldest outbox row. The clock was ahead when they were
    /// written, or is behind now.
    pub dated_ahead: u64,
    /// Bytes of the write-ahead log, where the store has one.
    pub log_bytes: Option<u64>,
}

/// A write-ahead log above its bound, which a reader keeps from being cut back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLog {
    /// The store's file; the log lies beside it.
    pub file: std::path::PathBuf,
    /// Bytes of the log.
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

/// How many outbox rows that were tried in vain before a turn of `limit` rows takes, where so many of them and of the others are due.
pub(crate) fn share_of_again(limit: usize, again: usize, untried: usize) -> usize {
    again.min(limit - untried.min(limit / 2))
}

/// The time by which a row may be dated after the clock before it counts as dated ahead: clocks are corrected by small steps all the time.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(5);

/// The time after which rows are dated ahead of `now`.
pub(crate) fn ahead_of(now: Timestamp) -> Timestamp {
    now.checked_add(MAX_CLOCK_AHEAD).unwrap_or(Timestamp::MAX)
}

/// How long ago something was, 0 where the clock has gone back since.
pub(crate) fn age_ms(since: Timestamp, now: Timestamp) -> u64 {
    let age = now.as_millisecond().saturating_sub(since.as_millisecond());
    u64::try_from(age).unwrap_or(0)
}
