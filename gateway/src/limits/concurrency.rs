//! The bounds on requests under way: of all, of probes, and of one user.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::keyed_semaphore::KeyedSemaphore;
use crate::domain::UserName;

/// What whoever watches over the process asks. They have places of their own: a gateway that is full is not dead.
pub(crate) const PROBE_PATHS: [&str; 2] = ["/livez", "/readyz"];
/// How many of these may be under way; they wait for no body and for nobody else.
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
    /// So many at a time.
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

/// What users have under way, at a gateway with so many places.
pub(crate) fn user_concurrency(most_requests: usize) -> KeyedSemaphore<UserName> {
    KeyedSemaphore::new((most_requests / SHARE).max(MIN_REQUESTS))
}
