//! The RPC client: a cloneable handle with its own connection.
//!
//! - [`RpcClient`] is the handle. The caller's task hands the request to lapin, and the reply goes straight to the waiting caller: no other
//!   task in between could be busy.
//! - `request_sender`: publishes requests while there is a connection.
//! - `pending_calls`: the callers waiting for replies.
//! - `task`: the supervised task that connects, declares, polls confirms and reconnects.
//! - `liveness`: detects missing servers.
//! - `cancel`: publishes cancellations.

mod cancel;
mod liveness;
mod pending_calls;
mod request_sender;
mod task;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use doorstep_event::{Request, RequestContract, Timestamp};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{
    error::CallError,
    stats::{RpcClientCounters, RpcClientStats},
};
use crate::{
    connection::{
        backoff::Backoff,
        error::Result,
        status::ConnectionStatus,
        supervisor::{Handle, Supervisor},
    },
    rpc::span::ClientSpan,
    settings::BrokerSettings,
    topology::Topology,
};

use cancel::Cancel;
use pending_calls::PendingCalls;
use request_sender::RequestSender;
use task::ClientTask;

/// Limits of an RPC client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcClientSettings {
    /// Maximum calls in flight. Further calls fail with [`CallError::Overloaded`].
    pub max_in_flight: usize,
    /// Maximum bytes of data in unconfirmed commands and unwritten queries. Beyond that, calls fail the same way. A larger request is sent
    /// only if it is the only one.
    pub max_bytes: usize,
    /// Retry delay reported then, and when a queue is full.
    pub retry_after: Duration,
    /// Retry delays of [`RpcClient::call_raw_with_retry`].
    pub backoff: Backoff,
}

impl Default for RpcClientSettings {
    fn default() -> Self {
        Self {
            max_in_flight: 10_000,
            max_bytes: 64 * 1024 * 1024,
            retry_after: Duration::from_secs(1),
            backoff: Backoff::quick(),
        }
    }
}

/// Calls roles and waits for their replies. Cheap to clone; all clones share one connection.
#[derive(Clone, derive_more::Debug)]
#[debug("RpcClient({:?})", handle.status().borrow())]
pub struct RpcClient {
    shared: Arc<Shared>,
    handle: Handle,
}

/// State shared by callers and the task.
struct Shared {
    broker: BrokerSettings,
    settings: RpcClientSettings,
    sender: RequestSender,
    pending_calls: PendingCalls,
    next_number: AtomicU64,
    cancels: mpsc::Sender<Cancel>,
    counts: Arc<RpcClientCounters>,
}

/// Maximum unpublished cancellations. Beyond that, servers notice the deadline.
const CANCELS: usize = 1024;

