//! Read access to the counters of a subscription.

use std::sync::Arc;

use super::channels::Channels;
use crate::counts::ConsumerTotals;

/// Reads a subscription's counters, also after the subscription has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerStats(pub(super) Arc<Channels>);

impl ConsumerStats {
    /// Returns the counters. Each is exact, but they are not read at one instant.
    #[must_use]
    pub fn read(&self) -> ConsumerTotals {
        let cells = self.0.counts();
        ConsumerTotals {
            delivered: cells.delivered.get(),
            acked: cells.settled.get(),
            stale_acks: cells.discarded.get(),
            consumers_cancelled: cells.consumers_cancelled.get(),
            channels_closed: cells.channels_ended.get(),
            unacked: self.0.unacked() as u64,
            oldest_unacked: self.0.oldest_unacked(),
            last_delivery: cells.last_delivery(),
            last_ack: cells.last_ack(),
        }
    }
}
