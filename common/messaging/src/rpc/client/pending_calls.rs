//! Who waits for which reply.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::RequestKind;
use tokio::{sync::oneshot, time::Instant};

use crate::rpc::error::CallError;

/// The requests that are under way, by number. Numbers are used once in the life of a requester, so a reply that comes late finds
/// nobody rather than somebody else.
pub(super) struct PendingCalls {
    /// Tells the requests of this requester from those of others.
    requester: String,
    open: Mutex<HashMap<u64, PendingCall>>,
}

/// Somebody who waits.
pub(super) struct PendingCall {
    pub(super) role: Box<str>,
    pub(super) act: RequestKind,
    pub(super) since: Instant,
    pub(super) done: oneshot::Sender<Result<Bytes, CallError>>,
}

impl PendingCalls {
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

    pub(super) fn insert(&self, number: u64, waiter: PendingCall) {
        self.lock().insert(number, waiter);
    }

    pub(super) fn remove(&self, number: u64) -> Option<PendingCall> {
        self.lock().remove(&number)
    }

    /// Ends a request. Returns whether anybody waited for it.
    pub(super) fn complete(&self, number: u64, answer: Result<Bytes, CallError>) -> bool {
        // Whoever has gone away this very moment does not want to know.
        self.remove(number)
            .is_some_and(|waiter| waiter.done.send(answer).is_ok())
    }

    /// Ends all requests.
    pub(super) fn fail_all(&self, error: &CallError) {
        self.fail_matching(error, |_| true);
    }

    /// Ends all requests to this role.
    pub(super) fn fail_role(&self, role: &str, error: &CallError) {
        self.fail_matching(error, |waiter| *waiter.role == *role);
    }

    /// Ends all queries to this role.
    pub(super) fn fail_queries(&self, role: &str, error: &CallError) {
        self.fail_matching(error, |waiter| {
            *waiter.role == *role && waiter.act == RequestKind::Query
        });
    }

    fn fail_matching(&self, error: &CallError, which: impl Fn(&PendingCall) -> bool) {
        let ended: Vec<PendingCall> = self
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

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, PendingCall>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_those_of_others_are_not() {
        let waiting = PendingCalls::new();
        assert_eq!(waiting.number(&waiting.correlation(7)), Some(7));
        assert_eq!(waiting.number(&PendingCalls::new().correlation(7)), None);
        assert_eq!(waiting.number(""), None);
    }
}
