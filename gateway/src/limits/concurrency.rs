//! The limits of requests in flight: of all, of health probes, and of each user.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::keyed_semaphore::KeyedSemaphore;
use crate::domain::UserName;

/// Paths of health probes. They have permits of their own: a gateway at its limit is still alive.
pub(crate) const PROBE_PATHS: [&str; 2] = ["/livez", "/readyz"];
/// Limit of probes in flight; they read no body and call no other role.
const MAX_PROBES: usize = 64;
/// The divisor of the limit of one user: an eighth of all permits, and eight at least.
const SHARE: usize = 8;
const MIN_REQUESTS: usize = 8;

/// The permits of requests in flight.
#[derive(Debug, Clone)]
pub(crate) struct ConcurrencyLimit {
    all: Arc<Semaphore>,
    watched: Arc<Semaphore>,
}

impl ConcurrencyLimit {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most)),
            watched: Arc::new(Semaphore::new(MAX_PROBES)),
        }
    }

    pub(crate) fn for_route(&self, route: &str) -> &Semaphore {
        if PROBE_PATHS.contains(&route) {
            &self.watched
        } else {
            &self.all
        }
    }
}

/// Creates the per-user limits of a gateway with this many permits.
pub(crate) fn user_concurrency(most_requests: usize) -> KeyedSemaphore<UserName> {
    KeyedSemaphore::new((most_requests / SHARE).max(MIN_REQUESTS))
}
