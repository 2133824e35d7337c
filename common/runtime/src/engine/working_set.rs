//! The unit of work of a batch: its rows as they were read and as they are changing.

use std::collections::{BTreeMap, HashSet};

use doorstep_event::{Epoch, Event, EventId, Sender, Sequence, Source, StreamKey};
use doorstep_store::{
    CommitReceipt, DeferredEvent, EntityChange, EntityKey, EntityRow, ExpectedVersion, OwnerChange,
    OwnerRow, PrunedTo, ReadResult, ReadSet, SourceOwner, StoreError, StreamChange, StreamRow,
    StreamState,
};
use hashbrown::HashTable;

use super::{
    command::{PreparedCommand, crash_key},
    decoded_event::{DecodedEvent, Item, Origin},
    epochs::{KnownEpochs, are_same},
    row_cache::{CachedEntity, CachedOwner, CachedStream, RowCache, is_of},
};
use crate::Role;

/// A stream in this batch.
pub(super) struct StreamSlot<F> {
    hash: u64,
    pub(super) key: StreamKey,
    /// The version that was read.
    expect: ExpectedVersion,
    /// The number of events that were deferred when it was read.
    held: u64,
    /// The row with this batch's changes.
    pub(super) after: StreamState,
    /// Set if the row has to be written, even if only its version rises because an event is deferred.
    pub(super) dirty: bool,
    /// Set if deferred rows change with this batch. Then the stream must not stay in the cache.
    pub(super) deferred_dirty: bool,
    /// Deferred events that come next, by sequence: read with the stream or deferred earlier in this batch.
    pub(super) waiting: BTreeMap<Sequence, Waiting<F>>,
    /// Sequences at which events are deferred, in the store or in this batch, with their ids.
    pub(super) deferred_ids: BTreeMap<Sequence, Place>,
}

/// The marks by which the event at a sequence is told from another one.
pub(super) struct Place {
    id: EventId,
    epoch: Option<Epoch>,
}

