//! A map of consecutively numbered values that leave in almost the same order, with lookup in constant time.

use std::collections::VecDeque;

/// Numbered values. A value taken from the middle leaves a hole until all earlier values are taken.
#[derive(Debug)]
pub(super) struct SequenceMap<T> {
    first: u64,
    slots: VecDeque<Option<T>>,
    len: usize,
}

impl<T> SequenceMap<T> {
    pub(super) fn new() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            len: 0,
        }
    }

    /// Appends a value and returns its number.
    pub(super) fn push(&mut self, value: T) -> u64 {
        let number = self.next_number();
        self.slots.push_back(Some(value));
        self.len += 1;
        number
    }

    /// Returns the number of the next value.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Returns the lowest number that may still be present.
    pub(super) fn first_number(&self) -> u64 {
        self.first
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)?.as_mut()
    }

    pub(super) fn take(&mut self, number: u64) -> Option<T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let value = self.slots.get_mut(index)?.take()?;
        self.len -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(value)
    }

    /// Returns the oldest value. A hole never stays in front.
    pub(super) fn oldest(&self) -> Option<&T> {
        self.slots.front()?.as_ref()
    }

    pub(super) fn take_oldest(&mut self) -> Option<T> {
        self.take(self.first)
    }

    pub(super) fn for_each(&mut self, change: impl FnMut(&mut T)) {
        self.slots.iter_mut().flatten().for_each(change);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_number() {
        let mut map = SequenceMap::new();
        let numbers: Vec<_> = ["a", "b", "c"].map(|t| map.push(t)).into();
        assert_eq!(map.take(numbers[1]), Some("b"));
        assert_eq!(map.take(numbers[1]), None);
        assert_eq!(map.oldest(), Some(&"a"));
        assert_eq!(map.take_oldest(), Some("a"));
        assert_eq!(map.first_number(), 2);
        assert_eq!(map.get_mut(2), Some(&mut "c"));
        assert_eq!(map.push("d"), 3);
        assert_eq!(map.len(), 2);
        assert_eq!(map.take(99), None);
    }
}
