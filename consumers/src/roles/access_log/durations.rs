//! A mergeable sketch of durations: counts by the buckets of an HDR histogram with two significant digits.
//!
//! Only buckets with a count are stored, so a minute of few requests is a few numbers. The sketch of an hour is the
//! sum of its minutes' and equals the one of all its durations. A quantile differs from the exact one by at most 1 %.

use std::sync::LazyLock;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest duration that is told apart, in microseconds: one hour.
const MAX_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 2;

/// The layout of the buckets.
static EMPTY: LazyLock<Histogram<u64>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, MAX_US, SIGNIFICANT_DIGITS).expect("the bounds are valid")
});

/// Counts by the lowest duration of each bucket in microseconds, sorted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Durations(Vec<(u64, u64)>);

impl Durations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a duration in microseconds. One beyond an hour counts as an hour.
    pub(super) fn record(&mut self, duration_us: u64) {
        self.add(EMPTY.lowest_equivalent(duration_us.clamp(1, MAX_US)), 1);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(*bucket, *count);
        }
    }

    fn add(&mut self, bucket: u64, count: u64) {
        match self.0.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(index) => self.0[index].1 = self.0[index].1.saturating_add(count),
            Err(index) => self.0.insert(index, (bucket, count)),
        }
    }

    /// Returns the durations in microseconds at these quantiles, each from 0 to 1; `None` if nothing was recorded.
    pub(super) fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> Option<[u64; N]> {
        if self.is_empty() {
            return None;
        }
        let mut histogram = EMPTY.clone();
        for (bucket, count) in &self.0 {
            // A store that was edited by hand may have a value out of bounds.
            histogram.saturating_record_n(*bucket, *count);
        }
        Some(quantiles.map(|quantile| histogram.value_at_quantile(quantile)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(durations: &[u64]) -> Durations {
        let mut sketch = Durations::default();
        for duration in durations {
            sketch.record(*duration);
        }
        sketch
    }

    proptest! {
        #[test]
        fn merged_sketches_equal_the_sketch_of_all(
            first in prop::collection::vec(0_u64..10_000_000_000, 0..50),
            second in prop::collection::vec(0_u64..10_000_000_000, 0..50),
        ) {
            let mut merged = sketch(&first);
            merged.merge(&sketch(&second));
            prop_assert_eq!(merged, sketch(&[first, second].concat()));
        }

        #[test]
        fn quantiles_are_within_one_percent(mut durations in prop::collection::vec(1_u64..MAX_US, 1..200)) {
            let quantiles = [0.0, 0.5, 0.99, 1.0];
            let found = sketch(&durations).quantiles(quantiles).unwrap();
            durations.sort_unstable();
            for (quantile, found) in quantiles.into_iter().zip(found) {
                let rank = (quantile * durations.len() as f64).ceil() as usize;
                let exact = durations[rank.max(1) - 1] as f64;
                prop_assert!((found as f64 - exact).abs() <= exact / 100.0 + 1.0, "{quantile}: {found}, not {exact}");
            }
        }
    }

    #[test]
    fn extreme_durations_count_at_the_bounds() {
        let [low, high] = sketch(&[0, u64::MAX]).quantiles([0.5, 1.0]).unwrap();
        assert_eq!(low, 1);
        assert!(high.abs_diff(MAX_US) <= MAX_US / 100, "{high}");
        assert_eq!(sketch(&[]).quantiles([0.5]), None);
    }

    #[test]
    fn buckets_are_stored_sparsely() {
        let json = serde_json::to_string(&sketch(&[1_850, 1_851, 20])).unwrap();
        assert_eq!(json, "[[20,1],[1848,2]]");
    }
}