impl Place {
    pub(super) fn of(event: &Event) -> Self {
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
    loaded_held: Vec<DeferredEvent>,
}

pub(super) fn is_empty(ask: &ReadSet) -> bool {
    ask.streams.is_empty()
        && ask.owners.is_empty()
        && ask.entities.is_empty()
        && ask.seen.is_empty()
        && ask.held_at.is_empty()
        && ask.outgoing.is_empty()
        && ask.replies.is_empty()
        && ask.epochs.is_empty()
}

impl<R: Role> WorkingSet<R> {
    /// Reserves the rows that the items and commands touch. Takes them from the cache or adds them to `ask`.
    pub(super) fn reserve(
        items: &[DecodedEvent<R::Payload>],
        commands: &[PreparedCommand<R::Command>],
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> Self {
        let mut slots = Self {
            claims: Vec::with_capacity(items.len()),
            command_claims: Vec::with_capacity(commands.len()),
            streams: Vec::with_capacity(items.len()),
            stream_of: HashTable::with_capacity(items.len()),
            owners: Vec::new(),
            owner_of: HashTable::new(),
            entities: Vec::with_capacity(items.len()),
            entity_of: HashTable::with_capacity(items.len()),
            claimed_entities: Vec::with_capacity(items.len()),
            asked_streams: Vec::new(),
            asked_owners: Vec::new(),
            asked_entities: Vec::new(),
            seen: HashSet::new(),
            pruned_to: PrunedTo::default(),
            epochs: std::mem::take(&mut memory.epochs),
            loaded_held: Vec::new(),
        };
        for item in items {
            if let Some(id) = item.seen_id() {
                ask.seen.push(id);
            }
            let stream = match &item.item {
                Item::Event { event, .. } if event.sequence.is_some() => {
                    if let Some(epoch) = event.epoch
                        && !slots.epochs.has(&event.source, epoch)
                        && !ask.epochs.contains(&event.source)
                    {
                        ask.epochs.push(event.source.clone());
                    }
                    Some(slots.reserve_stream(event, memory, ask))
                }
                _ => None,
            };
            let owner = match (&item.item, &item.origin) {
                (
                    Item::Event { event, .. },
                    Origin::Delivery(Sender::Anonymous | Sender::User(_)),
                ) => Some(slots.reserve_owner(&event.source, memory, ask)),
                _ => None,
            };
            let entities = slots.reserve_entities(item.keys(), stream, memory, ask);
            let claim = RowHandles { owner, ..entities };
            slots.claims.push(claim);
            slots.require_unchanged(claim);
        }
        for command in commands {
            ask.replies.push(command.name());
            ask.trials.push(crash_key(&command.request));
            let claim = slots.reserve_entities(command.keys(), None, memory, ask);
            slots.command_claims.push(claim);
        }
        slots
    }

    /// Reserves the entities of a deferred event that was read with its stream.
    pub(super) fn reserve_deferred(
        &mut self,
        held: &DecodedEvent<R::Payload>,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> RowHandles {
        let stream = match &held.item {
            Item::Event { event, .. } => {
                self.stream_at(memory.hash_of_stream(&event.subject), event)
            }
            Item::Unreadable { .. } => None,
        };
        let claim = self.reserve_entities(held.keys(), stream, memory, ask);
        self.require_unchanged(claim);
        claim
    }

    fn reserve_stream(
        &mut self,
        event: &Event,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> usize {
        let hash = memory.hash_of_stream(&event.subject);
        if let Some(slot) = self.stream_at(hash, event) {
            return slot;
        }
        let slot = self.streams.len();
        let known = memory.take_stream(hash, event).unwrap_or_else(|| {
            ask.streams.push(event.stream());
            self.asked_streams.push(slot);
            CachedStream {
                key: event.stream(),
                expect: ABSENT,
                cursor: 0,
                last_id: None,
                epoch: None,
            }
        });
        self.streams.push(StreamSlot {
            hash,
            key: known.key,
            expect: known.expect,
            held: 0,
            after: StreamState {
                cursor: known.cursor,
                last_id: known.last_id,
                blocked: None,
                epoch: known.epoch,
            },
            dirty: false,
            deferred_dirty: false,
            waiting: BTreeMap::new(),
            deferred_ids: BTreeMap::new(),
        });
        let streams = &self.streams;
        self.stream_of
            .insert_unique(hash, slot, |slot| streams[*slot].hash);
        slot
    }

    fn reserve_owner(
        &mut self,
        source: &Source,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> usize {
        // Consecutive events mostly come from one source.
        if let Some(last) = self.claims.last().and_then(|claim| claim.owner)
            && self.owners[last].source == *source
        {
            return last;
        }
        let hash = memory.hash_of_source(source);
        let found = self
            .owner_of
            .find(hash, |slot| self.owners[*slot].source == *source);
        if let Some(slot) = found {
            return *slot;
        }
        let slot = self.owners.len();
        let known = memory.take_owner(hash, source).unwrap_or_else(|| {
            ask.owners.push(source.clone());
            self.asked_owners.push(slot);
            CachedOwner {
                source: source.clone(),
                row: OwnerRow::default(),
            }
        });
        self.owners.push(OwnerSlot {
            hash,
            source: known.source,
            row: known.row,
            after: None,
        });
        let owners = &self.owners;
        self.owner_of
            .insert_unique(hash, slot, |slot| owners[*slot].hash);
        slot
    }

    fn stream_at(&self, hash: u64, event: &Event) -> Option<usize> {
        self.stream_of
            .find(hash, |slot| is_of(event, &self.streams[*slot].key))
            .copied()
    }

    fn reserve_entities(
        &mut self,
        keys: &[EntityKey],
        stream: Option<usize>,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> RowHandles {
        let first_entity = self.claimed_entities.len();
        for key in keys {
            let slot = self.reserve_entity(key, memory, ask);
            self.claimed_entities.push(slot);
        }
        RowHandles {
            stream,
            owner: None,
            first_entity,
            entities: keys.len(),
        }
    }

    fn reserve_entity(
        &mut self,
        key: &EntityKey,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> usize {
        let hash = memory.hash_of_entity(key);
        let found = self
            .entity_of
            .find(hash, |slot| self.entities[*slot].key == *key);
        if let Some(slot) = found {
            return *slot;
        }
        let slot = self.entities.len();
        let known = memory.take_entity(hash, key).unwrap_or_else(|| {
            ask.entities.push(key.clone());
            self.asked_entities.push(slot);
            CachedEntity {
                key: key.clone(),
                expect: ABSENT,
                state: None,
            }
        });
        self.entities.push(EntitySlot {
            hash,
            key: known.key,
            expect: known.expect,
            state: known.state,
            written: false,
            needed: false,
        });
        let entities = &self.entities;
        self.entity_of
            .insert_unique(hash, slot, |slot| entities[*slot].hash);
        slot
    }

    /// Asks for the ids of the events deferred in these streams: they tell a duplicate from a numbering conflict.
    pub(super) fn ask_places(&self, items: &[DecodedEvent<R::Payload>], ask: &mut ReadSet) {
        for (item, claim) in items.iter().zip(&self.claims) {
            if let Item::Event { event, .. } = &item.item
                && let Some(sequence) = event.sequence
                && let Some(slot) = claim.stream
                && self.streams[slot].held > 0
            {
                ask.held_at.push((event.stream(), sequence));
            }
        }
    }

    /// Takes in the rows that were read.
    ///
    /// # Errors
    /// A state cannot be read as this role's type: the store was written by another version.
    pub(super) fn fill(
        &mut self,
        ask: &ReadSet,
        loaded: ReadResult,
        memory: &RowCache<R::State>,
    ) -> Result<(), StoreError> {
        for (slot, row) in self.asked_streams.drain(..).zip(loaded.streams) {
            self.streams[slot].fill(row);
        }
        for (slot, row) in self.asked_entities.drain(..).zip(loaded.entities) {
            self.entities[slot].fill(&row)?;
        }
        for (slot, row) in self.asked_owners.drain(..).zip(loaded.owners) {
            self.owners[slot].row = row;
        }
        for ((stream, sequence), id) in ask.held_at.iter().zip(loaded.held_at) {
            let hash = memory.hash_of_stream(&stream.subject);
            let slot = self
                .stream_of
                .find(hash, |slot| self.streams[*slot].key == *stream);
            if let (Some(&slot), Some((id, epoch))) = (slot, id) {
                let place = Place { id, epoch };
                self.streams[slot].deferred_ids.insert(*sequence, place);
            }
        }
        for (id, seen) in ask.seen.iter().zip(loaded.seen) {
            if seen {
                self.seen.insert(id.clone());
            }
        }
        if !ask.seen.is_empty() || !ask.replies.is_empty() {
            self.pruned_to = loaded.pruned_to;
        }
        for (source, epochs) in ask.epochs.iter().zip(loaded.epochs) {
            self.epochs.fill(source, epochs);
        }
        self.loaded_held.extend(loaded.held);
        Ok(())
    }

    pub(super) fn take_loaded_deferred(&mut self) -> Vec<DeferredEvent> {
        std::mem::take(&mut self.loaded_held)
    }

    /// Queues the deferred events that come next at their streams.
    pub(super) fn queue_deferred(&mut self, held: Vec<(DecodedEvent<R::Payload>, RowHandles)>) {
        for (prepared, claim) in held {
            if let Item::Event { event, .. } = &prepared.item
                && let Some(sequence) = event.sequence
                && let Some(slot) = self.stream(claim)
            {
                slot.deferred_ids.insert(sequence, Place::of(event));
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

    /// Returns every row that was read as a change. A row that was only read is still checked, unless nothing depends
    /// on it.
    ///
    /// # Errors
    /// A state cannot be serialized as JSON.
    pub(super) fn changes(&self) -> Result<(Vec<StreamChange>, Vec<EntityChange>), StoreError> {
        let streams = self
            .streams
            .iter()
            .map(|slot| StreamChange {
                key: slot.key.clone(),
                expect: slot.expect,
                after: slot.dirty.then(|| slot.after.clone()),
            })
            .collect();
        let mut entities = Vec::with_capacity(self.entities.len());
        for slot in self.entities.iter().filter(|slot| slot.is_checked()) {
            entities.push(EntityChange {
                key: slot.key.clone(),
                expect: slot.expect,
                after: slot.after()?,
            });
        }
        Ok((streams, entities))
    }

    /// Returns every owner that was read as a change, so that a concurrent transfer is a conflict.
    pub(super) fn owner_changes(&self) -> Vec<OwnerChange> {
        let changes = self.owners.iter().map(|slot| OwnerChange {
            source: slot.source.clone(),
            expect: slot.row.version,
            after: slot.after.clone(),
        });
        changes.collect()
    }

    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut StreamSlot<R::Payload>> {
        self.streams.iter_mut()
    }

    /// Puts the rows into the cache as they are after the commit.
    pub(super) fn remember(self, written: &CommitReceipt, memory: &mut RowCache<R::State>) {
        memory.epochs = self.epochs;
        for (slot, now) in self.streams.into_iter().zip(&written.streams) {
            // The store counts the deferred events of a stream. If that count may have changed, the stream has to be
            // read again.
            if slot.deferred_dirty || slot.held > 0 || slot.after.blocked.is_some() {
                continue;
            }
            let known = CachedStream {
                key: slot.key,
                expect: *now,
                cursor: slot.after.cursor,
                last_id: slot.after.last_id,
                epoch: slot.after.epoch,
            };
            memory.put_stream(slot.hash, known);
        }
        for slot in self.owners {
            let row = match slot.after {
                None => slot.row,
                Some(owner) => OwnerRow {
                    version: slot.row.version + 1,
                    owner: Some(owner),
                },
            };
            // A source without accepted events has no row in this store.
            if row.owner.is_some() {
                let source = slot.source;
                memory.put_owner(slot.hash, CachedOwner { source, row });
            }
        }
        let checked = self.entities.into_iter().filter(EntitySlot::is_checked);
        for (slot, now) in checked.zip(&written.entities) {
            let known = CachedEntity {
                key: slot.key,
                expect: *now,
                state: slot.state,
            };
            memory.put_entity(slot.hash, known);
        }
    }
}

/// Reads a state.
///
/// # Errors
/// It cannot be read as this role's type: the store was written by another version.
pub(super) fn state_of<S: serde::de::DeserializeOwned>(
    row: &EntityRow,
) -> Result<Option<S>, StoreError> {
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

/// The expectation that a row does not exist.
const ABSENT: ExpectedVersion = ExpectedVersion {
    row: None,
    version: 0,
};

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
        self.held = row.held;
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
    pub(super) fn deferred_at(&self, sequence: Sequence) -> Option<&Place> {
        self.deferred_ids.get(&sequence)
    }
}

impl<S> EntitySlot<S> {
    /// Returns whether the commit checks it. It always checks an existing row: one from the cache may have changed
    /// meanwhile.
    fn is_checked(&self) -> bool {
        self.needed || self.expect.row.is_some()
    }
}

impl<S: serde::Serialize + serde::de::DeserializeOwned> EntitySlot<S> {
    fn fill(&mut self, row: &EntityRow) -> Result<(), StoreError> {
        self.expect = ExpectedVersion {
            row: row.row,
            version: row.version,
        };
        self.state = state_of(row)?;
        Ok(())
    }

    /// Returns the new state in JSON, if there is one.
    fn after(&self) -> Result<Option<Vec<u8>>, StoreError> {
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
