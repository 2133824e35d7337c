//! The rows that one batch works on: as they were read, and as they are becoming.

use std::collections::{BTreeMap, HashMap, HashSet};

use doorstep_event::{EventId, Sequence, Source, StreamKey};
use doorstep_store::{
    Ask, EntityChange, EntityKey, Expect, HeldRow, Loaded, StoreError, StreamChange, StreamRow,
    StreamState, Written,
};

use super::{
    memory::{KnownEntity, Memory},
    plan::{Item, Prepared},
};
use crate::Role;

/// A stream in this batch.
pub(super) struct StreamSlot<F> {
    /// As it was read.
    pub(super) row: StreamRow,
    /// As it is becoming.
    pub(super) after: StreamState,
    /// Whether anything is to be written, be it only that the version rises because something is held.
    pub(super) touched: bool,
    /// Held events that will be next, by sequence: read with the stream, or held earlier in this very batch.
    pub(super) waiting: BTreeMap<Sequence, Waiting<F>>,
    /// Places at which something is held, in the store or in this batch, with the ids there.
    pub(super) places: HashMap<Sequence, EventId>,
    /// Held rows change with this batch, so what is known of them is not to be remembered.
    pub(super) held_changes: bool,
}

impl<F> StreamSlot<F> {
    /// The sequence that is next.
    pub(super) fn next(&self) -> u64 {
        self.after.cursor + 1
    }

    /// The id of what is held at a place, in the store or in this batch.
    pub(super) fn held_at(&self, sequence: Sequence) -> Option<&EventId> {
        self.places.get(&sequence)
    }
}

/// A held event that will be next.
pub(super) enum Waiting<F> {
    /// It was read from the store.
    Loaded(Box<Prepared<F>>),
    /// It came with this batch, at this place in it.
    InBatch(usize),
}

/// An entity in this batch.
pub(super) struct EntitySlot<S> {
    pub(super) key: EntityKey,
    pub(super) expect: Expect,
    pub(super) state: Option<S>,
    pub(super) written: bool,
}

/// All rows of this batch.
pub(super) struct Slots<R: Role> {
    streams: Vec<StreamSlot<R::Fact>>,
    stream_of: HashMap<StreamKey, usize>,
    entities: Vec<EntitySlot<R::State>>,
    entity_of: HashMap<EntityKey, usize>,
    seen: HashSet<(Source, EventId)>,
    loaded_held: Vec<HeldRow>,
}

pub(super) fn is_empty(ask: &Ask) -> bool {
    ask.streams.is_empty()
        && ask.entities.is_empty()
        && ask.seen.is_empty()
        && ask.held_at.is_empty()
        && ask.outgoing.is_empty()
}

impl<R: Role> Slots<R> {
    pub(super) fn new() -> Self {
        Self {
            streams: Vec::new(),
            stream_of: HashMap::new(),
            entities: Vec::new(),
            entity_of: HashMap::new(),
            seen: HashSet::new(),
            loaded_held: Vec::new(),
        }
    }

    /// Makes room for the rows that an item touches: from memory, or by asking for them.
    pub(super) fn claim(
        &mut self,
        item: &Prepared<R::Fact>,
        memory: &mut Memory<R::State>,
        ask: &mut Ask,
    ) {
        if let Some(id) = item.seen_id() {
            ask.seen.push(id);
        }
        if let Item::Event { event, .. } = &item.item
            && event.sequence.is_some()
        {
            let key = event.stream();
            if !self.stream_of.contains_key(&key) {
                self.stream_of.insert(key.clone(), self.streams.len());
                let row = memory.take_stream(&key).unwrap_or_else(|| {
                    ask.streams.push(key.clone());
                    absent_stream(key)
                });
                self.streams.push(StreamSlot::of(row));
            }
        }
        self.claim_entities(item, memory, ask);
    }

    /// Makes room for the entities that an item touches.
    pub(super) fn claim_entities(
        &mut self,
        item: &Prepared<R::Fact>,
        memory: &mut Memory<R::State>,
        ask: &mut Ask,
    ) {
        for key in item.keys() {
            if self.entity_of.contains_key(key) {
                continue;
            }
            self.entity_of.insert(key.clone(), self.entities.len());
            let known = memory.take_entity(key).unwrap_or_else(|| {
                ask.entities.push(key.clone());
                KnownEntity {
                    expect: Expect {
                        row: None,
                        version: 0,
                    },
                    state: None,
                }
            });
            self.entities.push(EntitySlot {
                key: key.clone(),
                expect: known.expect,
                state: known.state,
                written: false,
            });
        }
    }

