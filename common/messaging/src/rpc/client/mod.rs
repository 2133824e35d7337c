//! Asking: a handle for many, with a connection of its own behind it.
//!
//! - [`RpcClient`] is the handle. A request is handed to the client by whoever asks, and its reply goes from the client straight to
//!   whoever waits: on the way there is no task that others could keep busy.
//! - `request_sender` is the way out, open while there is a connection.
//! - `pending_calls` is who waits for which reply.
//! - `task` is the supervised task: it connects, declares, looks after what was published, and connects again.
//! - `watch` finds out whether anybody answers.
//! - `cancel` tells those who answer that nobody waits any more.

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
    sync::{mpsc, oneshot, watch as watch_channel},
    time::{Instant, timeout_at},
};

use super::{
    counts::{RpcClientCounters, RpcClientStats},
    error::CallError,
};
use crate::{
    backoff::Backoff,
    connection::Dialer,
    connection_status::{self, ConnectionStatus, StatusReporter},
    error::ConnectError,
    rpc::span::ClientSpan,
    settings::BrokerSettings,
    topology::Topology,
};

use cancel::Cancel;
use pending_calls::PendingCalls;
use request_sender::RequestSender;
use task::Task;

/// The bounds of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcClientSettings {
    /// The most requests that are under way; who asks beyond them hears [`CallError::Overloaded`].
    pub max_in_flight: usize,
    /// The most bytes of data in commands that the broker has not confirmed and queries that are not written; beyond them it is the same.
    /// One that is larger waits until it is the only one.
    pub max_bytes: usize,
    /// What is said then, and when a queue is full: when it is worth trying again.
    pub retry_after: Duration,
    /// The waits of [`RpcClient::call_raw_with_retry`].
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

/// Asks roles, and waits for their answers. Cloning is cheap; all clones share one connection.
#[derive(Clone)]
pub struct RpcClient {
    shared: Arc<Shared>,
    state: watch_channel::Receiver<ConnectionStatus>,
    stop: mpsc::Sender<Duration>,
}

impl std::fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcClient")
            .field("state", &self.state.borrow())
            .finish_non_exhaustive()
    }
}

/// What those who ask and the task share.
struct Shared {
    broker: BrokerSettings,
    settings: RpcClientSettings,
    gate: RequestSender,
    waiting: PendingCalls,
    next_number: AtomicU64,
    cancels: mpsc::Sender<Cancel>,
    counts: Arc<RpcClientCounters>,
}

