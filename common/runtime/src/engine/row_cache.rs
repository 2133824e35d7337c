//! The cache of rows between batches: a busy role reads only new rows from its store.
//!
//! Caching is safe because every commit checks the version of every row that it depends on: a row that another process
//! has changed causes a conflict and is read afresh. A batch takes its rows out and puts them back once its commit is
//! written; any other end leaves them out of the cache.

use std::hash::BuildHasher;

use doorstep_event::{Event, EventId, Source, StreamKey, Subject};
use doorstep_store::{EntityKey, ExpectedVersion, OwnerRow, StreamEpoch};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::epochs::KnownEpochs;

/// A cached stream: only one that is not blocked and has no deferred events.
pub(super) struct CachedStream {
    pub(super) key: StreamKey,
    pub(super) expect: ExpectedVersion,
    pub(super) cursor: u64,
    pub(super) last_id: Option<EventId>,
    pub(super) epoch: Option<StreamEpoch>,
}

/// The cached owner of a source.
pub(super) struct CachedOwner {
    pub(super) source: Source,
    pub(super) row: OwnerRow,
}

/// A cached entity, with its state decoded into the role's own type.
pub(super) struct CachedEntity<S> {
    pub(super) key: EntityKey,
    pub(super) expect: ExpectedVersion,
    pub(super) state: Option<S>,
}

pub(super) struct RowCache<S> {
    hasher: DefaultHashBuilder,
    streams: TwoGenerationCache<CachedStream>,
    entities: TwoGenerationCache<CachedEntity<S>>,
    pub(super) epochs: KnownEpochs,
    owners: TwoGenerationCache<CachedOwner>,
}

impl<S> RowCache<S> {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            streams: TwoGenerationCache::new(rows),
            entities: TwoGenerationCache::new(rows),
            epochs: KnownEpochs::default(),
            owners: TwoGenerationCache::new(rows),
        }
    }

    /// Hashes the subject alone: two sources hardly ever share one, and then the keys are compared.
    pub(super) fn hash_of_stream(&self, subject: &Subject) -> u64 {
        self.hasher.hash_one(subject.as_str())
    }

    pub(super) fn hash_of_entity(&self, key: &EntityKey) -> u64 {
        self.hasher.hash_one(key.as_str())
    }

    pub(super) fn hash_of_source(&self, source: &Source) -> u64 {
        self.hasher.hash_one(source.as_str())
    }

    pub(super) fn take_owner(&mut self, hash: u64, source: &Source) -> Option<CachedOwner> {
        self.owners.take(hash, |known| known.source == *source)
    }

    pub(super) fn put_owner(&mut self, hash: u64, known: CachedOwner) {
        self.owners.put(hash, known);
    }

    pub(super) fn take_stream(&mut self, hash: u64, event: &Event) -> Option<CachedStream> {
        self.streams.take(hash, |known| is_of(event, &known.key))
    }

    pub(super) fn take_entity(&mut self, hash: u64, key: &EntityKey) -> Option<CachedEntity<S>> {
        self.entities.take(hash, |known| known.key == *key)
    }

    pub(super) fn put_stream(&mut self, hash: u64, known: CachedStream) {
        self.streams.put(hash, known);
    }

    pub(super) fn put_entity(&mut self, hash: u64, known: CachedEntity<S>) {
        self.entities.put(hash, known);
    }
}

/// Returns whether an event is of this stream.
pub(super) fn is_of(event: &Event, stream: &StreamKey) -> bool {
    event.subject == stream.subject && event.source == stream.source
}

/// A cache of two generations. When the younger one is full, the older one is dropped as a whole, so no order of use
/// has to be kept.
struct TwoGenerationCache<T> {
    half: usize,
    younger: HashTable<(u64, T)>,
    older: HashTable<(u64, T)>,
}

impl<T> TwoGenerationCache<T> {
    fn new(room: usize) -> Self {
        Self {
            half: room.div_ceil(2).max(1),
            younger: HashTable::new(),
            older: HashTable::new(),
        }
    }

    fn take(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<T> {
        [&mut self.younger, &mut self.older]
            .into_iter()
            .find_map(|half| {
                half.find_entry(hash, |(h, thing)| *h == hash && is(thing))
                    .ok()
            })
            .map(|found| found.remove().0.1)
    }

    /// Adds an entry that is not there yet.
    fn put(&mut self, hash: u64, thing: T) {
        if self.younger.len() >= self.half {
            std::mem::swap(&mut self.younger, &mut self.older);
            self.younger.clear();
        }
        self.younger
            .insert_unique(hash, (hash, thing), |(hash, _)| *hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_put_back_in_time_stay_cached() {
        let mut recent = TwoGenerationCache::new(4);
        for number in 0..100_u64 {
            recent.put(number, number);
            // Of two entries with one hash, each is found by its own key.
            recent.put(number, number + 1_000);
            assert_eq!(recent.take(number, |n| *n == number), Some(number));
            recent.put(number, number);
        }
        assert_eq!(recent.take(99, |n| *n == 1_099), Some(1_099));
        assert_eq!(recent.take(99, |n| *n == 1_099), None);
        assert_eq!(recent.take(1, |_| true), None);
        assert!(recent.younger.len() + recent.older.len() <= 4);
    }
}
