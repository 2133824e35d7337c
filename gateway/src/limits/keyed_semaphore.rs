//! How much of something each may have at a time: counted by holder, and given back when it is dropped.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Shares by holder. Who holds nothing is not remembered, so there are no more holders than there are shares.
#[derive(Debug)]
pub(crate) struct KeyedSemaphore<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// A share, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyedPermit<K: Hash + Eq> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Clone> KeyedSemaphore<K> {
    /// At most so many for each.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most,
        }
    }

    /// One more for this holder; `None` where it has as many as one may have.
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
    fn each_has_so_many_and_no_more_whatever_others_have() {
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
        assert!(shares.held.lock().unwrap().is_empty());
    }
}