    /// Asks for the ids at places of streams that hold something: they tell a duplicate from a numbering conflict.
    pub(super) fn ask_places(&mut self, items: &[Prepared<R::Fact>], ask: &mut Ask) {
        for item in items {
            if let Item::Event { event, .. } = &item.item
                && let Some(sequence) = event.sequence
                && let Some(&slot) = self.stream_of.get(&event.stream())
                && self.streams[slot].row.held > 0
            {
                ask.held_at.push((event.stream(), sequence));
            }
        }
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// A state cannot be read as this role's type: the store was written by another version.
    pub(super) fn fill(&mut self, ask: &Ask, loaded: Loaded) -> Result<(), StoreError> {
        for row in loaded.streams {
            if let Some(&slot) = self.stream_of.get(&row.key) {
                self.streams[slot] = StreamSlot::of(row);
            }
        }
        for row in loaded.entities {
            if let Some(&slot) = self.entity_of.get(&row.key) {
                let slot = &mut self.entities[slot];
                slot.expect = Expect {
                    row: row.row,
                    version: row.version,
                };
                slot.state = match &row.state {
                    None => None,
                    Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|e| StoreError::Unusable {
                        store: row.key.to_string(),
                        detail: format!(
                            "the state of {} was written by another version of this role ({e}): run the version that wrote it, \
                             or move the store away and publish the events again",
                            row.key
                        ),
                    })?),
                };
            }
        }
        for ((stream, sequence), id) in ask.held_at.iter().zip(loaded.held_at) {
            if let (Some(&slot), Some(id)) = (self.stream_of.get(stream), id) {
                self.streams[slot].places.insert(*sequence, id);
            }
        }
        for (id, seen) in ask.seen.iter().zip(loaded.seen) {
            if seen {
                self.seen.insert(id.clone());
            }
        }
        self.loaded_held.extend(loaded.held);
        Ok(())
    }

    pub(super) fn take_loaded_held(&mut self) -> Vec<HeldRow> {
        std::mem::take(&mut self.loaded_held)
    }

    /// Puts what is held next beside its stream.
    pub(super) fn queue_held(&mut self, held: Vec<Prepared<R::Fact>>) {
        for prepared in held {
            if let Item::Event { event, .. } = &prepared.item
                && let Some(sequence) = event.sequence
                && let Some(&slot) = self.stream_of.get(&event.stream())
            {
                let slot = &mut self.streams[slot];
                slot.places.insert(sequence, event.id.clone());
                slot.waiting
                    .insert(sequence, Waiting::Loaded(Box::new(prepared)));
            }
        }
    }

    pub(super) fn stream(&mut self, key: &StreamKey) -> Option<&mut StreamSlot<R::Fact>> {
        let slot = *self.stream_of.get(key)?;
        self.streams.get_mut(slot)
    }

    pub(super) fn entity(&mut self, key: &EntityKey) -> Option<&mut EntitySlot<R::State>> {
        let slot = *self.entity_of.get(key)?;
        self.entities.get_mut(slot)
    }

    /// Marks an id as seen. Returns whether it had been seen before, be it in this batch.
    pub(super) fn see(&mut self, id: &(Source, EventId)) -> bool {
        !self.seen.insert(id.clone())
    }

    /// Every row that was read, as a change: what was only read is checked all the same.
    ///
    /// # Errors
    /// A state cannot be written as JSON.
    pub(super) fn changes(&self) -> Result<(Vec<StreamChange>, Vec<EntityChange>), StoreError> {
        let streams = self
            .streams
            .iter()
            .map(|slot| StreamChange {
                key: slot.row.key.clone(),
                expect: Expect {
                    row: slot.row.row,
                    version: slot.row.version,
                },
                after: slot.touched.then(|| slot.after.clone()),
            })
            .collect();
        let entities = self
            .entities
            .iter()
            .map(|slot| {
                let after = match &slot.state {
                    Some(state) if slot.written => {
                        Some(serde_json::to_vec(state).map_err(|e| StoreError::Unusable {
                            store: slot.key.to_string(),
                            detail: format!("the state of {} has no form in JSON: {e}", slot.key),
                        })?)
                    }
                    _ => None,
                };
                Ok(EntityChange {
                    key: slot.key.clone(),
                    expect: slot.expect,
                    after,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok((streams, entities))
    }

    /// The streams of this batch.
    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut StreamSlot<R::Fact>> {
        self.streams.iter_mut()
    }

    /// Remembers the rows as they stand after the commit.
    pub(super) fn remember(self, written: &Written, memory: &mut Memory<R::State>) {
        for (slot, now) in self.streams.into_iter().zip(&written.streams) {
            // How many events a stream holds is counted by the store; where that may have changed it is to be read again.
            if slot.held_changes || slot.row.held > 0 || slot.after.blocked.is_some() {
                continue;
            }
            memory.put_stream(StreamRow {
                key: slot.row.key,
                row: now.row,
                version: now.version,
                cursor: slot.after.cursor,
                last_id: slot.after.last_id,
                blocked: None,
                held: 0,
            });
        }
        for (slot, now) in self.entities.into_iter().zip(&written.entities) {
            memory.put_entity(
                slot.key,
                KnownEntity {
                    expect: *now,
                    state: slot.state,
                },
            );
        }
    }
}

impl<F> StreamSlot<F> {
    fn of(row: StreamRow) -> Self {
        Self {
            after: StreamState {
                cursor: row.cursor,
                last_id: row.last_id.clone(),
                blocked: row.blocked.clone(),
            },
            row,
            touched: false,
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            held_changes: false,
        }
    }
}

fn absent_stream(key: StreamKey) -> StreamRow {
    StreamRow {
        key,
        row: None,
        version: 0,
        cursor: 0,
        last_id: None,
        blocked: None,
        held: 0,
    }
}
