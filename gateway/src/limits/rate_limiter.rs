//! A token bucket per key.
//!
//! The governor crate cannot give tokens back, as a correct password does.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The limit of buckets. Beyond it, the fullest half is forgotten. A forgotten caller starts with a full bucket, and a
/// caller with an empty bucket is not forgotten because others come.
const CALLERS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// Creates a limiter of this rate and burst for each key.
    pub(crate) fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            buckets: Mutex::default(),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The bucket is empty; contains the time until the next token.
    pub(crate) fn acquire(&self, caller: K, now: Instant) -> Result<(), Duration> {
        self.acquire_inner(caller, now, 1.0, 1.0, 1.0)
    }

    /// Takes `more` tokens, for a request that has taken one and turns out to be large.
    ///
    /// Half a burst is enough for any request; the rest is a debt that the bucket refills first.
    ///
    /// # Errors
    /// There are too few tokens; contains the time until there are enough for a retry, which takes one more.
    pub(crate) fn acquire_n(&self, caller: K, more: f64, now: Instant) -> Result<(), Duration> {
        let least = more.min(self.burst / 2.0);
        self.acquire_inner(caller, now, more, least, least + 1.0)
    }

    /// Returns one token to a bucket.
    pub(crate) fn give_back(&self, caller: &K, now: Instant) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // A forgotten bucket counts as full.
        if let Some(bucket) = buckets.get_mut(caller) {
            bucket.tokens = (self.filled(*bucket, now) + 1.0).min(self.burst);
            bucket.at = now;
        }
    }

    /// Takes `taken` tokens if the bucket holds at least `least`; otherwise returns the time until it holds `awaited`.
    fn acquire_inner(
        &self,
        caller: K,
        now: Instant,
        taken: f64,
        least: f64,
        awaited: f64,
    ) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLERS && !buckets.contains_key(&caller) {
            self.forget_fuller_half(&mut buckets, now);
        }
        let full = Bucket {
            tokens: self.burst,
            at: now,
        };
        let bucket = buckets.entry(caller).or_insert(full);
        bucket.tokens = self.filled(*bucket, now);
        bucket.at = now;
        if bucket.tokens < least {
            let missing = (awaited - bucket.tokens) / self.per_second;
            return Err(Duration::from_secs_f64(missing));
        }
        bucket.tokens -= taken;
        Ok(())
    }

    fn forget_fuller_half(&self, buckets: &mut HashMap<K, Bucket>, now: Instant) {
        let filled = buckets.values().map(|bucket| self.filled(*bucket, now));
        let mut filled: Vec<f64> = filled.collect();
        let middle = filled.len() / 2;
        let (_, median, _) = filled.select_nth_unstable_by(middle, f64::total_cmp);
        let median = *median;
        buckets.retain(|_, bucket| self.filled(*bucket, now) < median);
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_then_rate_applies() {
        let rate = RateLimiter::new(2.0, 3.0);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(rate.acquire("ada", start), Ok(()));
        }
        assert_eq!(rate.acquire("ada", start), Err(Duration::from_millis(500)));
        assert_eq!(rate.acquire("bob", start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(rate.acquire("ada", later), Ok(()));
        assert!(rate.acquire("ada", later).is_err());
    }

    #[test]
    fn large_requests_take_more_tokens_up_to_burst() {
        let rate = RateLimiter::new(2.0, 8.0);
        let start = Instant::now();
        assert_eq!(rate.acquire("ada", start), Ok(()));
        assert_eq!(rate.acquire_n("ada", 5.0, start), Ok(()));
        assert_eq!(rate.acquire("ada", start), Ok(()));
        // One token is left; a wait makes sense for half a burst and one.
        let wait = rate.acquire_n("ada", 5.0, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(2));
        let later = start + wait;
        assert_eq!(rate.acquire("ada", later), Ok(()));
        // More than a burst: the bucket goes into debt.
        assert_eq!(rate.acquire_n("ada", 50.0, later), Ok(()));
        let wait = rate.acquire("ada", later).unwrap_err();
        assert_eq!(wait, Duration::from_millis(23_500));
        assert_eq!(rate.acquire("ada", later + wait), Ok(()));
    }

    #[test]
    fn empty_buckets_are_not_evicted() {
        let rate = RateLimiter::new(0.001, 2.0);
        let now = Instant::now();
        for _ in 0..2 {
            assert_eq!(rate.acquire(usize::MAX, now), Ok(()));
        }
        for caller in 0..CALLERS * 3 {
            assert_eq!(rate.acquire(caller, now), Ok(()));
        }
        assert!(rate.acquire(usize::MAX, now).is_err());
    }

    #[test]
    fn no_more_callers_are_remembered_than_the_bound() {
        let rate = RateLimiter::new(1.0, 1.0);
        let now = Instant::now();
        for caller in 0..=CALLERS {
            assert_eq!(rate.acquire(caller, now), Ok(()));
        }
        assert!(rate.buckets.lock().unwrap().len() <= CALLERS);
    }
}
