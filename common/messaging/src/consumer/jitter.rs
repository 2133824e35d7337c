//! Spreads what every process does again and again.

use std::time::Duration;

use rand::RngExt;

/// Returns a time from three to five quarters of this one, so that processes that started together do not ask together.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.75..=1.25))
}
