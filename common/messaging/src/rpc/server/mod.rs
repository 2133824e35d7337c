//! Answering: requests are handed out, and each is acknowledged only when its reply is written, so that those of a server that is killed
//! go to another one.
//!
//! - [`RpcServer`] is what a role holds: [`next`](RpcServer::next).
//! - `incoming` is what it hands out, and the way back.
//! - `reply_channel` is one connection's channel, on which alone its requests can be answered.
//! - `callers` rejects users of the broker that may not send requests.
//! - `cancellations` is who has gone away.
//! - `inbox` is what lies between the two.
//! - `pump` takes requests from the client, reads them and sheds what is too much.
//! - `skew` notices that clocks differ.
//! - `task` is the supervised task: it connects, declares, consumes, and connects again.

mod callers;
mod cancellations;
mod inbox;
mod incoming;
mod pump;
mod reply_channel;
mod skew;
mod task;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::counts::{RpcServerCounters, RpcServerStats};
use crate::{
    connection::Dialer,
    connection_status::{self, ConnectionStatus, StatusReporter},
    error::ConnectError,
    owner::OwnerClaim,
    settings::BrokerSettings,
    topology::Topology,
};

pub use super::codec::Reply;
pub use cancellations::Cancelled;
use inbox::Inbox;
pub use incoming::{IncomingRequest, ReplyHandle, ReplyOutcome};
use task::Task;

/// The bounds of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcServerSettings {
    /// The most requests that are handed out, or wait to be, and are not answered. Who asks beyond them hears at once that it is too
    /// much.
    pub max_in_flight: u16,
    /// The most bytes of data in these. One that is larger is handed out if it is the only one.
    pub max_bytes: usize,
    /// What is said then: when it is worth trying again.
    pub retry_after: Duration,
}

impl Default for RpcServerSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 1000,
            max_bytes: 64 * 1024 * 1024,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// How many more than the bound the broker gives, so that they can be shed rather than wait unseen in the queue.
const SHED_HEADROOM: u16 = 100;

/// Answers for a role, on a connection of its own that is rebuilt after any error. Several may answer for one role, in one process or
/// in many.
///
/// Deadlines are times of day, so the clocks of those who ask and answer must agree, to a small part of the time that callers wait. Where
/// a clock is ahead by more than that, requests are refused as [`Refused::CLOCK_SKEW`](doorstep_event::Refused::CLOCK_SKEW).
#[derive(Debug)]
pub struct RpcServer {
    inbox: Arc<Inbox<IncomingRequest>>,
    state: watch::Receiver<ConnectionStatus>,
    stop: mpsc::Sender<Duration>,
    counts: Arc<RpcServerCounters>,
}

impl RpcServer {
    /// Starts the task, which connects under this name, declares the topology and consumes the role's requests. Returns at once; see
    /// [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(
        broker: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        role: &str,
        settings: RpcServerSettings,
    ) -> Self {
        Self::begin(broker, connection_name, topology, role, settings, None)
    }

    /// Starts as [`start`](Self::start) does; each connection consumes only once the queues are recorded as those of the claim's store.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start_claiming(
        broker: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        role: &str,
        settings: RpcServerSettings,
        claim: OwnerClaim,
    ) -> Self {
        let claim = Some(claim);
        Self::begin(broker, connection_name, topology, role, settings, claim)
    }

    fn begin(
        broker: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        role: &str,
        settings: RpcServerSettings,
        claim: Option<OwnerClaim>,
    ) -> Self {
        let (report, state) = StatusReporter::new(connection_name);
        let (stop, stopped) = mpsc::channel(1);
        let inbox = Arc::new(Inbox::new());
        let counts = Arc::new(RpcServerCounters::new());
        let task = Task {
            dialer: Dialer::new(broker, connection_name),
            topology,
            role: role.to_owned(),
            settings,
            claim,
            report,
            inbox: inbox.clone(),
            counts: counts.clone(),
        };
        tokio::spawn(task.run(stopped));
        Self {
            inbox,
            state,
            stop,
            counts,
        }
    }

    /// Waits for a request. What nobody waits for any more, because it was cancelled or its deadline is over, is never handed out.
    ///
    /// Returns `None` once the responder is closed. Waits as long as nothing comes; cancel-safe. May be called by many at once.
    pub async fn next(&self) -> Option<IncomingRequest> {
        loop {
            let asked = self.inbox.next().await?;
            if let Some(asked) = asked.if_still_wanted() {
                return Some(asked);
            }
        }
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

    /// What it has done so far, to be read at any time.
    #[must_use]
    pub fn meter(&self) -> RpcServerStats {
        RpcServerStats(self.counts.clone())
    }

    /// Stops consuming, waits for the replies to what was handed out, and closes the connection, within about the grace. What is not
    /// answered by then goes back to the queue, and so to another server; [`next`](Self::next) returns `None` from here on.
    pub async fn close(&self, grace: Duration) {
        // Fails if it has ended or is being closed already.
        let _ = self.stop.try_send(grace);
        // The task keeps to the grace by itself; this only guards against a task that cannot.
        connection_status::closed(self.state.clone(), grace + Duration::from_secs(5)).await;
    }
}
