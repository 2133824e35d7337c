//! Messages handed to lapin and not yet written.
//!
//! lapin writes the messages of one task on one channel in order, so only the oldest needs a waker: one wake-up for many messages. The
//! future that hands a message over is large, so it is pinned in a reused slot rather than allocated each time.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use lapin::PublisherConfirm;

type Slot<F> = Pin<Box<Option<F>>>;

/// Messages handed over, in order; `F` completes when its message is written.
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

    /// Hands a message over, entirely on the first poll: since only one task calls this, numbers and frames stay in step. Returns the
    /// result if it is known at once, because handing over failed or the message was written immediately.
    pub(super) fn push(
        &mut self,
        number: u64,
        publish: F,
    ) -> Option<lapin::Result<PublisherConfirm>> {
        let mut slot = self.spare.pop().unwrap_or_else(|| Box::pin(None));
        slot.as_mut().set(Some(publish));
        // Needs no wake-up: the oldest is polled again with a real waker.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(written) = slot.as_mut().as_pin_mut()?.poll(&mut context) {
            self.recycle(slot);
            return Some(written);
        }
        self.queue.push_back((number, slot));
        None
    }

    /// Takes the oldest message if it is written; otherwise the context's waker is woken when it is.
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
            self.recycle(slot);
        }
        Some((number, written))
    }

    fn recycle(&mut self, mut slot: Slot<F>) {
        slot.as_mut().set(None);
        self.spare.push(slot);
    }
}
