//! In-process calls to a running role: commands go to its loop, queries are served beside it. Beyond the bounds, a call
//! fails at once.

use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

use doorstep_event::{Rejection, Request, RequestContract, RequestKind, RequestResult, Timestamp};
use doorstep_store::{Result, Store};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    local_call_error::LocalCallError,
    reply_to::{QueuedCommand, ReplyTo},
};
use crate::{
    CommandResult, DeliveryHistory, Limits, Queries, Role,
    task::{TaskOutcome, TaskSet},
    telemetry::RequestInstruments,
};

/// A client of a role in this very process. Cheap to clone. After the role has ended, calls fail with
/// [`LocalCallError::Closed`].
#[derive(Clone, derive_more::Debug)]
#[debug("LocalClient")]
pub struct LocalClient(Arc<Inner>);

type QueryFuture<'a> = Pin<Box<dyn Future<Output = Result<RequestResult>> + Send + 'a>>;

/// [`Queries`] of any role on any store.
trait ServeQuery: Send + Sync {
    fn answer<'a>(&'a self, request: &'a Request) -> QueryFuture<'a>;
}

impl<R: Role, S: Store> ServeQuery for Queries<R, S> {
    fn answer<'a>(&'a self, request: &'a Request) -> QueryFuture<'a> {
        Box::pin(self.answer(request, Timestamp::now()))
    }
}

struct Inner {
    commands: mpsc::Sender<QueuedCommand>,
    queries: Box<dyn ServeQuery>,
    in_flight: Semaphore,
    retry_after: std::time::Duration,
    /// The tasks whose results no client may send.
    tasks: Arc<TaskSet>,
    meters: RequestInstruments,
}

impl LocalClient {
    /// Creates a client, with the queue of commands for the role's loop.
    pub(super) fn new<R: Role, S: Store>(
        queries: Queries<R, S>,
        role: &'static str,
        limits: &Limits,
        tasks: Arc<TaskSet>,
    ) -> (Self, mpsc::Receiver<QueuedCommand>) {
        let (commands, waiting) = mpsc::channel(limits.waiting_commands.max(1));
        let local_client = Self(Arc::new(Inner {
            commands,
            queries: Box::new(queries),
            in_flight: Semaphore::new(limits.queries),
            retry_after: limits.retry_after,
            tasks,
            meters: RequestInstruments::new(role),
        }));
        (local_client, waiting)
    }

    /// Calls [`LocalClient::execute`] or [`LocalClient::query`], by the request's kind.
    ///
    /// # Errors
    /// See [`LocalCallError`]. A rejection is a result.
    pub async fn call(&self, request: Request) -> Result<RequestResult, LocalCallError> {
        match request.act {
            RequestKind::Command => self.execute(request).await,
            RequestKind::Query => self.query(request).await,
        }
    }

    /// Executes a command. Returns once its result is durable, at the deadline at the latest.
    ///
    /// May be cancelled: a command that was not started is then never started.
    ///
    /// # Errors
    /// See [`LocalCallError`]. A rejection is a result.
    pub async fn execute(&self, request: Request) -> Result<RequestResult, LocalCallError> {
        let left = time_remaining(&request)?;
        let (answer, answered) = oneshot::channel();
        let waiting = QueuedCommand::new(request, DeliveryHistory::First, ReplyTo::Local(answer));
        self.take(waiting).map_err(|(_, error)| error)?;
        match timeout(left, answered).await {
            Err(_) => Err(LocalCallError::TimedOut),
            Ok(Err(_)) => Err(LocalCallError::Closed),
            Ok(Ok(answer)) => answer,
        }
    }

    /// Serves a query from the present states. May be cancelled.
    ///
    /// # Errors
    /// See [`LocalCallError`]. A rejection is a result.
    pub async fn query(&self, request: Request) -> Result<RequestResult, LocalCallError> {
        let left = time_remaining(&request)?;
        let began = Instant::now();
        let counter = &self.0;
        let Ok(_permit) = counter.in_flight.try_acquire() else {
            return Err(self.overloaded());
        };
        let answer = timeout(left, counter.queries.answer(&request)).await;
        let answer = answer.map_err(|_| LocalCallError::TimedOut)?;
        let answer = answer.map_err(|error| LocalCallError::Unavailable {
            reason: error.to_string(),
        })?;
        let took = began.elapsed();
        counter.meters.ended(RequestKind::Query, &answer, took);
        Ok(answer)
    }

    /// Hands a command to the loop, or returns it with the reason why not. Rejects one that only the runtime may send: the
    /// result or the outcome of a task.
    pub(super) fn take(
        &self,
        waiting: QueuedCommand,
    ) -> Result<(), (Box<QueuedCommand>, LocalCallError)> {
        let kind = &waiting.request.kind;
        if kind.as_str() == TaskOutcome::TYPE || self.0.tasks.is_output(kind) {
            let detail = format!("{kind} ends a task, and only the role's own process sends it");
            let rejected = Rejection::new(Rejection::FORBIDDEN, detail);
            let decided = CommandResult::Answer(Err(rejected));
            waiting.caller.reply(decided, &self.0.meters);
            return Ok(());
        }
        self.0
            .commands
            .try_send(waiting)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(waiting) => (Box::new(waiting), self.overloaded()),
                mpsc::error::TrySendError::Closed(waiting) => {
                    (Box::new(waiting), LocalCallError::Closed)
                }
            })
    }

    fn overloaded(&self) -> LocalCallError {
        LocalCallError::Overloaded {
            retry_after: self.retry_after(),
        }
    }

    /// Returns the delay that an overload error recommends.
    pub(super) fn retry_after(&self) -> std::time::Duration {
        self.0.retry_after
    }
}

/// Returns the time until the request's deadline.
fn time_remaining(request: &Request) -> Result<std::time::Duration, LocalCallError> {
    let left = request.deadline.duration_since(Timestamp::now());
    match std::time::Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Ok(left),
        _ => Err(LocalCallError::TimedOut),
    }
}
