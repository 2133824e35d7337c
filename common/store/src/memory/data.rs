//! The data of a store in memory.

use std::collections::{BTreeMap, VecDeque};

use doorstep_event::{Epoch, EventId, RequestId, Source, StreamKey, Subject, Timestamp};

use super::undo_map::UndoMap;
use crate::{
    AuditId, AuditRow, DeadLetter, DeadLetterId, DeferredEvent, DeferredId, EntityKey, EntityRow,
    EventCounts, NewReply, OutboxId, OutboxRow, OwnEpoch, OwnerRow, PrunedTo, Restored,
    RestoredSource, SourceEpochs, StoreUsage, StreamRow, TableUsage, TaskHolder, TaskId, TaskRow,
    size, tasks::table::Holder,
};

#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) streams: UndoMap<StreamKey, StreamRow>,
    pub(super) entities: UndoMap<EntityKey, EntityRow>,
    pub(super) deferred: UndoMap<DeferredId, DeferredRow>,
    /// Numbered in the same series as the deferred events.
    pub(super) scheduled: UndoMap<DeferredId, DeferredRow>,
    /// The number of each deferred event with a sequence.
    pub(super) deferred_at: UndoMap<(StreamKey, u64), DeferredId>,
    /// By number, in the order of creation.
    pub(super) dead: UndoMap<u64, DeadLetter>,
    pub(super) dead_numbers: UndoMap<DeadLetterId, u64>,
    /// The bytes of the dead letters that belong to no stream, by kind.
    pub(super) streamless: UndoMap<DeadLetterId, (String, u64)>,
    pub(super) seen: UndoMap<(Source, EventId), Timestamp>,
    /// The count and the time of its last change.
    pub(super) crash_counts: UndoMap<(Source, EventId), (u32, Timestamp)>,
    pub(super) emitted_sequences: UndoMap<Subject, u64>,
    pub(super) owners: UndoMap<Source, OwnerRow>,
    pub(super) replies: UndoMap<(Source, RequestId), NewReply>,
    pub(super) outbox: UndoMap<OutboxId, PendingMessage>,
    pub(super) source_epochs: UndoMap<Source, SourceEpochs>,
    pub(super) restored_sources: UndoMap<Source, RestoredSource>,
    /// By counter.
    pub(super) own_epochs: UndoMap<u64, OwnEpoch>,
    pub(super) audit: UndoMap<AuditId, AuditRow>,
    /// By number, in the order of starting.
    pub(super) tasks: UndoMap<u64, TaskRow>,
    pub(super) task_numbers: UndoMap<TaskId, u64>,
    pub(super) task_holders: UndoMap<TaskHolder, Holder>,
    pub(super) counters: Counters,
    /// The lines of an overflow file, including those that a commit adds.
    pub(super) overflow: VecDeque<Vec<u8>>,
    pub(super) overflow_bytes: u64,
    pub(super) overflow_new: Vec<Vec<u8>>,
}

/// Small enough to copy before each commit and restore after a conflict.
#[derive(Debug, Default, Clone)]
pub(super) struct Counters {
    pub(super) last_stream: i64,
    pub(super) last_entity: i64,
    pub(super) last_deferred: i64,
    pub(super) last_dead: u64,
    pub(super) last_outbox: i64,
    pub(super) last_task: u64,
    /// The last token or heartbeat.
    pub(super) last_token: i64,
    pub(super) entities_with_state: u64,
    pub(super) commits: u64,
    pub(super) usage: StoreUsage,
    pub(super) streamless: TableUsage,
    pub(super) kinds: BTreeMap<String, TableUsage>,
    pub(super) overflowed: u64,
    pub(super) dropped: u64,
    pub(super) tally: EventCounts,
    pub(super) last_audit: i64,
    pub(super) audit: TableUsage,
    pub(super) audit_forgotten: u64,
    pub(super) epoch: Option<Epoch>,
    pub(super) restored: Option<Restored>,
    pub(super) pruned_to: PrunedTo,
}

#[derive(Debug, Clone)]
pub(super) struct DeferredRow {
    pub(super) row: DeferredEvent,
    pub(super) due: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct PendingMessage {
    pub(super) row: OutboxRow,
    /// `None`: at once.
    pub(super) due: Option<Timestamp>,
}

impl DeferredRow {
    /// The approximate bytes of the row.
    pub(super) fn bytes(&self) -> u64 {
        size::deferred(&self.row.event, self.row.defect.as_deref())
    }

    /// The stream and sequence of the event; `None` if it has no sequence.
    pub(super) fn place(&self) -> Option<(StreamKey, u64)> {
        let sequence = self.row.event.sequence?;
        Some((self.row.event.stream(), sequence.get()))
    }
}
