//! Things that are numbered in the order they come and leave in almost the same order: found by number in no time.

use std::collections::VecDeque;

/// Numbered things. What is taken from the middle leaves a hole until everything before it is gone too.
#[derive(Debug)]
pub(super) struct SequenceMap<T> {
    first: u64,
    slots: VecDeque<Option<T>>,
    held: usize,
}

impl<T> SequenceMap<T> {
    pub(super) fn new() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            held: 0,
        }
    }

    /// Puts a thing at the end and returns its number.
    pub(super) fn push(&mut self, thing: T) -> u64 {
        let number = self.next_number();
        self.slots.push_back(Some(thing));
        self.held += 1;
        number
    }

    /// The number that the next thing will have.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The lowest number that may still be held.
    pub(super) fn first_number(&self) -> u64 {
        self.first
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)?.as_mut()
    }

    pub(super) fn take(&mut self, number: u64) -> Option<T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let thing = self.slots.get_mut(index)?.take()?;
        self.held -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(thing)
    }

    /// The oldest thing: holes never stay in front.
    pub(super) fn oldest(&self) -> Option<&T> {
        self.slots.front()?.as_ref()
    }

    pub(super) fn take_oldest(&mut self) -> Option<T> {
        self.take(self.first)
    }

    pub(super) fn each(&mut self, change: impl FnMut(&mut T)) {
        self.slots.iter_mut().flatten().for_each(change);
    }

    pub(super) fn len(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_by_number_whatever_order_they_leave_in() {
        let mut ring = SequenceMap::new();
        let numbers: Vec<_> = ["a", "b", "c"].map(|t| ring.push(t)).into();
        assert_eq!(ring.take(numbers[1]), Some("b"));
        assert_eq!(ring.take(numbers[1]), None);
        assert_eq!(ring.oldest(), Some(&"a"));
        assert_eq!(ring.take_oldest(), Some("a"));
        assert_eq!(ring.first_number(), 2);
        assert_eq!(ring.get_mut(2), Some(&mut "c"));
        assert_eq!(ring.push("d"), 3);
        assert_eq!(ring.len(), 2);
        assert_eq!(ring.take(99), None);
    }
}
