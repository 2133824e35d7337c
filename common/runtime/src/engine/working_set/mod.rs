//! The unit of work of a batch: its rows as they were read and as they are changing.

mod reserve;
mod transfer;

use std::collections::{BTreeMap, HashSet};

use doorstep_event::{Epoch, Event, EventId, Sequence, Source, StreamKey};
use doorstep_store::{
    DeferredEvent, EntityKey, EntityRow, ExpectedVersion, OwnerRow, PrunedTo, ReadSet, Result,
    SourceOwner, StoreError, StreamRow, StreamState,
};
use hashbrown::HashTable;

use super::{
    decoded_event::DecodedEvent,
    epochs::{KnownEpochs, are_same},
};
use crate::Role;

/// A stream in this batch.
pub(super) struct StreamSlot<F> {
    hash: u64,
    pub(super) key: StreamKey,
    /// The version that was read.
    expect: ExpectedVersion,
    /// The number of events that were deferred when it was read.
    deferred: u64,
    /// The row with this batch's changes.
    pub(super) after: StreamState,
    /// Set if the row has to be written, even if only its version rises because an event is deferred.
    pub(super) dirty: bool,
    /// Set if deferred rows change with this batch. Then the stream must not stay in the cache.
    pub(super) deferred_dirty: bool,
    /// Deferred events that come next, by sequence: read with the stream or deferred earlier in this batch.
    pub(super) waiting: BTreeMap<Sequence, Waiting<F>>,
    /// Sequences at which events are deferred, in the store or in this batch, with their ids.
    pub(super) deferred_ids: BTreeMap<Sequence, EventIdentity>,
}

/// The marks by which the event at a sequence is told from another one.
pub(super) struct EventIdentity {
    id: EventId,
    epoch: Option<Epoch>,
}

impl EventIdentity {
    pub(super) fn from_event(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            epoch: event.epoch,
        }
    }

    /// Returns whether that event is this one.
    pub(super) fn is_of(&self, event: &Event) -> bool {
        self.id == event.id && are_same(self.epoch, event.epoch)
    }
}

/// A deferred event that comes next.
pub(super) enum Waiting<F> {
    /// Read from the store.
    Loaded(Box<(DecodedEvent<F>, RowHandles)>),
    /// Delivered with this batch, at this index.
    InBatch(usize),
}

/// An entity in this batch.
pub(super) struct EntitySlot<S> {
    hash: u64,
    key: EntityKey,
    expect: ExpectedVersion,
    pub(super) state: Option<S>,
    pub(super) written: bool,
    /// Set if the commit depends on it. An absent entity that only a rejected command has read is not created.
    needed: bool,
}

/// The owner of a source in this batch.
pub(super) struct OwnerSlot {
    hash: u64,
    source: Source,
    /// The row that was read.
    row: OwnerRow,
    /// The new owner, if it changes.
    after: Option<SourceOwner>,
}

/// Handles to an item's rows, looked up once when they are reserved.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowHandles {
    stream: Option<usize>,
    /// The owner of a delivery's source.
    owner: Option<usize>,
    /// The first of the item's entities in [`WorkingSet::claimed_entities`].
    first_entity: usize,
    entities: usize,
}

/// All rows of this batch.
pub(super) struct WorkingSet<R: Role> {
    /// Those of the items, in their order.
    claims: Vec<RowHandles>,
    /// Those of the commands, in their order.
    command_claims: Vec<RowHandles>,
    streams: Vec<StreamSlot<R::Payload>>,
    stream_of: HashTable<usize>,
    owners: Vec<OwnerSlot>,
    owner_of: HashTable<usize>,
    entities: Vec<EntitySlot<R::State>>,
    entity_of: HashTable<usize>,
    claimed_entities: Vec<usize>,
    /// The slots that are being read, in the order of the [`ReadSet`].
    asked_streams: Vec<usize>,
    asked_owners: Vec<usize>,
    asked_entities: Vec<usize>,
    seen: HashSet<(Source, EventId)>,
    /// The times up to which seen ids and replies were pruned.
    pub(super) pruned_to: PrunedTo,
    pub(super) epochs: KnownEpochs,
    loaded_deferred: Vec<DeferredEvent>,
}

pub(super) fn is_empty(ask: &ReadSet) -> bool {
    ask.streams.is_empty()
        && ask.owners.is_empty()
        && ask.entities.is_empty()
        && ask.seen.is_empty()
        && ask.deferred_at.is_empty()
        && ask.emitted_sequences.is_empty()
        && ask.replies.is_empty()
        && ask.epochs.is_empty()
        && ask.leases.is_empty()
}

impl<R: Role> WorkingSet<R> {
    pub(super) fn take_loaded_deferred(&mut self) -> Vec<DeferredEvent> {
        std::mem::take(&mut self.loaded_deferred)
    }

    /// Queues the deferred events that come next at their streams.
    pub(super) fn queue_deferred(&mut self, deferred: Vec<(DecodedEvent<R::Payload>, RowHandles)>) {
        for (prepared, claim) in deferred {
            if let Some(event) = prepared.decoded.event()
                && let Some(sequence) = event.sequence
                && let Some(slot) = self.stream(claim)
            {
                slot.deferred_ids
                    .insert(sequence, EventIdentity::from_event(event));
                slot.waiting
                    .insert(sequence, Waiting::Loaded(Box::new((prepared, claim))));
            }
        }
    }

