//! A map with an undo log, so that a commit can be rolled back completely.

use std::{
    collections::{BTreeMap, btree_map},
    ops::RangeBounds,
};

/// A map whose changes since the last [`UndoMap::accept`] can be undone.
#[derive(Debug)]
pub(super) struct UndoMap<K, V> {
    rows: BTreeMap<K, V>,
    before: Vec<(K, Option<V>)>,
}

impl<K, V> Default for UndoMap<K, V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            before: Vec::new(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> UndoMap<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, K, V> {
        self.rows.iter()
    }

    pub(super) fn range(&self, range: impl RangeBounds<K>) -> btree_map::Range<'_, K, V> {
        self.rows.range(range)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Inserts into a free key. Returns false, without a change, if the key is occupied.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if self.rows.contains_key(&key) {
            return false;
        }
        self.put(key, value);
        true
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        let old = self.rows.insert(key.clone(), value);
        self.before.push((key, old));
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.rows.remove(key)?;
        self.before.push((key.clone(), Some(old.clone())));
        Some(old)
    }

    pub(super) fn accept(&mut self) {
        self.before.clear();
    }

    pub(super) fn undo(&mut self) {
        while let Some((key, old)) = self.before.pop() {
            match old {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}
