//! Parsed requests that are not handed out yet. The producer of requests bounds their number.

use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::locked::Locked;

/// A queue generic over requests, so that it can be tested without a connection.
#[derive(Debug)]
pub(super) struct RequestBuffer<A> {
    state: Locked<RequestBufferState<A>>,
    arrived: Notify,
}

#[derive(Debug)]
struct RequestBufferState<A> {
    requests: VecDeque<A>,
    is_closed: bool,
}

impl<A> RequestBuffer<A> {
    pub(super) fn new() -> Self {
        Self {
            state: Locked::new(RequestBufferState {
                requests: VecDeque::new(),
                is_closed: false,
            }),
            arrived: Notify::new(),
        }
    }

    /// Adds a request. Returns it if the buffer is closed.
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

    /// Waits for a request; `None` once the buffer is closed. Cancel-safe.
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

    /// Closes the buffer and returns the remaining requests.
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
        let requests = RequestBuffer::new();
        // Both found the buffer empty but do not wait yet: two notifications reach them as one.
        let (first, second) = (requests.arrived.notified(), requests.arrived.notified());
        requests.put(1);
        requests.put(2);
        first.await;
        assert_eq!(requests.next().await, Some(1));
        assert_eq!(
            second.now_or_never(),
            Some(()),
            "the second task was not woken"
        );
        assert_eq!(requests.next().await, Some(2));
        assert_eq!(requests.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn closing_wakes_all_waiting_tasks() {
        let requests = RequestBuffer::new();
        requests.put(1);
        assert_eq!(requests.close(), [1]);
        assert_eq!((requests.next().await, requests.next().await), (None, None));
        assert_eq!(requests.put(2), Some(2));
    }
}
