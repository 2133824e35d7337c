//! Consuming: deliveries in batches, and settlements that never reach another channel than theirs.
//!
//! - [`Subscription`] is what the engine holds: [`next_batch`](Subscription::next_batch) and [`settle`](Subscription::ack_up_to).
//! - `task` is the supervised task: it connects, declares, consumes, and connects again.
//! - `pump` takes deliveries from the client and decodes them, next to the engine's work.
//! - `markers` notices that a queue was made again under its consumer.
//! - `rebind` restores bindings that somebody has deleted.
//! - `keepalive` makes sure that a quiet connection is not a dead one.
//! - `inbox` is what lies between, bounded by the prefetch.
//! - `channels` are the open channels, which alone can be settled on.
//! - `delivery` is what comes out of it, `decode` turns a message's headers into an event.

mod buffer;
mod channels;
mod decode;
mod delivery;
mod identity;
mod jitter;
pub(crate) mod keepalive;
mod markers;
mod pump;
mod rebind;
mod sender;
mod span;
mod stats;
mod task;
mod value;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    connection::Dialer,
    connection_status::{self, ConnectionStatus, StatusReporter},
    counts::ConsumerCounters,
    error::ConnectError,
    names::QueueName,
    owner::OwnerClaim,
    settings::BrokerSettings,
    topology::Topology,
};

use buffer::DeliveryBuffer;
use channels::{AckResult, Channels};
pub use delivery::{AckOutcome, Batch, ChannelId, Delivery, QueueSubscription};
pub(crate) use identity::is_brokers_own;

pub use span::ProcessSpan;
pub use stats::ConsumerStats;
use task::Task;

/// Consumes from queues, on a connection of its own that is rebuilt after any error.
#[derive(Debug)]
pub struct Subscription {
    inbox: Arc<DeliveryBuffer>,
    channels: Arc<Channels>,
    queues: Vec<QueueName>,
    state: watch::Receiver<ConnectionStatus>,
    stop: mpsc::Sender<Duration>,
    settle_timeout: Duration,
}

impl Subscription {
    /// Starts the task, which connects under this name, declares the topology and consumes from the queues. Returns at once; see
    /// [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(
        settings: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        queues: Vec<QueueSubscription>,
    ) -> Self {
        Self::begin(settings, connection_name, topology, queues, None)
    }

    /// Starts as [`start`](Self::start) does; each connection consumes only once the queues are recorded as those of the claim's store.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start_claiming(
        settings: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        queues: Vec<QueueSubscription>,
        claim: OwnerClaim,
    ) -> Self {
        Self::begin(settings, connection_name, topology, queues, Some(claim))
    }

    fn begin(
        settings: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        queues: Vec<QueueSubscription>,
        claim: Option<OwnerClaim>,
    ) -> Self {
        let (report, state) = StatusReporter::new(connection_name);
        let inbox = Arc::new(DeliveryBuffer::new());
        let channels = Arc::new(Channels::new(ConsumerCounters::new()));
        let (stop, stopped) = mpsc::channel(1);
        let names = queues.iter().map(|queue| queue.queue.clone()).collect();
        let task = Task {
            dialer: Dialer::new(settings, connection_name),
            topology,
            queues,
            claim,
            report,
            inbox: inbox.clone(),
            channels: channels.clone(),
        };
        tokio::spawn(task.run(stopped));
        Self {
            inbox,
            channels,
            queues: names,
            state,
            stop,
            settle_timeout: settings.settle_timeout,
        }
    }

    /// Waits for a delivery and takes every other of the same queue and channel that is there already, up to `max_count` of them or
    /// about `max_bytes`, but always one. Waits for nothing else, so batches are small while there is little to do.
    ///
    /// Returns `None` once the subscription is closed. Waits as long as nothing comes; cancel-safe.
    pub async fn next_batch(&self, max_count: usize, max_bytes: usize) -> Option<Batch> {
        self.inbox.next_batch(max_count, max_bytes).await
    }

    /// Acknowledges every delivery of that channel up to and including this tag, if that very channel is still open. Takes no longer
    /// than the settings allow; a broker that does not take it in that time is given up, and the connection rebuilt.
    ///
    /// Cancel-safe: a settlement that is dropped halfway is either made or not.
    pub async fn ack_up_to(&self, channel: ChannelId, up_to_tag: u64) -> AckOutcome {
        let Some(open) = self.channels.get(channel) else {
            self.discarded();
            return AckOutcome::ChannelGone;
        };
        let settling = open.settle(up_to_tag, self.channels.counts());
        match timeout(self.settle_timeout, settling).await {
            Ok(AckResult::Done) => AckOutcome::Acked,
            Ok(AckResult::Failed(reason)) => {
                self.discarded();
                self.channels.give_up(channel, reason);
                AckOutcome::ChannelGone
            }
            Err(_) => {
                let limit = self.settle_timeout;
                let reason = format!("an acknowledgement was not taken within {limit:?}");
                self.discarded();
                self.channels.give_up(channel, reason);
                AckOutcome::ChannelGone
            }
        }
    }

    fn discarded(&self) {
        self.channels.counts().discarded.add(1);
    }

    /// What it has done so far, to be read at any time.
    #[must_use]
    pub fn meter(&self) -> ConsumerStats {
        ConsumerStats(self.channels.clone())
    }

    /// Returns whether it consumes from this queue.
    #[must_use]
    pub fn consumes(&self, queue: &QueueName) -> bool {
        self.queues.contains(queue)
    }

    /// How many deliveries have come by the open channels and are not settled.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.channels.unacked()
    }

    /// Waits until the first connection is there and consuming.
    ///
    /// # Errors
    /// At once if the reason is permanent, else the last one when the time is over.
    pub async fn ready(&self, limit: Duration) -> Result<(), ConnectError> {
        connection_status::ready(self.state.clone(), limit).await
    }

    /// How the connection is, to be looked at or waited for.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionStatus> {
        self.state.clone()
    }

    /// Stops consuming, sees that what was settled has arrived, and closes the connection, within about the grace. What is not
    /// settled by now goes back to its queue; [`next_batch`](Self::next_batch) returns `None` from here on.
    pub async fn close(&self, grace: Duration) {
        // Fails if it has ended or is being closed already.
        let _ = self.stop.try_send(grace);
        // The task keeps to the grace by itself; this only guards against a task that cannot.
        connection_status::closed(self.state.clone(), grace + Duration::from_secs(5)).await;
    }
}
