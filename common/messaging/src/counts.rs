//! What a publisher and a subscription count of themselves: cheap enough to be always on, for status pages and metrics to read.
//!
//! How often a connection was made is in [`ConnectionStatus`](crate::ConnectionStatus). Counts only grow; what is a state of the moment is said to be so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::publisher::PublishOutcome;

/// What a publisher has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherTotals {
    /// Messages that the broker has confirmed.
    pub confirmed: u64,
    /// Messages that came back because no queue wants them.
    pub returned: u64,
    /// Messages that a queue refused.
    pub refused: u64,
    /// Messages that were not confirmed in time.
    pub timed_out: u64,
    /// Messages that met no connection, or lost it before they were confirmed.
    pub disconnected: u64,
    /// Messages that were given up while the broker blocked us.
    pub blocked: u64,
    /// Channels that the broker has closed while their connection stayed.
    pub channels_ended: u64,
    /// Those of them that it has closed over one of their messages: the connection stays in use.
    pub channels_refused: u64,
    /// Messages that are published and not yet confirmed, now.
    pub outstanding: u64,
    /// When the oldest of them was handed to the client.
    pub oldest_outstanding: Option<Instant>,
}

/// What a subscription has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerTotals {
    /// Deliveries that came, those included that came again.
    pub delivered: u64,
    /// Deliveries whose acknowledgement was handed to the client.
    pub settled: u64,
    /// Settlements that came too late for their channel; what they were for comes again.
    pub discarded: u64,
    /// Consumers that the broker has cancelled: their queue was deleted or has lost its leader, or we were too slow.
    pub consumers_cancelled: u64,
    /// Channels that the broker has closed while their connection stayed.
    pub channels_ended: u64,
    /// Deliveries that came by the open channels and are not settled, now.
    pub unsettled: u64,
    /// When the oldest of them came.
    pub oldest_unsettled: Option<Instant>,
    /// When the last delivery came.
    pub last_delivery: Option<Instant>,
    /// When something was last settled.
    pub last_settle: Option<Instant>,
}

/// Reads a publisher's counts, also after the publisher has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PublisherStats(pub(crate) Arc<PublisherCounters>);

impl PublisherStats {
    /// The counts as they are now. Each is right by itself; they are not taken at one instant.
    #[must_use]
    pub fn read(&self) -> PublisherTotals {
        let cells = &self.0;
        PublisherTotals {
            confirmed: cells.confirmed.get(),
            returned: cells.returned.get(),
            refused: cells.refused.get(),
            timed_out: cells.timed_out.get(),
            disconnected: cells.disconnected.get(),
            blocked: cells.blocked.get(),
            channels_ended: cells.channels_ended.get(),
            channels_refused: cells.channels_refused.get(),
            outstanding: cells.outstanding.get(),
            oldest_outstanding: cells.oldest_outstanding.get(cells.base),
        }
    }
}

/// The writing end of a [`PublisherStats`].
#[derive(Debug)]
pub(crate) struct PublisherCounters {
    base: Instant,
    confirmed: Count,
    returned: Count,
    refused: Count,
    timed_out: Count,
    disconnected: Count,
    blocked: Count,
    pub(crate) channels_ended: Count,
    pub(crate) channels_refused: Count,
    outstanding: Count,
    oldest_outstanding: AtomicInstant,
}

impl PublisherCounters {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            base: Instant::now(),
            confirmed: Count::default(),
            returned: Count::default(),
            refused: Count::default(),
            timed_out: Count::default(),
            disconnected: Count::default(),
            blocked: Count::default(),
            channels_ended: Count::default(),
            channels_refused: Count::default(),
            outstanding: Count::default(),
            oldest_outstanding: AtomicInstant::default(),
        })
    }

    pub(crate) fn resolved(&self, outcome: PublishOutcome) {
        let count = match outcome {
            PublishOutcome::Confirmed => &self.confirmed,
            PublishOutcome::Unroutable => &self.returned,
            PublishOutcome::Refused | PublishOutcome::Unpublishable => &self.refused,
            PublishOutcome::TimedOut => &self.timed_out,
            PublishOutcome::Disconnected => &self.disconnected,
            PublishOutcome::Blocked => &self.blocked,
        };
        count.add(1);
    }

    /// Notes how many messages are on their way, and since when the oldest is.
    pub(crate) fn outstanding(&self, messages: usize, oldest: Option<Instant>) {
        self.outstanding.set(messages as u64);
        self.oldest_outstanding.set(self.base, oldest);
    }
}

/// The writing end of what a subscription counts; what is of the moment is asked of the open channels.
#[derive(Debug)]
pub(crate) struct ConsumerCounters {
    base: Instant,
    pub(crate) delivered: Count,
    pub(crate) settled: Count,
    pub(crate) discarded: Count,
    pub(crate) consumers_cancelled: Count,
    pub(crate) channels_ended: Count,
    last_delivery: AtomicInstant,
    last_settle: AtomicInstant,
}

impl ConsumerCounters {
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
            delivered: Count::default(),
            settled: Count::default(),
            discarded: Count::default(),
            consumers_cancelled: Count::default(),
            channels_ended: Count::default(),
            last_delivery: AtomicInstant::default(),
            last_settle: AtomicInstant::default(),
        }
    }

    pub(crate) fn delivered(&self, deliveries: u64, now: Instant) {
        self.delivered.add(deliveries);
        self.last_delivery.set(self.base, Some(now));
    }

    pub(crate) fn settled(&self, deliveries: u64) {
        self.settled.add(deliveries);
        self.last_settle.set(self.base, Some(Instant::now()));
    }

    pub(crate) fn last_delivery(&self) -> Option<Instant> {
        self.last_delivery.get(self.base)
    }

    pub(crate) fn last_settle(&self) -> Option<Instant> {
        self.last_settle.get(self.base)
    }
}

/// A number that many may read while it is written.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A moment that many may read while it is written: nanoseconds from a base, counted from 1 so that 0 is none.
#[derive(Debug, Default)]
struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    fn set(&self, base: Instant, at: Option<Instant>) {
        let value = at.map_or(0, |at| {
            let passed = at.saturating_duration_since(base).as_nanos();
            u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
        });
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self, base: Instant) -> Option<Instant> {
        let passed = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(base + Duration::from_nanos(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_it_was_written() {
        let base = Instant::now();
        let moment = AtomicInstant::default();
        assert_eq!(moment.get(base), None);
        for at in [base, base + Duration::from_millis(7)] {
            moment.set(base, Some(at));
            assert_eq!(moment.get(base), Some(at));
        }
        moment.set(base, None);
        assert_eq!(moment.get(base), None);
    }

    #[test]
    fn every_outcome_has_a_count_of_its_own() {
        let cells = PublisherCounters::new();
        for (times, outcome) in [
            PublishOutcome::Confirmed,
            PublishOutcome::Unroutable,
            PublishOutcome::Refused,
            PublishOutcome::TimedOut,
            PublishOutcome::Disconnected,
            PublishOutcome::Blocked,
        ]
        .into_iter()
        .enumerate()
        {
            (0..=times).for_each(|_| cells.resolved(outcome));
        }
        let counts = PublisherStats(cells).read();
        let counted = [
            counts.confirmed,
            counts.returned,
            counts.refused,
            counts.timed_out,
            counts.disconnected,
            counts.blocked,
        ];
        assert_eq!(counted, [1, 2, 3, 4, 5, 6]);
    }
}
