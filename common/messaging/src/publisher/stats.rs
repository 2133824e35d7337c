//! Counters of a publisher.

use std::sync::Arc;

use tokio::time::Instant;

use super::outcome::PublishOutcome;
use crate::counters::counters;

counters! {
    /// Counters of a publisher since its start. The number of connections is in [`ConnectionStatus`](crate::ConnectionStatus).
    PublisherTotals from PublisherCounters;
    counts {
        confirmed,
        /// Messages that the broker returned as unroutable.
        returned,
        /// Messages rejected by a queue.
        rejected,
        /// Messages without a confirm in time.
        timed_out,
        /// Messages without a connection, or whose connection was lost before the confirm.
        disconnected,
        /// Messages given up while the broker blocked publishing.
        blocked,
        /// Channels closed by the broker while their connection stayed open.
        channels_closed,
        /// Channels of these that were closed because of one of their messages.
        channels_closed_over_message,
        /// Gauge: messages published and not yet confirmed.
        unconfirmed,
    }
    instants {
        /// Gauge: time at which the oldest of them was published.
        oldest_unconfirmed,
    }
    elsewhere {}
}

/// Reads a publisher's counters, also after the publisher has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PublisherStats(pub(super) Arc<PublisherCounters>);

impl PublisherStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> PublisherTotals {
        self.0.totals()
    }
}

impl PublisherCounters {
    pub(super) fn resolved(&self, outcome: PublishOutcome) {
        let count = match outcome {
            PublishOutcome::Confirmed => &self.confirmed,
            PublishOutcome::Unroutable => &self.returned,
            PublishOutcome::Rejected | PublishOutcome::Unpublishable => &self.rejected,
            PublishOutcome::TimedOut => &self.timed_out,
            PublishOutcome::Disconnected => &self.disconnected,
            PublishOutcome::Blocked => &self.blocked,
        };
        count.add(1);
    }

    /// Sets the number of unconfirmed messages, and the publishing time of the oldest.
    pub(super) fn unconfirmed(&self, messages: usize, oldest: Option<Instant>) {
        self.unconfirmed.set(messages as u64);
        self.oldest_unconfirmed.set(oldest.map(Instant::into_std));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_counter() {
        let counters = PublisherCounters::default();
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
            (0..=times).for_each(|_| counters.resolved(outcome));
        }
        let counts = counters.totals();
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
