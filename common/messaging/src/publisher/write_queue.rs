//! Messages handed to the client and not written yet.
//!
//! The client writes what one task publishes on one channel in that task's order, so only the oldest needs to be watched: one wake-up
//! for many messages. And what hands a message over is a large future, which is pinned in a place that is used again and again rather
//! than allocated for each.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use lapin::PublisherConfirm;

type Slot<F> = Pin<Box<Option<F>>>;

/// What is handed over, in order; `F` completes when its message is written.
pub(super) struct UnwrittenPublishes<F> {
    queue: VecDeque<(u64, Slot<F>)>,
    spare: Vec<Slot<F>>,
}

impl<F: Future<Output = lapin::Result<PublisherConfirm>>> UnwrittenPublishes<F> {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Hands a message over. The first poll does it, in one go: numbers and frames stay in step because one task alone comes here.
    /// Returns what came of it if that is known already, since it could not be handed over or was written at once.
    pub(super) fn push(
        &mut self,
        number: u64,
        publish: F,
    ) -> Option<lapin::Result<PublisherConfirm>> {
        let mut slot = self.spare.pop().unwrap_or_else(|| Box::pin(None));
        slot.as_mut().set(Some(publish));
        // Nobody need be woken: the oldest is polled again with a waker that counts.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(written) = slot.as_mut().as_pin_mut()?.poll(&mut context) {
            self.put_back(slot);
            return Some(written);
        }
        self.queue.push_back((number, slot));
        None
    }

    /// Takes the oldest message if it has been written; otherwise the context's waker is woken when it is.
    pub(super) fn poll_oldest(
        &mut self,
        context: &mut Context<'_>,
    ) -> Option<(u64, lapin::Result<PublisherConfirm>)> {
        let (number, slot) = self.queue.front_mut()?;
        let number = *number;
        let Poll::Ready(written) = slot.as_mut().as_pin_mut()?.poll(context) else {
            return None;
        };
        if let Some((_, slot)) = self.queue.pop_front() {
            self.put_back(slot);
        }
        Some((number, written))
    }

    fn put_back(&mut self, mut slot: Slot<F>) {
        slot.as_mut().set(None);
        self.spare.push(slot);
    }
}
