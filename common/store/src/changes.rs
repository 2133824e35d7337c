//! What is written to a store.

use bytes::Bytes;
use doorstep_event::{
    Epoch, Event, EventId, EventType, RequestId, Source, StreamKey, Subject, Timestamp,
};

use crate::{
    audit::{MAX_AUDIT, NewAudit},
    epochs::{LearnedEpoch, RestoredChange, RestoredSourceChange, StreamEpoch},
    owners::OwnerChange,
    rows::{
        DeadLetter, DeadLetterId, DeadLetterStatus, DeferReason, DeferredEvent, DeferredId,
        EntityKey, EventCounts, OutboxId, OutboxKind, PrunedTo, RequestHash, RowRef, StoreUsage,
        TableUsage,
    },
};

/// All that one batch does. Written whole, or not at all.
#[derive(Debug, Clone)]
pub struct WriteSet {
    /// The time that is recorded with the commit.
    pub now: Timestamp,
    /// Every stream that the batch has read.
    pub streams: Vec<StreamChange>,
    /// Every entity that the batch has read.
    pub entities: Vec<EntityChange>,
    /// Every source whose owner the batch has read.
    pub owners: Vec<OwnerChange>,
    /// Events to hold.
    pub defer: Vec<NewDeferred>,
    /// Held events that are done with. One that is no longer there is a conflict.
    pub release: Vec<DeferredId>,
    /// Held events that were put off again. One that is no longer there is a conflict.
    pub reschedule: Vec<DeferredRetry>,
    /// Dead letters. One that is there already is a conflict, unless the same changes settle it.
    pub dead_letters: Vec<NewDeadLetter>,
    /// Dead letters that may be there already and are then left as they are: those that block nothing and are named by what they hold.
    /// The store counts them in the tally, as dead if they are new and otherwise as duplicates, and owes copies of new ones only.
    pub dead_letters_if_absent: Vec<NewDeadLetter>,
    /// Dead letters that belong to no stream, likewise, as far as [`WriteSet::streamless_bounds`] lets them. The rest is appended to the
    /// overflow file before the commit is written, and owes no copies.
    pub streamless: Vec<NewStreamless>,
    /// The bounds of these.
    pub streamless_bounds: StreamlessBounds,
    /// What becomes of dead letters. One that is no longer there, or not in the status expected, is a conflict. Settled before new
    /// ones are written.
    pub resolve: Vec<(DeadLetterId, DeadLetterStatus, Resolution)>,
    /// Other data for dead letters. One that is no longer there, or not open, or whose data is another than expected, is a conflict.
    pub edit: Vec<DeadLetterEdit>,
    /// Ids of events without a sequence, with their event's time. One that is there already is a conflict.
    pub seen: Vec<(Source, EventId, Timestamp)>,
    /// Trials of events that a process may have died of. A count that is no longer as it was read is a conflict.
    pub crash_counts: Vec<CrashCountChange>,
    /// Sequences given on subjects that the role emits on.
    pub emitted_sequences: Vec<EmittedSequence>,
    /// Replies to commands. One that is there already is a conflict, whatever it says.
    pub replies: Vec<NewReply>,
    /// The times up to which seen ids and replies were pruned, as read. Other times are a conflict if an id is seen or a reply kept: the
    /// batch may have taken a pruned id for a new one.
    pub pruned_to: PrunedTo,
    /// Events of the role to itself.
    pub timers: Vec<NewTimer>,
    /// What the commit owes the world, in order.
    pub outbox: Vec<NewOutbox>,
    /// Outbox rows that are paid. One that is no longer there is no conflict: two relays may have published it.
    pub published: Vec<OutboxId>,
    /// Outbox rows that could not be paid yet. One that is no longer there is no conflict.
    pub postponed: Vec<OutboxRetry>,
    /// Begins an epoch of the store, with this random part: see [`crate::begin_epoch`].
    pub begin_epoch: Option<u64>,
    /// Marks the store as restored, or removes the mark.
    pub restored: Option<RestoredChange>,
    /// Epochs of sources. One that is known already is left as it is.
    pub learned: Vec<LearnedEpoch>,
    /// Changes of the list of restored sources.
    pub restored_sources: Vec<RestoredSourceChange>,
    /// What to add to the tally.
    pub counts: EventCounts,
    /// Records of what operators have done.
    pub audit: Vec<NewAudit>,
    /// How many records are kept from now on; the newest always is.
    pub audit_bounds: TableUsage,
}

