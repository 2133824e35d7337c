//! What lies between the client and whoever answers: requests that were read and not handed out. Bounded by whoever puts in.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::asked::Asked;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Asked>,
    is_closed: bool,
}

impl Inbox {
    /// Puts a request in. Once the inbox is closed, it gives the request back.
    pub(super) fn put(&self, asked: Asked) -> Option<Asked> {
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
    pub(super) async fn next(&self) -> Option<Asked> {
        loop {
            // A word that comes before it is waited for is kept.
            let came = self.came.notified();
            {
                let mut state = self.lock();
                if let Some(asked) = state.requests.pop_front() {
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
    pub(super) fn take_all(&self) -> VecDeque<Asked> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Takes nothing more in, and returns what is left.
    pub(super) fn close(&self) -> VecDeque<Asked> {
        self.lock().is_closed = true;
        self.came.notify_one();
        self.take_all()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
