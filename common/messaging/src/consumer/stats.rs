//! Counters of a subscription.

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
