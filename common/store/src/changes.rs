//! Changes to write to a store.

use bytes::Bytes;
use doorstep_event::{
    Epoch, Event, EventId, EventType, RequestId, Source, StreamKey, Subject, Timestamp,
};

use crate::{
    audit::{AuditBounds, NewAudit},
    epochs::{LearnedEpoch, RestoredChange, RestoredSourceChange, StreamEpoch},
    rows::{
        DeadLetter, DeadLetterId, DeadLetterStatus, DeferReason, DeferredEvent, DeferredId,
        EntityKey, EventCounts, OutboxId, OutboxKind, PrunedTo, RequestHash, RowRef, StoreUsage,
        TableUsage,
    },
    source_owners::OwnerChange,
    tasks::{TaskChange, TaskDirective, TaskState},
};

/// All changes of one batch, written in one transaction. Create one by [`WriteSet::at`]: the default is of no time.
#[derive(Debug, Clone, Default)]
pub struct WriteSet {
    /// The time recorded with the commit.
    pub now: Timestamp,
    /// Every stream that the batch has read.
    pub streams: Vec<StreamChange>,
    /// Every entity that the batch has read, but for those that it removes.
    pub entities: Vec<EntityChange>,
    /// Entities to remove. One that has changed since is a conflict.
    pub removed_entities: Vec<(EntityKey, ExpectedVersion)>,
    /// Every source whose owner the batch has read.
    pub owners: Vec<OwnerChange>,
    pub defer: Vec<NewDeferred>,
    /// Deferred events to remove. A missing one is a conflict.
    pub release: Vec<DeferredId>,
    /// Deferred events to defer again. A missing one is a conflict.
    pub reschedule: Vec<DeferredRetry>,
    /// New dead letters. An existing one is a conflict, unless the same changes resolve it.
    pub dead_letters: Vec<NewDeadLetter>,
    /// Dead letters that may exist already and then stay as they are: those that block nothing and whose id follows
    /// from their content. The store counts new ones as dead letters and the others as duplicates, and writes copies of
    /// new ones only to the outbox.
    pub dead_letters_if_absent: Vec<NewDeadLetter>,
    /// Dead letters that belong to no stream, likewise, up to [`WriteSet::streamless_bounds`]. The rest is appended to
    /// the overflow file before the commit, and gets no copies.
    pub streamless: Vec<NewStreamless>,
    /// The bounds of `streamless`.
    pub streamless_bounds: StreamlessBounds,
    /// Resolutions of dead letters. A missing one, or one not in the expected status, is a conflict. Resolutions are
    /// written before new dead letters.
    pub resolve: Vec<(DeadLetterId, DeadLetterStatus, Resolution)>,
    /// New data for dead letters. A missing one, one that is not open, or one with other data than expected is a
    /// conflict.
    pub edit: Vec<DeadLetterEdit>,
    /// Ids of events without a sequence, with the event's time. An existing one is a conflict.
    pub seen: Vec<(Source, EventId, Timestamp)>,
    /// Crash counts of poison candidates. A count that differs from the one read is a conflict.
    pub crash_counts: Vec<CrashCountChange>,
    /// Sequences emitted on the role's own subjects.
    pub emitted_sequences: Vec<EmittedSequence>,
    /// Replies to commands. An existing one is a conflict, even with the same content.
    pub replies: Vec<NewReply>,
    /// The times up to which seen ids and replies were pruned, as read. If the batch writes a seen id or a reply, other
    /// times are a conflict: it may have taken a pruned id for a new one.
    pub pruned_to: PrunedTo,
    /// Timers of the role.
    pub timers: Vec<NewTimer>,
    /// Starts, ends and decisions of tasks, applied in this order and after all dead letters.
    pub tasks: Vec<TaskChange>,
    /// Rows to publish after the commit, in order.
    pub outbox: Vec<NewOutbox>,
    /// Outbox rows that were published. A missing one is no conflict: two relays may have published it.
    pub published: Vec<OutboxId>,
    /// Outbox rows that could not be published yet. A missing one is no conflict.
    pub postponed: Vec<OutboxRetry>,
    /// Begins an epoch of the store with this random part: see [`crate::begin_epoch`].
    pub begin_epoch: Option<u64>,
    /// Marks the store as restored, or removes the mark.
    pub restored: Option<RestoredChange>,
    /// Epochs of sources. A known one stays as it is.
    pub learned: Vec<LearnedEpoch>,
    /// Changes to the list of restored sources.
    pub restored_sources: Vec<RestoredSourceChange>,
    /// Increments of the event counts.
    pub counts: EventCounts,
    /// Audit records of operators' actions.
    pub audit: Vec<NewAudit>,
    /// The maximum of audit records kept from now on; the newest is always kept.
    pub audit_bounds: AuditBounds,
}

