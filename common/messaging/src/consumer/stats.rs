//! Counters of a subscription.

use std::sync::Arc;

use super::channels::Channels;
use crate::counters::counters;

counters! {
    /// Counters of a subscription since its start. The number of connections is in [`ConnectionStatus`](crate::ConnectionStatus).
    ConsumerTotals from ConsumerCounters;
    counts {
        /// Deliveries received, with redeliveries counted again.
        delivered,
        /// Deliveries whose ack was handed to lapin.
        acked,
        /// Acks that came too late for their channel. Their deliveries are redelivered.
        stale_acks,
        /// Consumers cancelled by the broker: the queue was deleted or lost its leader, or the consumer was too slow.
        consumers_cancelled,
        /// Channels closed by the broker while their connection stayed open.
        channels_closed,
    }
    instants {
        /// Time of the latest delivery.
        last_delivery,
        /// Time of the latest ack.
        last_ack,
    }
    elsewhere {
        /// Gauge: unacked deliveries of the open channels.
        unacked: u64,
        /// Gauge: arrival of the oldest of them.
        oldest_unacked: Option<std::time::Instant>,
    }
}

/// Reads a subscription's counters, also after the subscription has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerStats(pub(super) Arc<Channels>);

impl ConsumerStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> ConsumerTotals {
        ConsumerTotals {
            unacked: self.0.unacked() as u64,
            oldest_unacked: self.0.oldest_unacked(),
            ..self.0.counters().totals()
        }
    }
}
