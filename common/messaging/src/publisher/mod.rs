//! Publishing: a handle for many, one task with a connection of its own behind it.
//!
//! - [`Publisher`] is the handle: bounded, and every message gets exactly one [`PublishOutcome`].
//! - `task` is the supervised task: it connects, declares, publishes, and connects again.
//! - `serve` publishes on one channel while it lasts.
//! - `confirms` finds out what the broker says of each message, returned ones included.
//! - `write_queue` keeps what the client has not written yet.
//! - `calls` keeps who waits for what.

mod calls;
mod confirms;
pub(crate) mod outcome;
mod publish_loop;
mod sequence_map;
mod span;
mod task;
mod write_queue;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    connection::Dialer,
    connection_status::{self, ConnectionStatus, StatusReporter},
    counts::{PublisherCounters, PublisherStats},
    error::ConnectError,
    message::Message,
    settings::BrokerSettings,
    topology::Topology,
};

pub use outcome::PublishOutcome;

use calls::PublishCall;
use span::SendSpan;
use task::Task;

/// Publishes messages: persistent, mandatory and confirmed. Cloning is cheap; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<PublishCall>,
    state: watch::Receiver<ConnectionStatus>,
    stop: mpsc::Sender<Duration>,
    counts: Arc<PublisherCounters>,
    /// What its spans name as their destination.
    exchange: Arc<str>,
}

impl Publisher {
    /// Starts the task, which connects under this name and declares the topology. Returns at once; see [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(settings: &BrokerSettings, connection_name: &str, topology: Topology) -> Self {
        let (report, state) = StatusReporter::new(connection_name);
        // Each waiting call holds one place; the messages themselves are bounded by the window.
        let (jobs, inbox) = mpsc::channel(settings.publish_window.max(1));
        let (stop, stopped) = mpsc::channel(1);
        let counts = PublisherCounters::new();
        let task = Task {
            dialer: Dialer::new(settings, connection_name),
            topology,
            report,
            inbox,
            stopped,
            counts: counts.clone(),
        };
        tokio::spawn(task.run());
        Self {
            jobs,
            state,
            stop,
            counts,
            exchange: settings.namespace.events_exchange().into(),
        }
    }

    /// Publishes one message and waits for its outcome, which comes within the bounds of the settings.
    ///
    /// Not cancel-safe: a call that is dropped may publish all the same.
    pub async fn publish(&self, message: Message) -> PublishOutcome {
        let outcomes = self.publish_all(vec![message]).await;
        outcomes
            .first()
            .copied()
            .unwrap_or(PublishOutcome::Disconnected)
    }

    /// Publishes messages in this order and waits for the outcomes, one each and in the same order. Much cheaper for each message
    /// than [`publish`](Self::publish). More messages than the window holds go out as it empties.
    ///
    /// Not cancel-safe: a call that is dropped may publish all the same.
    pub async fn publish_all(&self, messages: Vec<Message>) -> Vec<PublishOutcome> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let span = SendSpan::begin(&self.exchange, &messages);
        let (done, outcomes) = oneshot::channel();
        let job = PublishCall { messages, done };
        // Whatever goes wrong between here and the task, which has then ended, nothing was confirmed.
        let outcomes = match self.jobs.send(job).await {
            Ok(()) => outcomes.await.ok(),
            Err(_) => None,
        };
        let outcomes = outcomes.unwrap_or_else(|| vec![PublishOutcome::Disconnected; count]);
        span.end(&outcomes);
        outcomes
    }

    /// Waits until the first connection is there and everything is declared.
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

    /// What has become of its messages so far, to be read at any time.
    #[must_use]
    pub fn meter(&self) -> PublisherStats {
        PublisherStats(self.counts.clone())
    }

    /// Takes nothing new from any clone, waits for what is on its way, and closes the connection, within about the grace.
    pub async fn close(self, grace: Duration) {
        // Fails if it has ended or is being closed already.
        let _ = self.stop.try_send(grace);
        // The task keeps to the grace by itself; this only guards against a task that cannot.
        connection_status::closed(self.state, grace + Duration::from_secs(5)).await;
    }
}
