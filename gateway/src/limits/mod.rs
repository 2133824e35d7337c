//! Every limit of the gateway: connections, requests in flight, rates, login attempts, and the capacity of the store.

mod admission;
mod concurrency;
mod connections;
mod keyed_semaphore;
mod known_networks;
mod login_throttle;
mod name_queue;
mod network;
mod rate_limiter;

pub(crate) use admission::{Admission, AdmissionControl};
pub(crate) use concurrency::{ConcurrencyLimit, PROBE_PATHS, user_concurrency};
pub(crate) use connections::ConnectionLimits;
pub(crate) use keyed_semaphore::{KeyedPermit, KeyedSemaphore};
pub(crate) use login_throttle::{LoginAttempt, LoginThrottle};
pub(crate) use rate_limiter::RateLimiter;
