//! Parsed requests that are not handed out yet. The producer of requests bounds their number.

use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::locked::Locked;

/// A queue generic over requests, so that it can be tested without a connection.
#[derive(Debug)]
pub(super) struct RequestBuffer<A> {
    state: Locked<State<A>>,
    arrived: Notify,
}

#[derive(Debug)]
struct State<A> {
    requests: VecDeque<A>,
    is_closed: bool,
}

impl<A> RequestBuffer<A> {
    pub(super) fn new() -> Self {
        Self {
            state: Locked::new(State {
                requests: VecDeque::new(),
                is_closed: false,
            }),
            arrived: Notify::new(),
        }
    }

    /// Adds a request. Returns it if the inbox is closed.
    pub(super) fn put(&self, request: A) -> Option<A> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(request);
        }
        state.requests.push_back(request);
        drop(state);
        self.arrived.notify_one();
        None
    }

    /// Waits for a request; `None` once the inbox is closed. Cancel-safe.
    pub(super) async fn next(&self) -> Option<A> {
        loop {
            // A notification before the wait is kept.
            let arrived = self.arrived.notified();
            {
                let mut state = self.state.lock();
                if let Some(request) = state.requests.pop_front() {
                    // Several notifications merge into one, so the woken task passes it on.
                    if !state.requests.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Some(request);
                }
                if state.is_closed {
                    // Wakes the next waiting task.
                    self.arrived.notify_one();
                    return None;
                }
            }
            arrived.await;
        }
    }

    pub(super) fn take_all(&self) -> VecDeque<A> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// Closes the inbox and returns the remaining requests.
    pub(super) fn close(&self) -> VecDeque<A> {
        self.state.lock().is_closed = true;
        self.arrived.notify_one();
        self.take_all()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_woken_task_wakes_the_next() {
        let inbox = RequestBuffer::new();
        // Both found the inbox empty but do not wait yet: two notifications reach them as one.
        let (first, second) = (inbox.arrived.notified(), inbox.arrived.notified());
        inbox.put(1);
        inbox.put(2);
        first.await;
        assert_eq!(inbox.next().await, Some(1));
        assert_eq!(
            second.now_or_never(),
            Some(()),
            "the second task was not woken"
        );
        assert_eq!(inbox.next().await, Some(2));
        assert_eq!(inbox.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn closing_wakes_all_waiting_tasks() {
        let inbox = RequestBuffer::new();
        inbox.put(1);
        assert_eq!(inbox.close(), [1]);
        assert_eq!((inbox.next().await, inbox.next().await), (None, None));
        assert_eq!(inbox.put(2), Some(2));
    }
}
