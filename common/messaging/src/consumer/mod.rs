//! Consuming: deliveries in batches, and acks that never reach another channel.
//!
//! - [`Subscription`] is the engine's handle: [`next_batch`](Subscription::next_batch) and [`ack_up_to`](Subscription::ack_up_to).
//! - `task`: the supervised task that connects, declares, consumes and reconnects.
//! - `pump`: takes deliveries from lapin and decodes them, concurrently with the engine.
//! - `markers`: detects that a queue was replaced under its consumer.
//! - `rebind`: restores deleted bindings.
//! - `keepalive`: detects a dead connection while no messages arrive.
//! - `buffer`: deliveries that the engine has not taken yet, bounded by the prefetch.
//! - `channels`: the open channels, the only ones that accept acks.
//! - `delivery`: the types of deliveries; `decode`: turns a message's headers into an event.

mod buffer;
mod channels;
mod decode;
mod delivery;
mod delivery_sender;
mod identity;
mod jitter;
pub(crate) mod keepalive;
mod markers;
mod pump;
mod rebind;
mod span;
mod stats;
mod task;
mod value;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use crate::{
    connection::{
        error::Result,
        status::ConnectionStatus,
        supervisor::{Handle, Supervisor},
    },
    settings::BrokerSettings,
    topology::{Topology, names::QueueName, queue_owner::OwnerClaim},
};

use buffer::DeliveryBuffer;
use channels::{AckResult, Channels};
pub use delivery::{AckOutcome, Batch, ChannelId, Delivery, QueueSubscription};
pub(crate) use identity::is_brokers_own;

pub use span::ProcessSpan;
pub use stats::ConsumerTotals;
use task::ConsumerTask;

/// Consumes from queues, on its own connection, which is rebuilt after any error.
#[derive(Debug)]
pub struct Subscription {
    buffer: Arc<DeliveryBuffer>,
    channels: Arc<Channels>,
    queues: Vec<QueueName>,
    handle: Handle,
    ack_write_timeout: Duration,
}

impl Subscription {
    /// Starts the task, which connects under this name, declares the topology and consumes from the queues. With a claim, each connection
    /// consumes only once the claim's store is recorded as the queues' owner. Returns at once; see [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(
        settings: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        queues: Vec<QueueSubscription>,
        claim: Option<OwnerClaim>,
    ) -> Self {
        let buffer = Arc::<DeliveryBuffer>::default();
        let channels = Arc::<Channels>::default();
        let names = queues.iter().map(|queue| queue.queue.clone()).collect();
        let task = ConsumerTask {
            queues,
            buffer: buffer.clone(),
            channels: channels.clone(),
        };
        let (supervisor, handle) = Supervisor::new(settings, connection_name, topology, claim);
        tokio::spawn(supervisor.run(task));
        Self {
            buffer,
            channels,
            queues: names,
            handle,
            ack_write_timeout: settings.ack_write_timeout,
        }
    }

    /// Waits for a delivery, then also takes further buffered ones of the same queue and channel: up to `max_count` or about `max_bytes`,
    /// but at least one. It does not wait for more, so batches are small under low load.
    ///
    /// Returns `None` once the subscription is closed. Waits without a timeout; cancel-safe.
    pub async fn next_batch(&self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        self.buffer.next_batch(max_count, max_bytes).await
    }

    /// Acks all deliveries of that channel up to and including this tag, if the channel is still open. If the broker does not accept the
    /// ack within [`BrokerSettings::ack_write_timeout`], the connection is rebuilt.
    ///
    /// Cancel-safe: a dropped call has either sent the ack or not.
    pub async fn ack_up_to(&self, channel: ChannelId, up_to_tag: u64) -> AckOutcome {
        let Some(open) = self.channels.get(channel) else {
            self.discarded();
            return AckOutcome::ChannelGone;
        };
        let ack = open.ack_up_to(up_to_tag, self.channels.counters());
        let limit = self.ack_write_timeout;
        let reason = match timeout(limit, ack).await {
            Ok(AckResult::Done) => return AckOutcome::Acked,
            Ok(AckResult::Failed(reason)) => reason,
            Err(_) => format!("the broker did not accept an ack within {limit:?}"),
        };
        self.discarded();
        self.channels.give_up(channel, reason);
        AckOutcome::ChannelGone
    }

    fn discarded(&self) {
        self.channels.counters().stale_acks.add(1);
    }

    /// Returns a reader of the counters.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        ConsumerStats(self.channels.clone())
    }

    /// Returns whether it consumes from this queue.
    #[must_use]
    pub fn consumes(&self, queue: &QueueName) -> bool {
        self.queues.contains(queue)
    }

    /// Returns the number of unacked deliveries of the open channels.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.channels.unacked()
    }

    /// Waits until the first connection consumes.
    ///
    /// # Errors
    /// Returns a permanent error at once, or the latest error after `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        self.handle.ready(limit).await
    }

    /// Returns a receiver of the connection's status.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.handle.status()
    }

    /// Stops consuming, waits until the broker has received all acks, and closes the connection, within about `grace`. Unacked messages
    /// return to their queue, and [`next_batch`](Self::next_batch) returns `None`.
    pub async fn close(&self, grace: Duration) {
        self.handle.close(grace).await;
    }
}

/// Reads a subscription's counters, also after the subscription has ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerStats(Arc<Channels>);

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
