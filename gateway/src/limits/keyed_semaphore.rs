//! A semaphore per key: permits are counted by holder, and released when they are dropped.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Permits by holder. A holder without permits has no entry, so there are no more entries than permits.
#[derive(Debug)]
pub(crate) struct KeyedSemaphore<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// A permit of one holder, released when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyedPermit<K: Hash + Eq> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> KeyedSemaphore<K> {
    /// Creates a semaphore with this many permits for each holder.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most,
        }
    }

    /// Acquires a permit for this holder, or returns `None` if the holder is at the limit.
    pub(crate) fn take(&self, holder: K) -> Option<KeyedPermit<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&holder).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        held.insert(holder.clone(), count + 1);
        Some(KeyedPermit {
            holder,
            held: Arc::clone(&self.held),
        })
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.lock().unwrap().is_empty()
    }
}

impl<K: Hash + Eq> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_per_key() {
        let shares = KeyedSemaphore::new(2);
        let first = shares.take("ada").unwrap();
        let _second = shares.take("ada").unwrap();
        assert!(shares.take("ada").is_none());
        assert!(shares.take("bob").is_some());
        drop(first);
        assert!(shares.take("ada").is_some());
    }

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let shares = KeyedSemaphore::new(2);
        drop([1, 2, 2].map(|holder| shares.take(holder).unwrap()));
        assert!(shares.is_empty());
    }
}
