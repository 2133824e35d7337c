//! What the engine remembers of rows between batches, so that a busy role reads its store only for what is new.
//!
//! Remembering is safe because every commit checks the version of every row that it rests on: a row that somebody else has changed
//! meanwhile makes a conflict, and is read afresh. A batch takes its rows out and puts them back when its commit is written; whatever
//! ends differently leaves them forgotten.

use std::num::NonZeroUsize;

use doorstep_event::StreamKey;
use doorstep_store::{EntityKey, Expect, StreamRow};
use lru::LruCache;

/// An entity as the engine works with it: its state read into the role's own type.
pub(super) struct KnownEntity<S> {
    pub(super) expect: Expect,
    pub(super) state: Option<S>,
}

pub(super) struct Memory<S> {
    streams: LruCache<StreamKey, StreamRow>,
    entities: LruCache<EntityKey, KnownEntity<S>>,
}

impl<S> Memory<S> {
    pub(super) fn new(rows: usize) -> Self {
        let rows = NonZeroUsize::new(rows).unwrap_or(NonZeroUsize::MIN);
        Self {
            streams: LruCache::new(rows),
            entities: LruCache::new(rows),
        }
    }

    pub(super) fn take_stream(&mut self, key: &StreamKey) -> Option<StreamRow> {
        self.streams.pop(key)
    }

    pub(super) fn take_entity(&mut self, key: &EntityKey) -> Option<KnownEntity<S>> {
        self.entities.pop(key)
    }

    pub(super) fn put_stream(&mut self, row: StreamRow) {
        self.streams.put(row.key.clone(), row);
    }

    pub(super) fn put_entity(&mut self, key: EntityKey, known: KnownEntity<S>) {
        self.entities.put(key, known);
    }
}
