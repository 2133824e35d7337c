//! Retry delays with full jitter and a bound. Only this module of the crate sleeps.

use std::time::Duration;

use rand::RngExt;

/// A validated exponential backoff: the n-th delay is random between zero and `initial * 2^n`, at max `max`.
///
/// Full jitter, because after a broker's restart all clients reconnect at once, and equal delays would keep them synchronized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
}

/// Invalid bounds of a backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// Without an initial delay, retries would spin.
    #[error("the initial delay is below a millisecond: set at least 1ms")]
    Zero,
    #[error("the maximum delay {max:?} is below the initial delay {initial:?}: raise it")]
    Inverted { initial: Duration, max: Duration },
}

impl Backoff {
    /// Creates a backoff whose delays start at up to `initial` and double up to `max`.
    ///
    /// # Errors
    /// Fails if `initial` is below a millisecond, or `max` is below `initial`.
    pub const fn new(initial: Duration, max: Duration) -> Result<Self, BackoffError> {
        if initial.as_millis() == 0 {
            return Err(BackoffError::Zero);
        }
        if max.as_millis() < initial.as_millis() {
            return Err(BackoffError::Inverted { initial, max });
        }
        Ok(Self { initial, max })
    }

    /// Returns the maximum delay after this many consecutive failures.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        self.initial
            .saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX))
            .min(self.max)
    }

    /// From 20 ms up to 1 s: for retries while a caller waits.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            initial: Duration::from_millis(20),
            max: Duration::from_secs(1),
        }
    }

    /// Waits. Cancel-safe.
    pub(crate) async fn wait(&self, failures: u32) {
        self.wait_after(Duration::ZERO, failures).await;
    }

    /// Waits `at_least`, then as [`wait`](Self::wait) does. Cancel-safe.
    pub(crate) async fn wait_after(&self, at_least: Duration, failures: u32) {
        let ceiling = self.ceiling(failures).as_micros().min(u128::from(u64::MAX)) as u64;
        let pause = rand::rng().random_range(0..=ceiling);
        tokio::time::sleep(at_least + Duration::from_micros(pause)).await;
    }
}

impl Default for Backoff {
    /// From 200 ms up to 10 s: reconnects quickly, without burdening a starting broker.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
        let ceilings: Vec<_> = (0..6).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn invalid_bounds_are_rejected() {
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::from_secs(1)),
            Err(BackoffError::Zero)
        );
        assert!(Backoff::new(Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }
}
