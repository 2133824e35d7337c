//! What lies between the client and whoever answers: requests that were read and not handed out. Bounded by whoever puts in.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Requests of this type, so that it can be tried without a connection.
#[derive(Debug)]
pub(super) struct Inbox<A> {
    state: Mutex<State<A>>,
    came: Notify,
}

#[derive(Debug)]
struct State<A> {
    requests: VecDeque<A>,
    is_closed: bool,
}

impl<A> Inbox<A> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                requests: VecDeque::new(),
                is_closed: false,
            }),
            came: Notify::new(),
        }
    }

    /// Puts a request in. Once the inbox is closed, it gives the request back.
    pub(super) fn put(&self, asked: A) -> Option<A> {
        let mut state = self.lock();
        if state.is_closed {
            return Some(asked);
        }
        state.requests.push_back(asked);
        drop(state);
        self.came.notify_one();
        None
    }

    /// Waits for a request; `None` once the inbox is closed. Cancel-safe.
    pub(super) async fn next(&self) -> Option<A> {
        loop {
            // A word that comes before it is waited for is kept.
            let came = self.came.notified();
            {
                let mut state = self.lock();
                if let Some(asked) = state.requests.pop_front() {
                    // Words that nobody waits for become one, so whoever was woken by it passes it on.
                    if !state.requests.is_empty() {
                        self.came.notify_one();
                    }
                    return Some(asked);
                }
                if state.is_closed {
                    // For the next who waits.
                    self.came.notify_one();
                    return None;
                }
            }
            came.await;
        }
    }

    /// Takes all that is there.
    pub(super) fn take_all(&self) -> VecDeque<A> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Takes nothing more in, and returns what is left.
    pub(super) fn close(&self) -> VecDeque<A> {
        self.lock().is_closed = true;
        self.came.notify_one();
        self.take_all()
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_takes_one_of_many_passes_the_word_on() {
        let inbox = Inbox::new();
        // Two have seen that nothing is there and do not wait yet: of two words they find one.
        let (first, second) = (inbox.came.notified(), inbox.came.notified());
        inbox.put(1);
        inbox.put(2);
        first.await;
        assert_eq!(inbox.next().await, Some(1));
        assert_eq!(second.now_or_never(), Some(()), "one was forgotten");
        assert_eq!(inbox.next().await, Some(2));
        assert_eq!(inbox.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn everybody_hears_that_it_is_closed() {
        let inbox = Inbox::new();
        inbox.put(1);
        assert_eq!(inbox.close(), [1]);
        assert_eq!((inbox.next().await, inbox.next().await), (None, None));
        assert_eq!(inbox.put(2), Some(2));
    }
}