impl RpcClient {
    /// Starts the task, which connects under this name and declares the topology. Returns at once; see [`ready`](Self::ready).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(
        broker: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        settings: RpcClientSettings,
    ) -> Self {
        let (cancels, cancelled) = mpsc::channel(CANCELS);
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            settings,
            sender: RequestSender::new(settings.max_in_flight, settings.max_bytes),
            pending_calls: PendingCalls::new(),
            next_number: AtomicU64::new(0),
            cancels,
            counts: Arc::default(),
        });
        let task = ClientTask {
            shared: shared.clone(),
            cancelled,
        };
        let (supervisor, handle) = Supervisor::new(broker, connection_name, topology, None);
        tokio::spawn(supervisor.run(task));
        Self { shared, handle }
    }

    /// Calls a role and waits for the reply in JSON. Ends by the request's deadline, regardless of the connection, and at once while
    /// there is none.
    ///
    /// Dropping it cancels the request: the servers are informed, best effort.
    ///
    /// # Errors
    /// There is no reply; see [`CallError`] for what that means for a command.
    pub async fn call_raw(&self, mut request: Request) -> Result<Bytes, CallError> {
        let span = ClientSpan::begin(&mut request);
        let result = self.call_once(&request).await;
        self.shared.counts.ended(&result);
        span.end(result.as_ref().err());
        result
    }

    async fn call_once(&self, request: &Request) -> Result<Bytes, CallError> {
        let left = time_remaining(request).ok_or(CallError::TimedOut)?;
        let until = Instant::now() + left;
        let mut call = self.shared.begin(request, left)?;
        match timeout_at(until, &mut call.result).await {
            Ok(Ok(result)) => result,
            // The task has ended, and with it the sender.
            Ok(Err(_)) => Err(CallError::unreachable("this RPC client is closed")),
            Err(_) => {
                call.give_up();
                Err(CallError::TimedOut)
            }
        }
    }

    /// Calls a role, and retries transient errors with the same id and growing delays until the deadline. Ends, and is cancelled, like
    /// [`call_raw`](Self::call_raw).
    ///
    /// # Errors
    /// Returns the error of the last attempt. If that attempt was not begun but an earlier one may have been, returns the earlier error.
    pub async fn call_raw_with_retry(&self, request: Request) -> Result<Bytes, CallError> {
        let mut failures = 0;
        let mut doubt = None;
        loop {
            let error = match self.call_raw(request.clone()).await {
                Err(error) if error.is_transient() => error,
                ended => return ended,
            };
            let at_least = match &error {
                CallError::Overloaded { retry_after } => *retry_after,
                _ => Duration::ZERO,
            };
            let backoff = &self.shared.settings.backoff;
            let remaining = time_remaining(&request).unwrap_or_default();
            // An attempt after the deadline would only hide the last error.
            if at_least >= remaining {
                return Err(error.prefer_ambiguous(doubt));
            }
            let delay = backoff.wait_after(at_least, failures);
            if tokio::time::timeout(remaining, delay).await.is_err() {
                return Err(error.prefer_ambiguous(doubt));
            }
            let error = error.prefer_ambiguous(doubt.take());
            doubt = error.may_have_executed().then_some(error);
            failures += 1;
        }
    }

    /// Calls with a typed request `C`, and parses the reply by its contract.
    ///
    /// # Errors
    /// As [`call_raw`](Self::call_raw); also [`CallError::Malformed`] if the reply violates the contract.
    pub async fn call<C: RequestContract>(&self, request: Request) -> Result<C::Reply, CallError> {
        read::<C>(&self.call_raw(request).await?)
    }

    /// Retries like [`call_raw_with_retry`](Self::call_raw_with_retry), and parses the reply by its contract.
    ///
    /// # Errors
    /// As [`call_raw_with_retry`](Self::call_raw_with_retry); also [`CallError::Malformed`] if the reply violates the contract.
    pub async fn call_with_retry<C: RequestContract>(
        &self,
        request: Request,
    ) -> Result<C::Reply, CallError> {
        read::<C>(&self.call_raw_with_retry(request).await?)
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
    pub fn stats(&self) -> RpcClientStats {
        RpcClientStats(self.shared.counts.clone())
    }

    /// Rejects new calls of all clones, waits for outstanding replies, and closes the connection, within about `grace`. Remaining calls
    /// then fail with [`CallError::Unreachable`].
    pub async fn close(self, grace: Duration) {
        self.handle.close(grace).await;
    }
}

impl Shared {
    fn begin(self: &Arc<Self>, request: &Request, left: Duration) -> Result<Call, CallError> {
        let retry_after = self.settings.retry_after;
        let before = self.counts.in_flight.add(1);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (done, result) = oneshot::channel();
        // From here on, dropping `call` undoes the bookkeeping.
        let call = Call {
            shared: self.clone(),
            number,
            role: request.role().into(),
            result,
        };
        if before >= self.settings.max_in_flight as u64 {
            return Err(CallError::Overloaded { retry_after });
        }
        let queue = self.broker.namespace.rpc_queue(request.role());
        self.sender.send(self, request, queue, left, number, done)?;
        Ok(call)
    }
}

/// A call in flight. Dropping it before its end cancels it.
struct Call {
    shared: Arc<Shared>,
    number: u64,
    role: Box<str>,
    result: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Call {
    /// Ends the call without a cancellation: servers notice the deadline.
    fn give_up(&self) {
        self.shared.pending_calls.remove(self.number);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.counts.in_flight.subtract(1);
        if self.shared.pending_calls.remove(self.number).is_none() {
            return;
        }
        self.shared.counts.cancelled.add(1);
        // If there is no room, the deadline suffices.
        let _ = self.shared.cancels.try_send(Cancel {
            role: std::mem::take(&mut self.role),
            correlation: self.shared.pending_calls.correlation(self.number),
        });
    }
}

/// Returns the time until the deadline; `None` once it has passed.
fn time_remaining(request: &Request) -> Option<Duration> {
    let left = request.deadline.duration_since(Timestamp::now());
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

fn read<C: RequestContract>(data: &Bytes) -> Result<C::Reply, CallError> {
    serde_json::from_slice(data)
        .map_err(|e| CallError::Malformed(format!("it is not a valid reply to {}: {e}", C::TYPE)))
}