/// The most that nobody waits for any more and that is not told yet; beyond, the servers find out by the deadline.
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
        let (report, state) = StatusReporter::new(connection_name);
        let (stop, stopped) = mpsc::channel(1);
        let (cancels, cancelled) = mpsc::channel(CANCELS);
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            settings,
            gate: RequestSender::new(settings.max_in_flight, settings.max_bytes),
            waiting: PendingCalls::new(),
            next_number: AtomicU64::new(0),
            cancels,
            counts: Arc::default(),
        });
        let task = Task {
            dialer: Dialer::new(broker, connection_name),
            topology,
            report,
            shared: shared.clone(),
            cancelled,
        };
        tokio::spawn(task.run(stopped));
        Self {
            shared,
            state,
            stop,
        }
    }

    /// Asks, and waits for the reply in JSON. Ends by the request's deadline, whatever becomes of the connection, and at once while
    /// there is none.
    ///
    /// Dropping it cancels the request: whoever answers is told that nobody waits any more, as well as it can be done.
    ///
    /// # Errors
    /// There is no reply; see [`CallError`] for what that says of a command.
    pub async fn call_raw(&self, mut request: Request) -> Result<Bytes, CallError> {
        let span = ClientSpan::begin(&mut request);
        let answer = self.call_once(&request).await;
        self.shared.counts.ended(&answer);
        span.end(answer.as_ref().err());
        answer
    }

    async fn call_once(&self, request: &Request) -> Result<Bytes, CallError> {
        let left = time_remaining(request).ok_or(CallError::TimedOut)?;
        let until = Instant::now() + left;
        let mut call = self.shared.begin(request, left)?;
        match timeout_at(until, &mut call.answer).await {
            Ok(Ok(answer)) => answer,
            // Nobody sends any more: the task has ended.
            Ok(Err(_)) => Err(CallError::unreachable("this requester is closed")),
            Err(_) => {
                call.give_up();
                Err(CallError::TimedOut)
            }
        }
    }

    /// Asks, and asks again under the same id while that may help and the deadline has not come, with growing pauses. Ends, and is
    /// cancelled, like [`ask`](Self::ask).
    ///
    /// # Errors
    /// What the last attempt came to; but where it was not begun, and an earlier one may have been, what that one came to.
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
            let most = time_remaining(&request).unwrap_or_default();
            // An attempt after the deadline would only hide what the last one came to.
            if at_least >= most {
                return Err(error.prefer_ambiguous(doubt));
            }
            let pause = backoff.wait_after(at_least, failures);
            if tokio::time::timeout(most, pause).await.is_err() {
                return Err(error.prefer_ambiguous(doubt));
            }
            let error = error.prefer_ambiguous(doubt.take());
            doubt = error.may_have_executed().then_some(error);
            failures += 1;
        }
    }

    /// Asks what was written down as a `C`, and reads the reply as its contract says.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); also where the reply breaks the contract, [`CallError::Malformed`].
    pub async fn call<C: RequestContract>(&self, request: Request) -> Result<C::Reply, CallError> {
        read::<C>(&self.call_raw(request).await?)
    }

    /// [`call_raw_with_retry`](Self::call_raw_with_retry), with the reply read as its contract says.
    ///
    /// # Errors
    /// As [`call_raw_with_retry`](Self::call_raw_with_retry); also where the reply breaks the contract, [`CallError::Malformed`].
    pub async fn call_with_retry<C: RequestContract>(
        &self,
        request: Request,
    ) -> Result<C::Reply, CallError> {
        read::<C>(&self.call_raw_with_retry(request).await?)
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
    pub fn state(&self) -> watch_channel::Receiver<ConnectionStatus> {
        self.state.clone()
    }

    /// What has become of its requests so far, to be read at any time.
    #[must_use]
    pub fn meter(&self) -> RpcClientStats {
        RpcClientStats(self.shared.counts.clone())
    }

    /// Takes nothing new from any clone, waits for the replies that are on their way, and closes the connection, within about the
    /// grace. Who still waits then hears [`CallError::Unreachable`].
    pub async fn close(self, grace: Duration) {
        // Fails if it has ended or is being closed already.
        let _ = self.stop.try_send(grace);
        // The task keeps to the grace by itself; this only guards against a task that cannot.
        connection_status::closed(self.state, grace + Duration::from_secs(5)).await;
    }
}

impl Shared {
    /// Hands a request over.
    fn begin(self: &Arc<Self>, request: &Request, left: Duration) -> Result<Call, CallError> {
        let retry_after = self.settings.retry_after;
        let before = self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        // From here on the call is taken back by being dropped.
        let call = Call {
            shared: self.clone(),
            number,
            role: request.role().into(),
            answer,
        };
        if before >= self.settings.max_in_flight {
            return Err(CallError::Overloaded { retry_after });
        }
        let queue = self.broker.namespace.rpc_queue(request.role());
        self.gate.send(self, request, queue, left, number, done)?;
        Ok(call)
    }
}

/// A request under way. Dropping it before it has ended cancels it.
struct Call {
    shared: Arc<Shared>,
    number: u64,
    role: Box<str>,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Call {
    /// Nobody waits any more, and whoever answers knows it by the deadline.
    fn give_up(&self) {
        self.shared.waiting.remove(self.number);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.shared.waiting.remove(self.number).is_none() {
            return;
        }
        self.shared.counts.cancelled.add(1);
        // If there is no room, the deadline will do.
        let _ = self.shared.cancels.try_send(Cancel {
            role: std::mem::take(&mut self.role),
            correlation: self.shared.waiting.correlation(self.number),
        });
    }
}

/// How long it is to the deadline; `None` once it is over.
fn time_remaining(request: &Request) -> Option<Duration> {
    let left = request.deadline.duration_since(Timestamp::now());
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

fn read<C: RequestContract>(data: &Bytes) -> Result<C::Reply, CallError> {
    serde_json::from_slice(data)
        .map_err(|e| CallError::Malformed(format!("it is not a reply to {}: {e}", C::TYPE)))
}
