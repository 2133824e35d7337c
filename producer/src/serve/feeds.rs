//! Live feeds: how many there may be, and what wakes one before its next look.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use doorstep_contracts::InvoiceNo;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::http::Problem;

/// The most feeds at a time: each asks about its order again and again.
const MOST: usize = 512;
/// When to come again where there is no room.
const COME_AGAIN: Duration = Duration::from_secs(10);

type Bells = Arc<Mutex<HashMap<InvoiceNo, Bell>>>;

/// All feeds.
#[derive(Debug)]
pub(crate) struct Feeds {
    room: Arc<Semaphore>,
    bells: Bells,
    stopping: watch::Receiver<bool>,
}

/// What feeds of one order wait for, and how many of them there are.
#[derive(Debug, Default)]
struct Bell {
    rings: Arc<Notify>,
    feeds: usize,
}

/// A place among the feeds, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    order: InvoiceNo,
    rings: Arc<Notify>,
    bells: Bells,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something may have happened to the order.
    News,
    /// The time is over.
    Time,
    /// The gateway stops.
    Stop,
}

impl Feeds {
    /// Feeds that end when the gateway stops.
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(MOST)),
            bells: Arc::default(),
            stopping,
        }
    }

    /// A place for a feed of this order.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn enter(&self, order: &InvoiceNo) -> Result<Seat, Problem> {
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "there are too many live feeds", COME_AGAIN)
        })?;
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = bells.entry(order.clone()).or_default();
        bell.feeds += 1;
        Ok(Seat {
            order: order.clone(),
            rings: Arc::clone(&bell.rings),
            bells: Arc::clone(&self.bells),
            stopping: self.stopping.clone(),
            _place: place,
        })
    }

    /// Wakes the feeds of this order.
    pub(crate) fn ring(&self, order: &InvoiceNo) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(order) {
            bell.rings.notify_waiters();
        }
    }
}

impl Seat {
    /// Waits for news, at most for so long. Cancel-safe.
    pub(crate) async fn wait(&mut self, most: Duration) -> Woken {
        // Whichever arm is dropped has taken nothing: a ring that is missed is made good by the next look.
        tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => Woken::Stop,
            rung = tokio::time::timeout(most, self.rings.notified()) => match rung {
                Ok(()) => Woken::News,
                Err(_) => Woken::Time,
            },
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get_mut(&self.order) {
            bell.feeds -= 1;
            if bell.feeds == 0 {
                bells.remove(&self.order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_feed_hears_of_its_own_order_and_of_the_stop() {
        let (stop, stopping) = watch::channel(false);
        let feeds = Feeds::new(stopping);
        let [one, two] = ["1", "2"].map(|number| InvoiceNo::new(number).unwrap());
        let mut seat = feeds.enter(&one).unwrap();
        let long = Duration::from_secs(60);
        let ring = async {
            tokio::task::yield_now().await;
            feeds.ring(&two);
            feeds.ring(&one);
        };
        let (woken, ()) = tokio::join!(seat.wait(long), ring);
        assert_eq!(woken, Woken::News);
        assert_eq!(seat.wait(Duration::ZERO).await, Woken::Time);
        stop.send_replace(true);
        assert_eq!(seat.wait(long).await, Woken::Stop);
        drop(seat);
        assert!(feeds.bells.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn there_are_no_more_feeds_than_the_bound() {
        let feeds = Feeds::new(watch::channel(false).1);
        let order = InvoiceNo::new("1").unwrap();
        let seats: Vec<Seat> = (0..MOST).map(|_| feeds.enter(&order).unwrap()).collect();
        let refused = feeds.enter(&order).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(seats);
        assert!(feeds.enter(&order).is_ok());
    }
}
