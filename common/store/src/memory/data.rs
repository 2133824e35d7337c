//! What a store in memory holds.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use doorstep_event::{Epoch, EventId, RequestId, Source, StreamKey, Subject, Timestamp};

use super::journaled::UndoMap;
use crate::{
    AuditId, AuditRow, DeadLetter, DeadLetterId, DeferredEvent, DeferredId, EntityKey, EventCounts,
    NewReply, OutboxId, OutboxRow, OwnEpoch, OwnerRow, PrunedTo, Restored, RestoredSource, RowRef,
    SourceEpochs, StoreUsage, StreamEpoch, TableUsage, size,
};

#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) streams: UndoMap<StreamKey, Stream>,
    pub(super) entities: UndoMap<EntityKey, Entity>,
    pub(super) held: UndoMap<DeferredId, Held>,
    /// Numbered together with what is held.
    pub(super) scheduled: UndoMap<DeferredId, Held>,
    /// Where each held event with a sequence is.
    pub(super) places: UndoMap<(StreamKey, u64), DeferredId>,
    /// By a number of their own, in the order in which they were made.
    pub(super) dead: UndoMap<u64, DeadLetter>,
    pub(super) dead_numbers: UndoMap<DeadLetterId, u64>,
    /// The bytes of those dead letters that belong to no stream, by kind.
    pub(super) streamless: UndoMap<DeadLetterId, (String, u64)>,
    pub(super) seen: UndoMap<(Source, EventId), Timestamp>,
    /// How often, and when last.
    pub(super) trials: UndoMap<(Source, EventId), (u32, Timestamp)>,
    pub(super) outgoing: UndoMap<Subject, u64>,
    pub(super) owners: UndoMap<Source, OwnerRow>,
    pub(super) replies: UndoMap<(Source, RequestId), NewReply>,
    pub(super) outbox: UndoMap<OutboxId, PendingMessage>,
    pub(super) source_epochs: UndoMap<Source, SourceEpochs>,
    pub(super) restored_sources: UndoMap<Source, RestoredSource>,
    /// By their counters.
    pub(super) own_epochs: UndoMap<u64, OwnEpoch>,
    pub(super) audit: UndoMap<AuditId, AuditRow>,
    pub(super) counters: Counters,
    /// The content of an overflow file, with what a commit adds to it.
    pub(super) overflow: VecDeque<Vec<u8>>,
    pub(super) overflow_bytes: u64,
    pub(super) overflow_new: Vec<Vec<u8>>,
}

/// Small enough to be copied before each commit and put back after a conflict.
#[derive(Debug, Default, Clone)]
pub(super) struct Counters {
    pub(super) last_stream: i64,
    pub(super) last_entity: i64,
    pub(super) last_held: i64,
    pub(super) last_dead: u64,
    pub(super) last_outbox: i64,
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
pub(super) struct Stream {
    pub(super) row: RowRef,
    pub(super) version: u64,
    pub(super) cursor: u64,
    pub(super) last_id: Option<EventId>,
    pub(super) blocked: Option<DeadLetterId>,
    pub(super) epoch: Option<StreamEpoch>,
    pub(super) held: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub(super) row: RowRef,
    pub(super) version: u64,
    pub(super) state: Option<Bytes>,
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) row: DeferredEvent,
    pub(super) due: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct PendingMessage {
    pub(super) row: OutboxRow,
    /// `None`: at once.
    pub(super) due: Option<Timestamp>,
}

impl Held {
    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        size::held(&self.row.event, self.row.defect.as_deref())
    }

    /// Where the event is held; without a sequence it has no place.
    pub(super) fn place(&self) -> Option<(StreamKey, u64)> {
        let sequence = self.row.event.sequence?;
        Some((self.row.event.stream(), sequence.get()))
    }
}
