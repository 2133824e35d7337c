//! Counters of publishers and subscriptions, cheap enough to be always on, for status pages and metrics.
//!
//! The number of connections is in [`ConnectionStatus`](crate::ConnectionStatus). Counters only grow; gauges are marked as such.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::publisher::outcome::PublishOutcome;

/// Counters of a publisher since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublisherTotals {
    pub confirmed: u64,
    /// Messages that the broker returned as unroutable.
    pub returned: u64,
    /// Messages rejected by a queue.
    pub rejected: u64,
    /// Messages without a confirm in time.
    pub timed_out: u64,
    /// Messages without a connection, or whose connection was lost before the confirm.
    pub disconnected: u64,
    /// Messages given up while the broker blocked publishing.
    pub blocked: u64,
    /// Channels closed by the broker while their connection stayed open.
    pub channels_closed: u64,
    /// Channels of these that were closed because of one of their messages.
    pub channels_closed_over_message: u64,
    /// Gauge: messages published and not yet confirmed.
    pub unconfirmed: u64,
    /// Gauge: time at which the oldest of them was published.
    pub oldest_unconfirmed: Option<Instant>,
}

/// Counters of a subscription since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerTotals {
    /// Deliveries received, with redeliveries counted again.
    pub delivered: u64,
    /// Deliveries whose ack was handed to lapin.
    pub acked: u64,
    /// Acks that came too late for their channel. Their deliveries are redelivered.
    pub stale_acks: u64,
    /// Consumers cancelled by the broker: the queue was deleted or lost its leader, or the consumer was too slow.
    pub consumers_cancelled: u64,
    /// Channels closed by the broker while their connection stayed open.
    pub channels_closed: u64,
    /// Gauge: unacked deliveries of the open channels.
    pub unacked: u64,
    /// Gauge: arrival of the oldest of them.
    pub oldest_unacked: Option<Instant>,
    /// Time of the latest delivery.
    pub last_delivery: Option<Instant>,
    /// Time of the latest ack.
    pub last_ack: Option<Instant>,
}

/// Reads a publisher's counters, also after the publisher has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PublisherStats(pub(crate) Arc<PublisherCounters>);

impl PublisherStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> PublisherTotals {
        let cells = &self.0;
        PublisherTotals {
            confirmed: cells.confirmed.get(),
            returned: cells.returned.get(),
            rejected: cells.refused.get(),
            timed_out: cells.timed_out.get(),
            disconnected: cells.disconnected.get(),
            blocked: cells.blocked.get(),
            channels_closed: cells.channels_ended.get(),
            channels_closed_over_message: cells.channels_refused.get(),
            unconfirmed: cells.outstanding.get(),
            oldest_unconfirmed: cells.oldest_outstanding.get(cells.base),
        }
    }
}

/// The writer of a [`PublisherStats`].
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
            PublishOutcome::Rejected | PublishOutcome::Unpublishable => &self.refused,
            PublishOutcome::TimedOut => &self.timed_out,
            PublishOutcome::Disconnected => &self.disconnected,
            PublishOutcome::Blocked => &self.blocked,
        };
        count.add(1);
    }

    /// Sets the number of unconfirmed messages, and the publishing time of the oldest.
    pub(crate) fn outstanding(&self, messages: usize, oldest: Option<Instant>) {
        self.outstanding.set(messages as u64);
        self.oldest_outstanding.set(self.base, oldest);
    }
}

/// The writer of a subscription's counters. Gauges are read from the open channels.
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

    pub(crate) fn acked(&self, deliveries: u64) {
        self.settled.add(deliveries);
        self.last_settle.set(self.base, Some(Instant::now()));
    }

    pub(crate) fn last_delivery(&self) -> Option<Instant> {
        self.last_delivery.get(self.base)
    }

    pub(crate) fn last_ack(&self) -> Option<Instant> {
        self.last_settle.get(self.base)
    }
}

/// A number that other threads may read while it is written.
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

/// An instant that other threads may read while it is written: nanoseconds since a base, plus 1, so that 0 means none.
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
    fn an_instant_round_trips() {
        let base = Instant::now();
        let instant = AtomicInstant::default();
        assert_eq!(instant.get(base), None);
        for at in [base, base + Duration::from_millis(7)] {
            instant.set(base, Some(at));
            assert_eq!(instant.get(base), Some(at));
        }
        instant.set(base, None);
        assert_eq!(instant.get(base), None);
    }

    #[test]
    fn each_outcome_has_its_own_counter() {
        let cells = PublisherCounters::new();
        for (times, outcome) in [
            PublishOutcome::Confirmed,
            PublishOutcome::Unroutable,
            PublishOutcome::Rejected,
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
            counts.rejected,
            counts.timed_out,
            counts.disconnected,
            counts.blocked,
        ];
        assert_eq!(counted, [1, 2, 3, 4, 5, 6]);
    }
}
