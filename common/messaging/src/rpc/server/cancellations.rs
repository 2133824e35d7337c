//! Cancellations: a flag for each request in progress, and cancellations that arrived before their request.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::locked::Locked;

/// Maximum cancellations kept for requests that have not arrived. Each server receives all cancellations, also of requests at other
/// servers, so most of these requests never arrive.
const MAX_EARLY_CANCELS: usize = 10_000;

/// A flag that is set when the caller no longer waits. Cheap to clone.
///
/// It is set when the caller cancels, and when the request's connection is lost: then the reply cannot be sent, and the request is
/// redelivered.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<CancelFlag>);

#[derive(Debug, Default)]
struct CancelFlag {
    is_set: AtomicBool,
    notify: Notify,
}

impl Cancelled {
    /// Returns whether the caller no longer waits.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    /// Waits until the caller no longer waits, possibly forever. Cancel-safe.
    pub async fn cancelled(&self) {
        let notified = self.0.notify.notified();
        let mut notified = std::pin::pin!(notified);
        // From here on, no notification is missed.
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    fn set(&self) {
        self.0.is_set.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}

#[derive(Debug, Default)]
pub(super) struct Cancellations(Locked<CancelRegistry>);

#[derive(Debug, Default)]
struct CancelRegistry {
    open: HashMap<String, Cancelled>,
    early: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Cancellations {
    /// Registers a received request and returns its flag; `None` if it was cancelled before.
    pub(super) fn begin(&self, correlation: &str) -> Option<Cancelled> {
        let mut registry = self.0.lock();
        // Its entry in `order` stays, and is removed in its turn.
        if registry.early.remove(correlation) {
            return None;
        }
        let cancelled = Cancelled::default();
        registry
            .open
            .insert(correlation.to_owned(), cancelled.clone());
        Some(cancelled)
    }

    /// Records that a request's caller no longer waits.
    pub(super) fn cancel(&self, correlation: &str) {
        let mut registry = self.0.lock();
        if let Some(cancelled) = registry.open.get(correlation) {
            cancelled.set();
            return;
        }
        let correlation: Arc<str> = correlation.into();
        if registry.early.insert(correlation.clone()) {
            registry.order.push_back(correlation);
        }
        if registry.order.len() > MAX_EARLY_CANCELS
            && let Some(oldest) = registry.order.pop_front()
        {
            registry.early.remove(&oldest);
        }
    }

    /// Cancels all requests, since replies are no longer possible.
    pub(super) fn cancel_all(&self) {
        for cancelled in self.0.lock().open.values() {
            cancelled.set();
        }
    }

    pub(super) fn forget(&self, correlation: &str) {
        self.0.lock().open.remove(correlation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_may_precede_its_request() {
        let cancels = Cancellations::default();
        let early = cancels.begin("a").unwrap();
        cancels.cancel("a");
        assert!(early.is_cancelled());
        cancels.cancel("b");
        assert!(cancels.begin("b").is_none());
        assert!(cancels.begin("c").is_some_and(|c| !c.is_cancelled()));
    }

    #[test]
    fn early_cancellations_are_bounded() {
        let cancels = Cancellations::default();
        for n in 0..MAX_EARLY_CANCELS + 10 {
            cancels.cancel(&n.to_string());
        }
        assert!(cancels.begin("9").is_some());
        assert!(cancels.begin("10").is_none());
        assert_eq!(cancels.0.lock().order.len(), MAX_EARLY_CANCELS);
    }

    #[tokio::test]
    async fn a_waiting_task_is_notified() {
        let cancels = Cancellations::default();
        let cancelled = cancels.begin("a").unwrap();
        let waiting = tokio::spawn({
            let cancelled = cancelled.clone();
            async move { cancelled.cancelled().await }
        });
        cancels.cancel_all();
        waiting.await.unwrap();
        cancelled.cancelled().await;
    }
}
