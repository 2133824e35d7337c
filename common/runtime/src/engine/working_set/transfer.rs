//! Takes in the rows that were read, and gives out the changes and the rows to cache.

use doorstep_store::{
    CommitReceipt, EntityChange, EntityKey, ExpectedVersion, OwnerChange, OwnerRow, ReadResult,
    ReadSet, Result, StreamChange,
};

use super::{EntitySlot, EventIdentity, WorkingSet};
use crate::Role;
use crate::engine::row_cache::{CachedEntity, CachedOwner, CachedStream, RowCache};

impl<R: Role> WorkingSet<R> {
    /// Takes in the rows that were read.
    ///
    /// # Errors
    /// A state cannot be read as this role's type: the store was written by another version.
    pub(in crate::engine) fn fill(
        &mut self,
        ask: &ReadSet,
        loaded: ReadResult,
        memory: &RowCache<R::State>,
    ) -> Result<()> {
        for (slot, row) in self.asked_streams.drain(..).zip(loaded.streams) {
            self.streams[slot].fill(row);
        }
        for (slot, row) in self.asked_entities.drain(..).zip(loaded.entities) {
            self.entities[slot].fill(&row)?;
        }
        for (slot, row) in self.asked_owners.drain(..).zip(loaded.owners) {
            self.owners[slot].row = row;
        }
        for ((stream, sequence), id) in ask.deferred_at.iter().zip(loaded.deferred_at) {
            let hash = memory.hash_of_stream(&stream.subject);
            let slot = self
                .stream_of
                .find(hash, |slot| self.streams[*slot].key == *stream);
            if let (Some(&slot), Some((id, epoch))) = (slot, id) {
                let place = EventIdentity { id, epoch };
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
        self.loaded_deferred.extend(loaded.deferred);
        Ok(())
    }

    /// Returns every row that was read as a change, but for removed ones. A row that was only read is still checked,
    /// unless nothing depends on it.
    ///
    /// # Errors
    /// A state cannot be serialized as JSON.
    pub(in crate::engine) fn changes(&self) -> Result<(Vec<StreamChange>, Vec<EntityChange>)> {
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

    /// Returns the entities that lose their rows.
    pub(in crate::engine) fn removed_entities(&self) -> Vec<(EntityKey, ExpectedVersion)> {
        let removed = self.entities.iter().filter(|slot| slot.is_removed());
        removed
            .map(|slot| (slot.key.clone(), slot.expect))
            .collect()
    }

    /// Returns every owner that was read as a change, so that a concurrent transfer is a conflict.
    pub(in crate::engine) fn owner_changes(&self) -> Vec<OwnerChange> {
        let changes = self.owners.iter().map(|slot| OwnerChange {
            source: slot.source.clone(),
            expect: slot.row.version,
            after: slot.after.clone(),
        });
        changes.collect()
    }

    /// Puts the rows into the cache as they are after the commit.
    pub(in crate::engine) fn remember(
        self,
        written: &CommitReceipt,
        memory: &mut RowCache<R::State>,
    ) {
        memory.epochs = self.epochs;
        for (slot, now) in self.streams.into_iter().zip(&written.streams) {
            // The store counts the deferred events of a stream. If that count may have changed, the stream has to be
            // read again.
            if slot.deferred_dirty || slot.deferred > 0 || slot.after.blocked.is_some() {
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