impl WriteSet {
    /// Changes that change nothing yet.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            streams: Vec::new(),
            entities: Vec::new(),
            owners: Vec::new(),
            defer: Vec::new(),
            release: Vec::new(),
            reschedule: Vec::new(),
            dead_letters: Vec::new(),
            dead_letters_if_absent: Vec::new(),
            streamless: Vec::new(),
            streamless_bounds: StreamlessBounds::default(),
            resolve: Vec::new(),
            edit: Vec::new(),
            seen: Vec::new(),
            crash_counts: Vec::new(),
            emitted_sequences: Vec::new(),
            replies: Vec::new(),
            pruned_to: PrunedTo::default(),
            timers: Vec::new(),
            outbox: Vec::new(),
            published: Vec::new(),
            postponed: Vec::new(),
            begin_epoch: None,
            restored: None,
            learned: Vec::new(),
            restored_sources: Vec::new(),
            counts: EventCounts::default(),
            audit: Vec::new(),
            audit_bounds: MAX_AUDIT,
        }
    }

    /// Whether anything is written if there is no conflict, rather than only versions looked at.
    pub(crate) fn writes(&self) -> bool {
        let stream = |c: &StreamChange| c.after.is_some() || c.expect.row.is_none();
        let entity = |c: &EntityChange| c.after.is_some() || c.expect.row.is_none();
        self.streams.iter().any(stream)
            || self.entities.iter().any(entity)
            || self.owners.iter().any(|c| c.after.is_some())
            || !self.defer.is_empty()
            || !self.release.is_empty()
            || !self.reschedule.is_empty()
            || !self.dead_letters.is_empty()
            || !self.dead_letters_if_absent.is_empty()
            || !self.streamless.is_empty()
            || !self.resolve.is_empty()
            || !self.edit.is_empty()
            || !self.seen.is_empty()
            || !self.crash_counts.is_empty()
            || !self.emitted_sequences.is_empty()
            || !self.replies.is_empty()
            || !self.timers.is_empty()
            || !self.outbox.is_empty()
            || !self.published.is_empty()
            || !self.postponed.is_empty()
            || self.begin_epoch.is_some()
            || self.restored.is_some()
            || !self.learned.is_empty()
            || !self.restored_sources.is_empty()
            || self.counts != EventCounts::default()
            || !self.audit.is_empty()
    }

    /// Returns whether the batch rests on what was pruned.
    pub(crate) fn rests_on_pruning(&self) -> bool {
        !self.seen.is_empty() || !self.replies.is_empty()
    }

    /// Sequences end where signed 64-bit integers end, and so must what counts them; and what is scheduled is so from the beginning.
    pub(crate) fn check(&self) -> Result<(), String> {
        let put_off = self.reschedule.iter().map(|retry| &retry.reason);
        let mut reasons = self.defer.iter().map(|new| &new.reason).chain(put_off);
        if reasons.any(|reason| *reason == DeferReason::Scheduled) {
            return Err("an event that is held cannot become a scheduled one".to_owned());
        }
        let cursors = self.streams.iter().filter_map(|c| c.after.as_ref());
        let outgoing = self
            .emitted_sequences
            .iter()
            .flat_map(|c| [c.before, c.after]);
        match cursors
            .map(|after| after.cursor)
            .chain(outgoing)
            .find(|number| i64::try_from(*number).is_err())
        {
            None => Ok(()),
            Some(number) => Err(format!(
                "{number} is no sequence that can be kept, the last one is {}",
                i64::MAX
            )),
        }
    }
}

/// Which row the batch has read, and in which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedVersion {
    /// The row, `None` if there was none: it is created now, and it is a conflict if somebody else has created it.
    pub row: Option<RowRef>,
    /// The version read, 0 if there was no row.
    pub version: u64,
}

