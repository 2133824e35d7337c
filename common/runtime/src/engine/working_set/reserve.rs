//! Reserves the rows that a batch touches: from the cache, or by adding them to the read set.

use std::collections::{BTreeMap, HashSet};

use doorstep_event::{Event, Sender, Source};
use doorstep_store::{EntityKey, ExpectedVersion, OwnerRow, PrunedTo, ReadSet, StreamState};
use hashbrown::HashTable;

use super::{EntitySlot, OwnerSlot, RowHandles, StreamSlot, WorkingSet};
use crate::Role;
use crate::engine::{
    command::{PreparedCommand, crash_key},
    decoded_event::{DecodedEvent, Origin},
    row_cache::{CachedEntity, CachedOwner, CachedStream, RowCache, is_of},
};

impl<R: Role> WorkingSet<R> {
    /// Reserves the rows that the items and commands touch. Takes them from the cache or adds them to `ask`.
    pub(in crate::engine) fn reserve(
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
            loaded_deferred: Vec::new(),
        };
        for item in items {
            if let Some(id) = item.seen_id() {
                ask.seen.push(id);
            }
            let stream = match item.decoded.event() {
                Some(event) if event.sequence.is_some() => {
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
            let owner = match (item.decoded.event(), &item.origin) {
                (Some(event), Origin::Delivery(Sender::Anonymous | Sender::User(_))) => {
                    Some(slots.reserve_owner(&event.source, memory, ask))
                }
                _ => None,
            };
            let entities = slots.reserve_entities(item.keys(), stream, memory, ask);
            let claim = RowHandles { owner, ..entities };
            slots.claims.push(claim);
            slots.require_unchanged(claim);
        }
        for command in commands {
            match &command.end {
                Some(end) => ask.leases.push((end.lease.row.id.clone(), end.lease.token)),
                None => {
                    ask.replies.push(command.name());
                    ask.crash_counts.push(crash_key(&command.request));
                }
            }
            let claim = slots.reserve_entities(command.keys(), None, memory, ask);
            slots.command_claims.push(claim);
        }
        slots
    }

    /// Reserves the entities of a deferred event that was read with its stream.
    pub(in crate::engine) fn reserve_deferred(
        &mut self,
        deferred: &DecodedEvent<R::Payload>,
        memory: &mut RowCache<R::State>,
        ask: &mut ReadSet,
    ) -> RowHandles {
        let stream = deferred
            .decoded
            .event()
            .and_then(|event| self.stream_at(memory.hash_of_stream(&event.subject), event));
        let claim = self.reserve_entities(deferred.keys(), stream, memory, ask);
        self.require_unchanged(claim);
        claim
    }

    pub(super) fn reserve_stream(
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
                expect: ExpectedVersion::default(),
                cursor: 0,
                last_id: None,
                epoch: None,
            }
        });
        self.streams.push(StreamSlot {
            hash,
            key: known.key,
            expect: known.expect,
            deferred: 0,
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

    pub(super) fn reserve_owner(
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

    pub(super) fn stream_at(&self, hash: u64, event: &Event) -> Option<usize> {
        self.stream_of
            .find(hash, |slot| is_of(event, &self.streams[*slot].key))
            .copied()
    }

    pub(super) fn reserve_entities(
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

    pub(super) fn reserve_entity(
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
                expect: ExpectedVersion::default(),
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
    pub(in crate::engine) fn ask_places(
        &self,
        items: &[DecodedEvent<R::Payload>],
        ask: &mut ReadSet,
    ) {
        for (item, claim) in items.iter().zip(&self.claims) {
            if let Some(event) = item.decoded.event()
                && let Some(sequence) = event.sequence
                && let Some(slot) = claim.stream
                && self.streams[slot].deferred > 0
            {
                ask.deferred_at.push((event.stream(), sequence));
            }
        }
    }
}
