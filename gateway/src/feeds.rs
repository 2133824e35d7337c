//! Live feeds: their limits, and the notifications that wake them before their next poll.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use doorstep_contracts::InvoiceNo;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    domain::UserName,
    http::Problem,
    limits::{KeyedPermit, KeyedSemaphore},
};

/// The limit of feeds: each polls its order again and again.
const MAX_FEEDS: usize = 512;
/// The limit of feeds of one user.
const MAX_FEEDS_PER_USER: usize = 8;
/// The `Retry-After` when the feeds are at a limit.
const RETRY_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct OrderFeeds {
    room: Arc<Semaphore>,
    by_user: KeyedSemaphore<UserName>,
    notifiers: Notifiers,
    stopping: watch::Receiver<bool>,
}

/// The notifiers of the open feeds, by order.
type Notifiers = Arc<Mutex<HashMap<InvoiceNo, Notifier>>>;

/// The notification that the feeds of one order wait for, and their number.
#[derive(Debug, Default)]
struct Notifier {
    rings: Arc<Notify>,
    feeds: usize,
}

/// A permit for one feed, released when it is dropped.
#[derive(Debug)]
pub(crate) struct FeedPermit {
    order: InvoiceNo,
    rings: Arc<Notify>,
    notifiers: Notifiers,
    stopping: watch::Receiver<bool>,
    _share: KeyedPermit<UserName>,
    _place: OwnedSemaphorePermit,
}

/// The reason why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeedEvent {
    /// Something may have happened to the order.
    News,
    /// The time is over.
    Time,
    /// The gateway is to stop.
    Stop,
}

impl OrderFeeds {
    /// Creates the feeds, which end when `stopping` turns true.
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(MAX_FEEDS)),
            by_user: KeyedSemaphore::new(MAX_FEEDS_PER_USER),
            notifiers: Arc::default(),
            stopping,
        }
    }

    /// Acquires a permit for a feed of this order to this user.
    ///
    /// # Errors
    /// The gateway or the user has too many feeds.
    pub(crate) fn enter(&self, order: &InvoiceNo, user: &UserName) -> Result<FeedPermit, Problem> {
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "there are too many live feeds", RETRY_AFTER)
        })?;
        let share = self.by_user.take(user.clone()).ok_or_else(|| {
            let detail = "you have as many live feeds as a user may have, close one first";
            Problem::too_many(detail, RETRY_AFTER)
        })?;
        let mut notifiers = lock(&self.notifiers);
        let bell = notifiers.entry(order.clone()).or_default();
        bell.feeds += 1;
        Ok(FeedPermit {
            order: order.clone(),
            rings: Arc::clone(&bell.rings),
            notifiers: Arc::clone(&self.notifiers),
            stopping: self.stopping.clone(),
            _share: share,
            _place: place,
        })
    }

    /// Wakes the feeds of this order.
    pub(crate) fn notify(&self, order: &InvoiceNo) {
        if let Some(bell) = lock(&self.notifiers).get(order) {
            bell.rings.notify_waiters();
        }
    }
}

impl FeedPermit {
    /// Waits for a notification, at most for this time. Cancel-safe.
    pub(crate) async fn wait(&mut self, most: Duration) -> FeedEvent {
        // A dropped arm has consumed nothing; the next poll makes up for a missed notification.
        tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => FeedEvent::Stop,
            rung = tokio::time::timeout(most, self.rings.notified()) => match rung {
                Ok(()) => FeedEvent::News,
                Err(_) => FeedEvent::Time,
            },
        }
    }
}

impl Drop for FeedPermit {
    fn drop(&mut self) {
        let mut notifiers = lock(&self.notifiers);
        if let Some(bell) = notifiers.get_mut(&self.order) {
            bell.feeds -= 1;
            if bell.feeds == 0 {
                notifiers.remove(&self.order);
            }
        }
    }
}

fn lock(notifiers: &Notifiers) -> MutexGuard<'_, HashMap<InvoiceNo, Notifier>> {
    notifiers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn feed_gets_its_order_and_the_stop() {
        let (stop, stopping) = watch::channel(false);
        let feeds = OrderFeeds::new(stopping);
        let [one, two] = ["1", "2"].map(|number| InvoiceNo::new(number).unwrap());
        let mut seat = feeds.enter(&one, &user("ada")).unwrap();
        let long = Duration::from_secs(60);
        let ring = async {
            tokio::task::yield_now().await;
            feeds.notify(&two);
            feeds.notify(&one);
        };
        let (woken, ()) = tokio::join!(seat.wait(long), ring);
        assert_eq!(woken, FeedEvent::News);
        assert_eq!(seat.wait(Duration::ZERO).await, FeedEvent::Time);
        stop.send_replace(true);
        assert_eq!(seat.wait(long).await, FeedEvent::Stop);
        drop(seat);
        assert!(lock(&feeds.notifiers).is_empty() && feeds.by_user.is_empty());
    }

    #[tokio::test]
    async fn there_are_no_more_feeds_than_the_bound() {
        let feeds = OrderFeeds::new(watch::channel(false).1);
        let order = InvoiceNo::new("1").unwrap();
        let enter = |n: usize| feeds.enter(&order, &user(&n.to_string()));
        let seats: Vec<FeedPermit> = (0..MAX_FEEDS).map(|n| enter(n).unwrap()).collect();
        let rejected = enter(MAX_FEEDS).unwrap_err();
        assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(seats);
        assert!(enter(MAX_FEEDS).is_ok());
    }

    #[tokio::test]
    async fn one_user_leaves_feeds_to_others() {
        let feeds = OrderFeeds::new(watch::channel(false).1);
        let order = InvoiceNo::new("1").unwrap();
        let ada = || feeds.enter(&order, &user("ada"));
        let mut seats: Vec<FeedPermit> = (0..MAX_FEEDS_PER_USER).map(|_| ada().unwrap()).collect();
        let rejected = ada().unwrap_err();
        assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(feeds.enter(&order, &user("bob")).is_ok());
        drop(seats.pop());
        assert!(ada().is_ok());
    }
}