    /// Returns the handles of the item at this index of the batch.
    pub(super) fn handles_of(&self, index: usize) -> RowHandles {
        self.claims[index]
    }

    /// Returns the handles of the command at this index.
    pub(super) fn handles_of_command(&self, index: usize) -> RowHandles {
        self.command_claims[index]
    }

    /// Makes the commit depend on these entities.
    pub(super) fn require_unchanged(&mut self, claim: RowHandles) {
        for number in 0..claim.entities {
            if let Some(slot) = self.entity(claim, number) {
                slot.needed = true;
            }
        }
    }

    /// Returns the stream of an item, if it has a position in one.
    pub(super) fn stream(&mut self, claim: RowHandles) -> Option<&mut StreamSlot<R::Payload>> {
        self.streams.get_mut(claim.stream?)
    }

    /// Returns whether an event at or below the cursor of its stream is the one that was applied there, as far as epochs tell.
    pub(super) fn is_same(&self, claim: RowHandles, event: &Event, sequence: Sequence) -> bool {
        let (Some(epoch), Some(slot)) = (event.epoch, claim.stream) else {
            return true;
        };
        let stream = &self.streams[slot].after;
        self.epochs.is_same(&event.source, stream, sequence, epoch)
    }

    /// Returns the owner of a delivery's source.
    pub(super) fn owner(&mut self, claim: RowHandles) -> Option<&mut OwnerSlot> {
        self.owners.get_mut(claim.owner?)
    }

    /// Returns the entities of an item, in the order of its keys.
    pub(super) fn entities(
        &self,
        claim: RowHandles,
    ) -> impl Iterator<Item = &EntitySlot<R::State>> {
        self.claimed_entities
            .iter()
            .skip(claim.first_entity)
            .take(claim.entities)
            .map(|slot| &self.entities[*slot])
    }

    /// Returns one of the entities of an item, counted from 0.
    pub(super) fn entity(
        &mut self,
        claim: RowHandles,
        number: usize,
    ) -> Option<&mut EntitySlot<R::State>> {
        let slot = *self.claimed_entities.get(claim.first_entity + number)?;
        self.entities.get_mut(slot)
    }

    /// Marks an id as seen. Returns whether it had been seen before, in the store or in this batch.
    pub(super) fn see(&mut self, id: &(Source, EventId)) -> bool {
        !self.seen.insert(id.clone())
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut StreamSlot<R::Payload>> {
        self.streams.iter_mut()
    }
}

/// Reads a state.
///
/// # Errors
/// It cannot be read as this role's type: the store was written by another version.
pub(crate) fn state_of<S: serde::de::DeserializeOwned>(row: &EntityRow) -> Result<Option<S>> {
    let Some(bytes) = &row.state else {
        return Ok(None);
    };
    let state = serde_json::from_slice(bytes).map_err(|e| StoreError::Unusable {
        store: row.key.to_string(),
        detail: format!(
            "the state of {} was written by another version of this role ({e}): run the version that wrote it, \
             or move the store away and publish the events again",
            row.key
        ),
    })?;
    Ok(Some(state))
}

impl OwnerSlot {
    /// Returns the owner with this batch's changes.
    pub(super) fn owner(&self) -> Option<&SourceOwner> {
        self.after.as_ref().or(self.row.owner.as_ref())
    }

    pub(super) fn record(&mut self, owner: SourceOwner) {
        self.after = Some(owner);
    }
}

impl<F> StreamSlot<F> {
    fn fill(&mut self, row: StreamRow) {
        self.expect = ExpectedVersion {
            row: row.row,
            version: row.version,
        };
        self.deferred = row.deferred;
        self.after = StreamState {
            cursor: row.cursor,
            last_id: row.last_id,
            blocked: row.blocked,
            epoch: row.epoch,
        };
    }

    /// Returns the sequence that is next.
    pub(super) fn next(&self) -> u64 {
        self.after.cursor + 1
    }

    /// Returns the event deferred at a sequence, in the store or in this batch.
    pub(super) fn deferred_at(&self, sequence: Sequence) -> Option<&EventIdentity> {
        self.deferred_ids.get(&sequence)
    }
}

impl<S> EntitySlot<S> {
    /// Returns whether the commit checks it. It always checks an existing row: one from the cache may have changed
    /// meanwhile.
    fn is_checked(&self) -> bool {
        (self.needed || self.expect.row.is_some()) && !self.is_removed()
    }

    /// Returns whether the commit removes its row.
    fn is_removed(&self) -> bool {
        self.written && self.state.is_none() && self.expect.row.is_some()
    }
}

impl<S: serde::Serialize + serde::de::DeserializeOwned> EntitySlot<S> {
    fn fill(&mut self, row: &EntityRow) -> Result<()> {
        self.expect = ExpectedVersion {
            row: row.row,
            version: row.version,
        };
        self.state = state_of(row)?;
        Ok(())
    }

    /// Returns the new state in JSON, if there is one.
    fn after(&self) -> Result<Option<Vec<u8>>> {
        match &self.state {
            Some(state) if self.written => {
                let state = serde_json::to_vec(state).map_err(|e| StoreError::Unusable {
                    store: self.key.to_string(),
                    detail: format!("the state of {} has no form in JSON: {e}", self.key),
                })?;
                Ok(Some(state))
            }
            _ => Ok(None),
        }
    }
}