/// A stream that the batch has read.
#[derive(Debug, Clone)]
pub struct StreamChange {
    /// Which stream.
    pub key: StreamKey,
    /// What was read.
    pub expect: ExpectedVersion,
    /// What it becomes. `None` where it was only read: the version is checked and stays, and an absent row is created.
    /// `Some` always raises the version, so holding, blocking and skipping are seen by everybody who has read the row.
    pub after: Option<StreamState>,
}

/// What a stream becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The last sequence applied or stepped over; never lower than before.
    pub cursor: u64,
    /// The id of the event at the cursor.
    pub last_id: Option<EventId>,
    /// The dead letter that blocks it.
    pub blocked: Option<DeadLetterId>,
    /// The epoch of the event at the cursor.
    pub epoch: Option<StreamEpoch>,
}

/// An entity that the batch has read.
#[derive(Debug, Clone)]
pub struct EntityChange {
    /// Which entity.
    pub key: EntityKey,
    /// What was read.
    pub expect: ExpectedVersion,
    /// Its new state in JSON. `None` where it was only read: the version is checked and stays, and an absent row is created.
    pub after: Option<Vec<u8>>,
}

/// An event to hold.
#[derive(Debug, Clone)]
pub struct NewDeferred {
    /// The event.
    pub event: Event,
    /// Why no handler will be asked.
    pub defect: Option<String>,
    /// Why it is held.
    pub reason: DeferReason,
    /// When to try it; `None`: when its predecessor is applied.
    pub due: Option<Timestamp>,
    /// How often a handler has put it off.
    pub attempts: u32,
    /// Since when it is held: `now`, unless it was held before.
    pub since: Timestamp,
}

/// A held event that was put off again.
#[derive(Debug, Clone)]
pub struct DeferredRetry {
    /// Which one.
    pub id: DeferredId,
    /// What it waits for now.
    pub reason: DeferReason,
    /// When to try it next; `None`: when its predecessor is applied.
    pub due: Option<Timestamp>,
    /// How often a handler has put it off.
    pub attempts: u32,
    /// Since when it waits for what it waits for now.
    pub since: Timestamp,
}

/// A new dead letter.
#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// The row as it is to be; its status is [`DeadLetterStatus::Open`].
    pub row: DeadLetter,
}

/// A new dead letter that belongs to no stream.
#[derive(Debug, Clone)]
pub struct NewStreamless {
    /// The row as it is to be; its status is [`DeadLetterStatus::Open`].
    pub row: DeadLetter,
    /// The id to remember, with its event's time, unless the dead letter goes to the overflow file. One that is there already is a
    /// conflict.
    pub seen: Option<(Source, EventId, Timestamp)>,
}

/// The bounds of dead letters that belong to no stream. Anyone who may publish can make any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamlessBounds {
    /// The most rows and bytes of one kind. The first of a kind is kept however large it is.
    pub kind: TableUsage,
    /// The most rows and bytes of all kinds together.
    pub all: TableUsage,
    /// The most bytes of an overflow file, one commit more or less.
    pub file_bytes: u64,
    /// The most overflow files, from 1. The oldest is deleted.
    pub files: u32,
}

impl Default for StreamlessBounds {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            kind: TableUsage {
                rows: 1_000,
                bytes: 16 * MIB,
            },
            all: TableUsage {
                rows: 50_000,
                bytes: 512 * MIB,
            },
            file_bytes: 64 * MIB,
            files: 4,
        }
    }
}

impl StreamlessBounds {
    /// Returns whether another dead letter of that many bytes is kept.
    pub(crate) fn has_room(&self, kind: TableUsage, all: TableUsage, bytes: u64) -> bool {
        let with = |used: TableUsage| TableUsage {
            rows: used.rows.saturating_add(1),
            bytes: used.bytes.saturating_add(bytes),
        };
        (kind.rows == 0 || !with(kind).is_above(self.kind)) && !with(all).is_above(self.all)
    }
}

