//! Publishing: a cloneable handle, and one task behind it with its own connection.
//!
//! - [`Publisher`] is the handle: bounded, and every message gets exactly one [`PublishOutcome`].
//! - `task`: the supervised task that connects, declares, publishes and reconnects.
//! - `publish_loop`: publishes on one channel while it lasts.
//! - `confirms`: the broker's verdict on each message, including returned ones.
//! - `write_queue`: messages that lapin has not written yet.
//! - `calls`: pending calls and their outcomes.

mod calls;
mod confirms;
pub(crate) mod message;
pub(crate) mod outcome;
mod publish_loop;
mod sequence_map;
mod span;
mod stats;
mod task;
pub(crate) mod trace_context_cache;
pub(crate) mod unchecked;
mod write_queue;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    connection::{
        error::Result,
        status::ConnectionStatus,
        supervisor::{Handle, Supervisor},
    },
    publisher::message::Message,
    settings::BrokerSettings,
    topology::Topology,
};

pub use outcome::PublishOutcome;
pub use stats::{PublisherStats, PublisherTotals};

use calls::PublishCall;
use span::SendSpan;
use stats::PublisherCounters;
use task::PublisherTask;

/// Publishes persistent, mandatory messages with confirms. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    calls: mpsc::Sender<PublishCall>,
    handle: Handle,
    counters: Arc<PublisherCounters>,
    /// Destination name of its spans.
    exchange: Arc<str>,
}

impl Publisher {
    /// Starts the task, which connects under this name and declares the topology. Returns at once; see [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(settings: &BrokerSettings, connection_name: &str, topology: Topology) -> Self {
        // Each waiting call uses one slot; its messages are bounded by the window.
        let (calls, inbox) = mpsc::channel(settings.publish_window.max(1));
        let counters = Arc::<PublisherCounters>::default();
        let task = PublisherTask::new(inbox, counters.clone(), settings);
        let (supervisor, handle) = Supervisor::new(settings, connection_name, topology, None);
        tokio::spawn(supervisor.run(task));
        Self {
            calls,
            handle,
            counters,
            exchange: settings.namespace.events_exchange().into(),
        }
    }

    /// Publishes one message and waits for its outcome, within the timeouts of the settings.
    ///
    /// Not cancel-safe: a dropped call may still publish.
    pub async fn publish(&self, message: Message) -> PublishOutcome {
        let outcomes = self.publish_all(vec![message]).await;
        outcomes
            .first()
            .map_or(PublishOutcome::Disconnected, |o| *o)
    }

    /// Publishes messages in this order and waits for their outcomes, one each in the same order. Much cheaper per message than
    /// [`publish`](Self::publish). Messages beyond the window are sent as it empties.
    ///
    /// Not cancel-safe: a dropped call may still publish.
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<PublishOutcome> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let span = SendSpan::begin(&self.exchange, &messages);
        let (done, outcomes) = oneshot::channel();
        let call = PublishCall { messages, done };
        // A failure from here means that the task has ended and nothing was confirmed.
        let outcomes = match self.calls.send(call).await {
            Ok(()) => outcomes.await.ok(),
            Err(_) => None,
        };
        let outcomes = outcomes.unwrap_or_else(|| vec![PublishOutcome::Disconnected; count]);
        span.end(&outcomes);
        outcomes
    }

    /// Waits until the first connection has declared the topology.
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

    /// Returns a reader of the counters.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        PublisherStats(self.counters.clone())
    }

    /// Rejects new messages of all clones, waits for in-flight messages, and closes the connection, within about `grace`.
    pub async fn close(self, grace: Duration) {
        self.handle.close(grace).await;
    }
}