impl WriteSet {
    /// Returns an empty write set.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// Returns true if a commit would write rows rather than only check versions.
    pub(crate) fn writes(&self) -> bool {
        let stream = |c: &StreamChange| c.after.is_some() || c.expect.row.is_none();
        let entity = |c: &EntityChange| c.after.is_some() || c.expect.row.is_none();
        self.streams.iter().any(stream)
            || self.entities.iter().any(entity)
            || !self.removed_entities.is_empty()
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
            || !self.tasks.is_empty()
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

    /// Returns true if the batch depends on what was pruned.
    pub(crate) fn rests_on_pruning(&self) -> bool {
        !self.seen.is_empty() || !self.replies.is_empty()
    }

    /// Checks that all sequences fit into signed 64-bit integers, that no deferred event becomes a timer, and that running
    /// tasks are only cancelled.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rescheduled = self.reschedule.iter().map(|retry| &retry.reason);
        let mut reasons = self.defer.iter().map(|new| &new.reason).chain(rescheduled);
        if reasons.any(|reason| *reason == DeferReason::Scheduled) {
            return Err("a deferred event cannot become a timer".to_owned());
        }
        let settles_running = |change: &TaskChange| {
            matches!(change, TaskChange::Decide { expected: TaskState::Running, directive, .. }
                if *directive != Some(TaskDirective::Cancel))
        };
        if self.tasks.iter().any(settles_running) {
            return Err("a running task can only be cancelled".to_owned());
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
                "sequence {number} is too large: the maximum is {}",
                i64::MAX
            )),
        }
    }
}

/// The row and version that the batch has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpectedVersion {
    /// The row, `None` if there was none: it is created, and a row created meanwhile is a conflict.
    pub row: Option<RowRef>,
    /// The version read, 0 if there was no row.
    pub version: u64,
}

/// A stream that the batch has read.
#[derive(Debug, Clone)]
pub struct StreamChange {
    pub key: StreamKey,
    pub expect: ExpectedVersion,
    /// The new state. `None` if the stream was only read: the version is checked and stays, and a missing row is
    /// created. `Some` always raises the version, so every process that has read the row notices a deferral, block or
    /// skip.
    pub after: Option<StreamState>,
}

/// The new state of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The last sequence applied or skipped; never lower than before.
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
    pub key: EntityKey,
    pub expect: ExpectedVersion,
    /// The new state in JSON. `None` if the entity was only read: the version is checked and stays, and a missing row
    /// is created.
    pub after: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub struct NewDeferred {
    pub event: Event,
    /// The reason why no handler gets the event.
    pub defect: Option<String>,
    pub reason: DeferReason,
    /// The time of the next attempt; `None`: when its predecessor is applied.
    pub due: Option<Timestamp>,
    /// The number of times that a handler has deferred it.
    pub attempts: u32,
    /// The start of the deferral: `now`, unless it was deferred before.
    pub since: Timestamp,
}

/// A deferred event to defer again.
#[derive(Debug, Clone)]
pub struct DeferredRetry {
    pub id: DeferredId,
    pub reason: DeferReason,
    /// The time of the next attempt; `None`: when its predecessor is applied.
    pub due: Option<Timestamp>,
    /// The number of times that a handler has deferred it.
    pub attempts: u32,
    /// The time from which it has been waiting for its present reason.
    pub since: Timestamp,
}

#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// The row to write; its status is [`DeadLetterStatus::Open`].
    pub row: DeadLetter,
}

/// A new dead letter that belongs to no stream.
#[derive(Debug, Clone)]
pub struct NewStreamless {
    /// The row to write; its status is [`DeadLetterStatus::Open`].
    pub row: DeadLetter,
    /// The id to remember, with its event's time, unless the dead letter goes to the overflow file. An existing one is
    /// a conflict.
    pub seen: Option<(Source, EventId, Timestamp)>,
}

