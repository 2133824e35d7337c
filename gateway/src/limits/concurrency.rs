//! The bounds on requests under way: of all, of probes, and of one user.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::keyed_semaphore::KeyedSemaphore;
use crate::domain::UserName;

/// Paths of health probes. They have permits of their own: a gateway that is full is not dead.
pub(crate) const PROBE_PATHS: [&str; 2] = ["/livez", "/readyz"];
/// Limit of probes in flight; they read no body and call no other role.
const MAX_PROBES: usize = 64;
/// One user has no more requests under way than one in so many of all places, and this many at least.
const SHARE: usize = 8;
const MIN_REQUESTS: usize = 8;

/// The requests under way.
#[derive(Debug, Clone)]
pub(crate) struct ConcurrencyLimit {
    all: Arc<Semaphore>,
    watched: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    /// Creates a limit of so many requests.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most)),
            watched: Arc::new(Semaphore::new(MAX_PROBES)),
        }
    }

    pub(crate) fn of(&self, route: &str) -> &Semaphore {
        if PROBE_PATHS.contains(&route) {
            &self.watched
        } else {
            &self.all
        }
    }
}

/// Creates the limits of users, for a gateway with so many permits.
pub(crate) fn user_concurrency(most_requests: usize) -> KeyedSemaphore<UserName> {
    KeyedSemaphore::new((most_requests / SHARE).max(MIN_REQUESTS))
}
