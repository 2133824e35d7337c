//! Spreads the periodic work of many processes.

use std::time::Duration;

use rand::RngExt;

/// Returns 75 to 125 % of the interval, so that processes that started together do not poll together.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.75..=1.25))
}
