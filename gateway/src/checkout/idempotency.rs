//! The Idempotency-Keys whose first request is in flight.

use std::{sync::Arc, time::Duration};

use doorstep_contracts::CustomerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    http::Problem,
    limits::{KeyedPermit, KeyedSemaphore},
};

/// The `Retry-After` of a second request with such a key.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Key = (CustomerId, String);

/// The keys in flight. Their number is limited, since each stands for an order in checkout.
#[derive(Debug)]
pub(crate) struct InFlightKeys {
    keys: KeyedSemaphore<Key>,
    all: Arc<Semaphore>,
}

/// A guard that removes its key when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard {
    _key: KeyedPermit<Key>,
    _place: OwnedSemaphorePermit,
}

impl InFlightKeys {
    /// Creates a set of at most `most` keys.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            keys: KeyedSemaphore::new(1),
            all: Arc::new(Semaphore::new(most)),
        }
    }

    /// Adds this key.
    ///
    /// # Errors
    /// The key is in flight already, or the set is full.
    pub(crate) fn insert(&self, customer: &CustomerId, key: &str) -> Result<KeyGuard, Problem> {
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            Problem::unavailable("overloaded", "too many orders are in checkout", RETRY_AFTER)
        })?;
        let key = self.keys.take((customer.clone(), key.to_owned()));
        Ok(KeyGuard {
            _key: key.ok_or_else(in_progress)?,
            _place: place,
        })
    }
}

/// Returns the problem of a key whose first request is still in flight.
pub(crate) fn in_progress() -> Problem {
    Problem::conflict(
        "in_progress",
        "a request with this Idempotency-Key is in flight",
    )
    .retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn key_is_in_flight_until_the_response() {
        let in_flight = InFlightKeys::new(2);
        let [ada, bob] = ["ada", "bob"].map(|name| CustomerId::new(name).unwrap());
        let status = |result: Result<KeyGuard, Problem>| result.unwrap_err().status();
        let first = in_flight.insert(&ada, "k").unwrap();
        assert_eq!(status(in_flight.insert(&ada, "k")), StatusCode::CONFLICT);
        let _second = in_flight.insert(&bob, "k").unwrap();
        assert_eq!(
            status(in_flight.insert(&bob, "l")),
            StatusCode::SERVICE_UNAVAILABLE
        );
        drop(first);
        assert!(in_flight.insert(&ada, "k").is_ok());
    }
}