/// The bounds of dead letters that belong to no stream. Any user who may publish can create any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamlessBounds {
    /// The maximum rows and bytes of one kind. The first of a kind is kept at any size.
    pub kind: TableUsage,
    /// The maximum rows and bytes of all kinds together.
    pub all: TableUsage,
    /// The maximum bytes of an overflow file, exceeded by at most one commit.
    pub file_bytes: u64,
    /// The maximum number of overflow files, at least 1. The oldest is deleted.
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
    /// Returns true if another dead letter of this many bytes is kept.
    pub(crate) fn has_room(&self, kind: TableUsage, all: TableUsage, bytes: u64) -> bool {
        let with = |used: TableUsage| TableUsage {
            rows: used.rows.saturating_add(1),
            bytes: used.bytes.saturating_add(bytes),
        };
        (kind.rows == 0 || !with(kind).is_above(self.kind)) && !with(all).is_above(self.all)
    }
}

/// New data for a dead letter. The original stays in [`DeadLetter::body`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterEdit {
    pub id: DeadLetterId,
    /// The data that the operator has seen.
    pub before: Bytes,
    /// The new data. The edit also clears the message's defect.
    pub after: Bytes,
}

/// The resolution of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// A replay was requested: its status becomes [`DeadLetterStatus::Replaying`].
    Replaying,
    /// It was replayed and waits for another stream: its status becomes [`DeadLetterStatus::Awaiting`].
    Awaiting,
    /// It is gone: applied, skipped, or rejected again under another id.
    Gone,
}

/// The crash count of a poison candidate: the number of times that a process was about to pass the event to its handler
/// after a suspected crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashCountChange {
    pub source: Source,
    pub id: EventId,
    /// The count as read, 0 if there was none.
    pub before: u32,
    /// The new count; 0 removes it, since the event was resolved.
    pub after: u32,
}

/// A sequence emitted on a subject of the role.
#[derive(Debug, Clone)]
pub struct EmittedSequence {
    pub subject: Subject,
    /// The last sequence as read, 0 if there was none; another one in the store is a conflict.
    pub before: u64,
    pub after: u64,
}

/// A reply to a command, written together with the command's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReply {
    /// The client that sent the command.
    pub caller: Source,
    pub id: RequestId,
    /// Tells it from another command with the same id.
    pub hash: RequestHash,
    pub reply: Bytes,
    /// The start of its retention.
    pub time: Timestamp,
}

/// A timer: an event of the role to itself. The store assigns its id, which no other event of the store has: see
/// [`DeferredEvent::event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTimer {
    /// The time when it falls due, also the event's time.
    pub due: Timestamp,
    pub source: Source,
    pub kind: EventType,
    pub subject: Subject,
    /// W3C trace context of the message that scheduled it.
    pub traceparent: Option<String>,
    pub data: Bytes,
}

impl NewTimer {
    /// The event as [`crate::Store::due`] returns it, under the number that the store has assigned.
    pub(crate) fn into_row(self, id: DeferredId, now: Timestamp) -> DeferredEvent {
        #[expect(clippy::expect_used, reason = "a word and a number form a valid id")]
        let event_id = EventId::new(format!("scheduled-{}", id.0)).expect("a valid id");
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

#[derive(Debug, Clone)]
pub struct NewOutbox {
    pub kind: OutboxKind,
}

/// An outbox row that could not be published yet.
#[derive(Debug, Clone)]
pub struct OutboxRetry {
    pub id: OutboxId,
    /// The time of the next attempt.
    pub due: Timestamp,
}

/// The result of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    Written(CommitReceipt),
    /// A row that the batch had read has changed since. Nothing was written; read again.
    Conflict,
}

/// The new versions and counts after a commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitReceipt {
    /// The rows of [`WriteSet::streams`], in the same order, each with its new version.
    pub streams: Vec<ExpectedVersion>,
    /// The rows of [`WriteSet::entities`], likewise.
    pub entities: Vec<ExpectedVersion>,
    /// The new usage of the bounded tables.
    pub usage: StoreUsage,
    /// The number of new dead letters kept from [`WriteSet::dead_letters_if_absent`] and [`WriteSet::streamless`].
    pub dead_lettered: u64,
    /// The number of [`WriteSet::streamless`] that went to the overflow file.
    pub overflowed: u64,
    /// The epoch that was begun, if any.
    pub epoch: Option<Epoch>,
}