/// Other data for a dead letter. What came first is kept in [`DeadLetter::body`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterEdit {
    /// Which dead letter.
    pub id: DeadLetterId,
    /// The data that was looked at.
    pub before: Bytes,
    /// The data in its place. Whatever was wrong with the message counts as mended by it.
    pub after: Bytes,
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It was asked to be tried again: its status becomes [`DeadLetterStatus::Replaying`].
    Replaying,
    /// It was tried again and waits for another stream: its status becomes [`DeadLetterStatus::Awaiting`].
    Awaiting,
    /// It is gone: applied, stepped over, or refused anew under another id.
    Gone,
}

/// How often a process was about to ask the handler about an event that a process may have died of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashCountChange {
    /// The event's source.
    pub source: Source,
    /// The event's id.
    pub id: EventId,
    /// The trials as read, 0 if there were none.
    pub before: u32,
    /// The trials from now on; 0 forgets them, since the event has come to something.
    pub after: u32,
}

/// A sequence given on a subject that the role emits on.
#[derive(Debug, Clone)]
pub struct EmittedSequence {
    /// The subject.
    pub subject: Subject,
    /// The last sequence given as read, 0 if none was; another one there now is a conflict.
    pub before: u64,
    /// The last sequence given from now on.
    pub after: u64,
}

/// A reply to a command, kept with the change that the command has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReply {
    /// Whose command it is.
    pub caller: Source,
    /// Its id.
    pub id: RequestId,
    /// Tells it from another one under the same id.
    pub hash: RequestHash,
    /// The reply.
    pub reply: Bytes,
    /// From when on its retention counts.
    pub time: Timestamp,
}

/// An event of the role to itself. The store gives it its id, which no other event of the store has: see [`DeferredEvent::event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTimer {
    /// When it falls due, and the event's time.
    pub due: Timestamp,
    /// The event's source: the role's own.
    pub source: Source,
    /// Its type.
    pub kind: EventType,
    /// What it is about.
    pub subject: Subject,
    /// W3C trace context of what it was scheduled by.
    pub traceparent: Option<String>,
    /// Its data.
    pub data: Bytes,
}

impl NewTimer {
    /// The event as it will be handed out, under the number that the store gives it.
    pub(crate) fn into_row(self, id: DeferredId, now: Timestamp) -> DeferredEvent {
        #[expect(
            clippy::expect_used,
            reason = "a word and a number are a well-formed id"
        )]
        let event_id = EventId::new(format!("scheduled-{}", id.0)).expect("a number is an id");
        DeferredEvent {
            id,
            event: Event {
                id: event_id,
                source: self.source,
                event_type: self.kind,
                subject: self.subject,
                time: Some(self.due),
                sequence: None,
                epoch: None,
                traceparent: self.traceparent,
                data: self.data,
            },
            defect: None,
            reason: DeferReason::Scheduled,
            since: now,
            attempts: 0,
        }
    }
}

/// What the commit owes the world.
#[derive(Debug, Clone)]
pub struct NewOutbox {
    /// What.
    pub kind: OutboxKind,
}

/// An outbox row that could not be paid yet.
#[derive(Debug, Clone)]
pub struct OutboxRetry {
    /// Which row.
    pub id: OutboxId,
    /// When to try it next.
    pub due: Timestamp,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// Everything was written.
    Written(CommitReceipt),
    /// Something that the batch had read has changed since: nothing was written, read afresh.
    Conflict,
}

/// What a commit tells of the rows that it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitReceipt {
    /// The rows of [`WriteSet::streams`], in their order, each with the version that it has now.
    pub streams: Vec<ExpectedVersion>,
    /// The rows of [`WriteSet::entities`], likewise.
    pub entities: Vec<ExpectedVersion>,
    /// How full the bounded tables are now.
    pub usage: StoreUsage,
    /// The number of [`WriteSet::dead_letters_if_absent`] and [`WriteSet::streamless`] were kept, and not there before.
    pub dead_lettered: u64,
    /// The number of [`WriteSet::streamless`] went to the overflow file.
    pub overflowed: u64,
    /// The epoch that was begun, if one was.
    pub epoch: Option<Epoch>,
}
