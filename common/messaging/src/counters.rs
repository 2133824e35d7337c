//! Counters that are cheap enough to be always on, for status pages and metrics. Counters only grow; gauges are marked as such.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Declares counters once: as atomics to write, and as a plain struct of their values. `elsewhere` lists values that only the plain struct
/// has.
macro_rules! counters {
    (
        $(#[$doc:meta])* $totals:ident from $counters:ident;
        counts { $($(#[$count_doc:meta])* $count:ident,)* }
        instants { $($(#[$instant_doc:meta])* $instant:ident,)* }
        elsewhere { $($(#[$other_doc:meta])* $other:ident: $type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $totals {
            $($(#[$count_doc])* pub $count: u64,)*
            $($(#[$instant_doc])* pub $instant: Option<std::time::Instant>,)*
            $($(#[$other_doc])* pub $other: $type,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct $counters {
            $(pub(crate) $count: $crate::counters::Count,)*
            $(pub(crate) $instant: $crate::counters::AtomicInstant,)*
        }

        impl $counters {
            /// Returns the values. Each is exact, but they are not read at one instant.
            pub(crate) fn totals(&self) -> $totals {
                $totals {
                    $($count: self.$count.get(),)*
                    $($instant: self.$instant.get(),)*
                    $($other: Default::default(),)*
                }
            }
        }
    };
}
pub(crate) use counters;

/// A number that other threads may read while it is written.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds to the number. Returns its previous value.
    pub(crate) fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed)
    }

    pub(crate) fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// An instant that other threads may read while it is written: nanoseconds since [`BASE`], plus 1, so that 0 means none.
#[derive(Debug, Default)]
pub(crate) struct AtomicInstant(AtomicU64);

static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

impl AtomicInstant {
    pub(crate) fn set(&self, at: Option<Instant>) {
        let value = at.map_or(0, |at| {
            let passed = at.saturating_duration_since(*BASE).as_nanos();
            u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
        });
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<Instant> {
        let passed = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(*BASE + Duration::from_nanos(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_round_trips() {
        let base = *BASE;
        let instant = AtomicInstant::default();
        assert_eq!(instant.get(), None);
        for at in [base, base + Duration::from_millis(7)] {
            instant.set(Some(at));
            assert_eq!(instant.get(), Some(at));
        }
        instant.set(None);
        assert_eq!(instant.get(), None);
    }
}
