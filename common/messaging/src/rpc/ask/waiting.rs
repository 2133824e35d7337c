//! Who waits for which reply.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::RequestKind;
use tokio::{sync::oneshot, time::Instant};

use crate::rpc::error::AskError;

/// The requests that are under way, by number. Numbers are used once in the life of a requester, so a reply that comes late finds
/// nobody rather than somebody else.
pub(super) struct Waiting {
    /// Tells the requests of this requester from those of others.
    requester: String,
    open: Mutex<HashMap<u64, Waiter>>,
}

/// Somebody who waits.
pub(super) struct Waiter {
    pub(super) role: Box<str>,
    pub(super) act: RequestKind,
    pub(super) since: Instant,
    pub(super) done: oneshot::Sender<Result<Bytes, AskError>>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            requester: format!("{:016x}", rand::random::<u64>()),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// How a request's messages are marked.
    pub(super) fn correlation(&self, number: u64) -> String {
        format!("{}-{number}", self.requester)
    }

    /// Which request that mark is of, if it is one of ours.
    pub(super) fn number(&self, correlation: &str) -> Option<u64> {
        let number = correlation.strip_prefix(&self.requester)?;
        number.strip_prefix('-')?.parse().ok()
    }

    pub(super) fn put(&self, number: u64, waiter: Waiter) {
        self.lock().insert(number, waiter);
    }

    pub(super) fn take(&self, number: u64) -> Option<Waiter> {
        self.lock().remove(&number)
    }

    /// Ends a request. Returns whether anybody waited for it.
    pub(super) fn end(&self, number: u64, answer: Result<Bytes, AskError>) -> bool {
        // Whoever has gone away this very moment does not want to know.
        self.take(number)
            .is_some_and(|waiter| waiter.done.send(answer).is_ok())
    }

    /// Ends all requests.
    pub(super) fn end_all(&self, error: &AskError) {
        self.end_those(error, |_| true);
    }

    /// Ends all requests to this role.
    pub(super) fn end_role(&self, role: &str, error: &AskError) {
        self.end_those(error, |waiter| *waiter.role == *role);
    }

    /// Ends all queries to this role.
    pub(super) fn end_queries(&self, role: &str, error: &AskError) {
        self.end_those(error, |waiter| {
            *waiter.role == *role && waiter.act == RequestKind::Query
        });
    }

    fn end_those(&self, error: &AskError, which: impl Fn(&Waiter) -> bool) {
        let ended: Vec<Waiter> = self
            .lock()
            .extract_if(|_, waiter| which(waiter))
            .map(|(_, waiter)| waiter)
            .collect();
        for waiter in ended {
            let _ = waiter.done.send(Err(error.clone()));
        }
    }

    /// The roles that have let somebody wait for so long.
    pub(super) fn slow_roles(&self, age: Duration) -> BTreeSet<Box<str>> {
        let now = Instant::now();
        self.lock()
            .values()
            .filter(|waiter| now.saturating_duration_since(waiter.since) >= age)
            .map(|waiter| waiter.role.clone())
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_those_of_others_are_not() {
        let waiting = Waiting::new();
        assert_eq!(waiting.number(&waiting.correlation(7)), Some(7));
        assert_eq!(waiting.number(&Waiting::new().correlation(7)), None);
        assert_eq!(waiting.number(""), None);
    }
}
