//! How long to wait before trying again: full jitter, bounded, and the only place in this crate that sleeps.

use std::time::Duration;

use rand::RngExt;

/// A validated backoff: the n-th wait is a random time between nothing and `initial * 2^n`, at most `most`.
///
/// Full jitter, because after a broker's restart everyone comes back at once, and whoever waits the same time comes back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    most: Duration,
}

/// What is wrong with a backoff's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// Without a first wait the retries would spin.
    #[error("a backoff's first wait is zero, give it at least a millisecond")]
    Zero,
    /// The upper bound is below the first wait.
    #[error("a backoff's longest wait {most:?} is shorter than its first {initial:?}")]
    Inverted {
        /// The first wait.
        initial: Duration,
        /// The longest wait.
        most: Duration,
    },
}

impl Backoff {
    /// A backoff whose waits start at up to `initial` and double up to `most`.
    ///
    /// # Errors
    /// The first wait is below a millisecond, or the longest is shorter than the first.
    pub const fn new(initial: Duration, most: Duration) -> Result<Self, BackoffError> {
        if initial.as_millis() == 0 {
            return Err(BackoffError::Zero);
        }
        if most.as_millis() < initial.as_millis() {
            return Err(BackoffError::Inverted { initial, most });
        }
        Ok(Self { initial, most })
    }

    /// The longest that the wait after this many failures in a row may be.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        self.initial
            .saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX))
            .min(self.most)
    }

    /// From 20 ms up to 1 s: for asking again while somebody waits.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            initial: Duration::from_millis(20),
            most: Duration::from_secs(1),
        }
    }

    /// Waits. Cancel-safe: dropping it ends the wait and nothing else.
    pub(crate) async fn wait(&self, failures: u32) {
        self.wait_after(Duration::ZERO, failures).await;
    }

    /// Waits so long, and then as [`wait`](Self::wait) does. Cancel-safe like it.
    pub(crate) async fn wait_after(&self, at_least: Duration, failures: u32) {
        let ceiling = self.ceiling(failures).as_micros().min(u128::from(u64::MAX)) as u64;
        let pause = rand::rng().random_range(0..=ceiling);
        tokio::time::sleep(at_least + Duration::from_micros(pause)).await;
    }
}

impl Default for Backoff {
    /// From 200 ms up to 10 s: quick enough to be back before anyone looks, slow enough not to be a burden on a broker that starts.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            most: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
        let ceilings: Vec<_> = (0..6).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused() {
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::from_secs(1)),
            Err(BackoffError::Zero)
        );
        assert!(Backoff::new(Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }
}
