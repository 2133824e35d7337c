//! What a store in memory holds.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use doorstep_event::{Epoch, EventId, RequestId, Source, StreamKey, Subject, Timestamp};

use super::journaled::Journaled;
use crate::{
    AuditId, AuditRow, DeadId, DeadRow, EntityKey, HeldId, HeldRow, NewReply, OutboxId, OutboxRow,
    OwnEpoch, OwnerRow, PrunedTo, Restored, RestoredSource, RowRef, SourceEpochs, StreamEpoch,
    Tally, Usage, UsageOf, size,
};

#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) streams: Journaled<StreamKey, Stream>,
    pub(super) entities: Journaled<EntityKey, Entity>,
    pub(super) held: Journaled<HeldId, Held>,
    /// Numbered together with what is held.
    pub(super) scheduled: Journaled<HeldId, Held>,
    /// Where each held event with a sequence is.
    pub(super) places: Journaled<(StreamKey, u64), HeldId>,
    /// By a number of their own, in the order in which they were made.
    pub(super) dead: Journaled<u64, DeadRow>,
    pub(super) dead_numbers: Journaled<DeadId, u64>,
    /// The bytes of those dead letters that belong to no stream, by kind.
    pub(super) streamless: Journaled<DeadId, (String, u64)>,
    pub(super) seen: Journaled<(Source, EventId), Timestamp>,
    /// How often, and when last.
    pub(super) trials: Journaled<(Source, EventId), (u32, Timestamp)>,
    pub(super) outgoing: Journaled<Subject, u64>,
    pub(super) owners: Journaled<Source, OwnerRow>,
    pub(super) replies: Journaled<(Source, RequestId), NewReply>,
    pub(super) outbox: Journaled<OutboxId, Owed>,
    pub(super) source_epochs: Journaled<Source, SourceEpochs>,
    pub(super) restored_sources: Journaled<Source, RestoredSource>,
    /// By their counters.
    pub(super) own_epochs: Journaled<u64, OwnEpoch>,
    pub(super) audit: Journaled<AuditId, AuditRow>,
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
    pub(super) usage: Usage,
    pub(super) streamless: UsageOf,
    pub(super) kinds: BTreeMap<String, UsageOf>,
    pub(super) overflowed: u64,
    pub(super) dropped: u64,
    pub(super) tally: Tally,
    pub(super) last_audit: i64,
    pub(super) audit: UsageOf,
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
    pub(super) blocked: Option<DeadId>,
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
    pub(super) row: HeldRow,
    pub(super) due: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct Owed {
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
