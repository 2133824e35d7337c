//! The RPC server: hands out requests, and acks each only after its reply is written. So the requests of a killed server go to another one.
//!
//! - [`RpcServer`] is the role's handle: [`next`](RpcServer::next).
//! - `incoming`: a request handed out, and the handle for its reply.
//! - `reply_channel`: the only channel on which a request's reply can be sent.
//! - `callers`: rejects broker users that may not send requests.
//! - `cancellations`: requests whose callers no longer wait.
//! - `request_buffer`: parsed requests between `pump` and the role.
//! - `pump`: takes requests from lapin, parses them and sheds load.
//! - `skew`: detects differing clocks.
//! - `task`: the supervised task that connects, declares, consumes and reconnects.

mod callers;
mod cancellations;
mod incoming;
mod pump;
mod reply_channel;
mod request_buffer;
mod skew;
mod task;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::stats::{RpcServerCounters, RpcServerStats};
use crate::{
    connection::{
        error::Result,
        status::ConnectionStatus,
        supervisor::{Handle, Supervisor},
    },
    settings::BrokerSettings,
    topology::{Topology, queue_owner::OwnerClaim},
};

pub use super::codec::Reply;
pub use cancellations::Cancelled;
pub use incoming::{IncomingRequest, ReplyHandle, ReplyOutcome};
use request_buffer::RequestBuffer;
use task::ServerTask;

/// Limits of an RPC server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcServerSettings {
    /// Maximum requests queued or handed out without a reply. Further callers learn at once that the server is overloaded.
    pub max_in_flight: u16,
    /// Maximum bytes of their data. A larger request is handed out if it is the only one.
    pub max_bytes: usize,
    /// Retry delay that rejected callers receive.
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

/// Prefetch beyond the limit, so that excess requests are rejected rather than wait unseen in the queue.
const SHED_HEADROOM: u16 = 100;

/// Serves a role's requests, on its own connection, which is rebuilt after any error. Several servers may serve one role, in one or many
/// processes.
///
/// Deadlines are wall-clock times, so the clocks of clients and servers must agree to a small part of the callers' timeouts. If a clock is
/// ahead by more, requests are rejected as [`Rejection::CLOCK_SKEW`](doorstep_event::Rejection::CLOCK_SKEW).
#[derive(Debug)]
pub struct RpcServer {
    requests: Arc<RequestBuffer<IncomingRequest>>,
    handle: Handle,
    counts: Arc<RpcServerCounters>,
}

impl RpcServer {
    /// Starts the task, which connects under this name, declares the topology and consumes the role's requests. With a claim, each
    /// connection consumes only once the claim's store is recorded as the queues' owner. Returns at once; see [`ready`](Self::ready).
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
        claim: Option<OwnerClaim>,
    ) -> Self {
        let requests = Arc::new(RequestBuffer::new());
        let counts = Arc::<RpcServerCounters>::default();
        let task = ServerTask {
            role: role.to_owned(),
            settings,
            requests: requests.clone(),
            counts: counts.clone(),
        };
        let (supervisor, handle) = Supervisor::new(broker, connection_name, topology, claim);
        tokio::spawn(supervisor.run(task));
        Self {
            requests,
            handle,
            counts,
        }
    }

    /// Waits for a request. Cancelled and expired requests are never handed out.
    ///
    /// Returns `None` once the server is closed. Waits without a timeout; cancel-safe. Several tasks may call it at once.
    pub async fn next(&self) -> Option<IncomingRequest> {
        loop {
            let request = self.requests.next().await?;
            if let Some(request) = request.if_pending() {
                return Some(request);
            }
        }
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

    /// Returns a reader of the counters.
    #[must_use]
    pub fn stats(&self) -> RpcServerStats {
        RpcServerStats(self.counts.clone())
    }

    /// Stops consuming, waits for the replies to requests handed out, and closes the connection, within about `grace`. Requests without a
    /// reply return to the queue for another server, and [`next`](Self::next) returns `None`.
    pub async fn close(&self, grace: Duration) {
        self.handle.close(grace).await;
    }
}
