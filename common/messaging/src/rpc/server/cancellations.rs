//! Who has gone away: a word for each request that is handed out, and the words that came before their request.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// The most words that are kept for requests that have not come. Each server hears of all, also of those that another one has, so
/// most of these requests never come.
const MAX_EARLY_CANCELS: usize = 10_000;

/// Tells whether anybody still waits for a reply. Cheap to clone.
///
/// It is set when who asked went away, and when the connection by which the request came is gone: then the reply cannot be sent, and
/// the request is given out again.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<CancelFlag>);

#[derive(Debug, Default)]
struct CancelFlag {
    is_said: AtomicBool,
    said: Notify,
}

impl Cancelled {
    /// Whether nobody waits any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_said.load(Ordering::Acquire)
    }

    /// Waits until nobody waits any more, for good if somebody always does. Cancel-safe.
    pub async fn cancelled(&self) {
        let said = self.0.said.notified();
        let mut said = std::pin::pin!(said);
        // From here on the word is not missed.
        said.as_mut().enable();
        if !self.is_cancelled() {
            said.await;
        }
    }

    fn set(&self) {
        self.0.is_said.store(true, Ordering::Release);
        self.0.said.notify_waiters();
    }
}

/// The words of one connection.
#[derive(Debug, Default)]
pub(super) struct Cancellations(Mutex<CancelRegistry>);

#[derive(Debug, Default)]
struct CancelRegistry {
    open: HashMap<String, Cancelled>,
    early: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Cancellations {
    /// The word for a request that has come; `None` if it was said before.
    pub(super) fn begin(&self, correlation: &str) -> Option<Cancelled> {
        let mut words = self.lock();
        // Its place in the order is left where it is, and given free in its turn.
        if words.early.remove(correlation) {
            return None;
        }
        let cancelled = Cancelled::default();
        words.open.insert(correlation.to_owned(), cancelled.clone());
        Some(cancelled)
    }

    /// Nobody waits for this one any more.
    pub(super) fn cancel(&self, correlation: &str) {
        let mut words = self.lock();
        if let Some(cancelled) = words.open.get(correlation) {
            cancelled.set();
            return;
        }
        let correlation: Arc<str> = correlation.into();
        if words.early.insert(correlation.clone()) {
            words.order.push_back(correlation);
        }
        if words.order.len() > MAX_EARLY_CANCELS
            && let Some(oldest) = words.order.pop_front()
        {
            words.early.remove(&oldest);
        }
    }

    /// None of them can be answered any more.
    pub(super) fn cancel_all(&self) {
        for cancelled in self.lock().open.values() {
            cancelled.set();
        }
    }

    pub(super) fn forget(&self, correlation: &str) {
        self.lock().open.remove(correlation);
    }

    fn lock(&self) -> MutexGuard<'_, CancelRegistry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_its_request_whichever_comes_first() {
        let cancels = Cancellations::default();
        let early = cancels.begin("a").unwrap();
        cancels.cancel("a");
        assert!(early.is_cancelled());
        cancels.cancel("b");
        assert!(cancels.begin("b").is_none());
        assert!(cancels.begin("c").is_some_and(|c| !c.is_cancelled()));
    }

    #[test]
    fn words_for_requests_that_never_come_are_bounded() {
        let cancels = Cancellations::default();
        for n in 0..MAX_EARLY_CANCELS + 10 {
            cancels.cancel(&n.to_string());
        }
        assert!(cancels.begin("9").is_some());
        assert!(cancels.begin("10").is_none());
        assert_eq!(cancels.lock().order.len(), MAX_EARLY_CANCELS);
    }

    #[tokio::test]
    async fn who_waits_for_the_word_hears_it() {
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
