//! The reconnect loop of publishers, subscriptions, RPC clients and RPC servers. It connects, declares the topology, claims the queues and
//! serves, and repeats this after any error until it is stopped.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    Connection, Dialer, Health, changed, connection_lost,
    error::{ConnectError, ConnectErrorKind},
    status::{ConnectionPhase, ConnectionStatus, StatusReporter},
};
use crate::{
    settings::BrokerSettings,
    topology::{Topology, declare::declare, names::QueueName, owner::OwnerClaim},
};

/// The work of one publisher, subscription, client or server on its connections. Dropped before the status says that it is closed.
pub(crate) trait Supervised {
    /// Channels, consumers and tasks on one connection.
    type Open;

    /// Opens them on a new connection, whose topology is declared. Cancel-safe: a dropped attempt shuts its connection's socket down.
    async fn open(
        &self,
        context: &Context,
        connection: &Connection,
    ) -> Result<Self::Open, ConnectError>;

    /// Runs until the connection is unusable or the task is stopped.
    async fn serve(
        &mut self,
        context: &Context,
        connection: &Connection,
        open: &mut Self::Open,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> Exit;

    /// Ends the work on a lost connection, or on one that failed before it was `open`. Called before the loss is reported. `reason` is the
    /// broker's text or lapin's.
    fn lost(&mut self, open: Option<&Self::Open>, reason: &str, error: &ConnectError);

    /// Finishes the work in progress and closes the connection, within about `grace`.
    async fn drain(
        &mut self,
        context: &Context,
        connection: Connection,
        open: Self::Open,
        grace: Duration,
    );

    /// Runs an attempt to connect to its end. Returns `None` if a connection is of no use any more.
    async fn while_connecting<T>(
        &self,
        _context: &Context,
        attempt: impl Future<Output = T>,
    ) -> Option<T> {
        Some(attempt.await)
    }

    /// Waits until a suspended connection is needed again. Cancel-safe.
    async fn resumed(&self) {}
}

/// The end of the work on a connection.
pub(crate) enum Exit {
    /// The connection is unusable, for this reason.
    Lost(String),
    /// A delivery was unacked for this long, so the connection is closed until the task [resumes](Supervised::resumed).
    Suspended(Duration),
    /// The time left to close.
    Stopped(Duration),
}

/// The settings, topology and status of a supervised connection.
pub(crate) struct Context {
    dialer: Dialer,
    pub(crate) topology: Topology,
    claim: Option<OwnerClaim>,
    pub(crate) report: StatusReporter,
}

/// Rebuilds a connection until it is stopped by its [`Handle`].
pub(crate) struct Supervisor {
    context: Context,
    stopped: mpsc::Receiver<Duration>,
}

struct Opened<T> {
    // Dropped first, which shuts the socket down.
    connection: Connection,
    open: T,
    created: Vec<QueueName>,
}

impl Supervisor {
    pub(crate) fn new(
        settings: &BrokerSettings,
        connection_name: &str,
        topology: Topology,
        claim: Option<OwnerClaim>,
    ) -> (Self, Handle) {
        let (report, state) = StatusReporter::new(connection_name);
        let (stop, stopped) = mpsc::channel(1);
        let context = Context {
            dialer: Dialer::new(settings, connection_name),
            topology,
            claim,
            report,
        };
        (Self { context, stopped }, Handle { state, stop })
    }

    pub(crate) async fn run(self, task: impl Supervised) {
        let Self {
            context,
            mut stopped,
        } = self;
        // Dropped before the context, whose drop reports the end: however the task ends, no caller waits forever.
        let mut task = task;
        let mut failures = 0;
        loop {
            let attempt = context.connect(&task, failures);
            // Both arms are cancel-safe: a dropped attempt shuts its socket down before anything was published or taken on it.
            let connected = tokio::select! {
                connected = task.while_connecting(&context, attempt) => connected,
                _ = stopped.recv() => None,
            };
            let mut opened = match connected {
                Some(Ok(opened)) => opened,
                Some(Err(error)) => {
                    failures += 1;
                    task.lost(None, "", &error);
                    context.report.lost(error);
                    continue;
                }
                None => break,
            };
            context
                .report
                .connected(std::mem::take(&mut opened.created));
            let connected_at = Instant::now();
            let Opened {
                connection, open, ..
            } = &mut opened;
            match task.serve(&context, connection, open, &mut stopped).await {
                Exit::Lost(reason) => {
                    let error = connection_lost(connection.address(), &reason);
                    task.lost(Some(open), &reason, &error);
                    failures = context
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    context.report.lost(error);
                }
                Exit::Suspended(unacked_for) => {
                    failures = 0;
                    context.report.suspended(unacked_for);
                    opened
                        .connection
                        .close(context.settings().settle_timeout)
                        .await;
                    // Both arms are cancel-safe: neither takes anything.
                    tokio::select! {
                        () = task.resumed() => {}
                        _ = stopped.recv() => break,
                    }
                }
                Exit::Stopped(grace) => {
                    context.report.draining();
                    task.drain(&context, opened.connection, opened.open, grace)
                        .await;
                    break;
                }
            }
        }
    }
}

impl Context {
    pub(crate) fn settings(&self) -> &BrokerSettings {
        self.dialer.settings()
    }

    async fn connect<T: Supervised>(
        &self,
        task: &T,
        failures: u32,
    ) -> Result<Opened<T::Open>, ConnectError> {
        let settings = self.settings();
        let limit = settings.connect_timeout;
        settings.backoff_after(failures).await;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        if let Some(claim) = &self.claim {
            let claimed = claim.check(&connection, &settings.namespace, limit).await?;
            self.report.claimed(claimed);
        }
        Ok(Opened {
            open: task.open(self, &connection).await?,
            connection,
            created,
        })
    }

    /// Runs `work` until it ends, the connection is unusable, or the task is stopped. `probe` ends with the reason if the broker does not
    /// respond; it is paused while the broker blocks the connection, since a blocked connection gets no responses. `blocked` is called with
    /// the broker's reason, and with `None` when it ends.
    pub(crate) async fn watch<P: Future<Output = String>>(
        &self,
        connection: &Connection,
        stopped: &mut mpsc::Receiver<Duration>,
        probe: impl Fn() -> P,
        work: impl Future<Output = Exit>,
        blocked: impl Fn(Option<&str>),
    ) -> Exit {
        let mut health = connection.health();
        let mut probing = std::pin::pin!(probe());
        let mut work = std::pin::pin!(work);
        let mut is_blocked = false;
        loop {
            // Every arm waits for a condition that stays true or for a message that stays in its channel. Pinned futures continue where
            // they were.
            tokio::select! {
                reason = &mut probing, if !is_blocked => return Exit::Lost(reason),
                exit = &mut work => return exit,
                health = changed(&mut health) => match health {
                    Health::Lost(reason) => return Exit::Lost(reason),
                    Health::Blocked(reason) => {
                        is_blocked = true;
                        blocked(Some(&reason));
                        self.report.blocked(reason);
                    }
                    Health::Open => {
                        is_blocked = false;
                        probing.set(probe());
                        blocked(None);
                        self.report.unblocked();
                    }
                },
                // If the channel is closed, every handle was dropped.
                grace = stopped.recv() => {
                    return Exit::Stopped(grace.unwrap_or(self.settings().settle_timeout));
                }
            }
        }
    }
}

/// Observes and stops a supervisor. Once all clones are dropped, the supervisor stops too.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    state: watch::Receiver<ConnectionStatus>,
    stop: mpsc::Sender<Duration>,
}

impl Handle {
    pub(crate) fn state(&self) -> watch::Receiver<ConnectionStatus> {
        self.state.clone()
    }

    /// Waits for the first connection.
    ///
    /// # Errors
    /// Returns a permanent error at once, or the latest error after `limit`.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<(), ConnectError> {
        let mut state = self.state();
        let ended = state.wait_for(|state| {
            state.connections > 0
                || state.phase == ConnectionPhase::Closed
                || state
                    .last_error
                    .as_ref()
                    .is_some_and(ConnectError::is_permanent)
        });
        // Clones and drops the guard at once: it would block the writer.
        let ended = timeout(limit, ended).await.ok();
        let status = ended.and_then(|status| Some(status.ok()?.clone()));
        let status = status.unwrap_or_else(|| self.state.borrow().clone());
        match status.last_error {
            _ if status.connections > 0 => Ok(()),
            Some(error) => Err(error),
            None => Err(ConnectError::new(
                ConnectErrorKind::Unreachable,
                format!("no connection to the broker within {limit:?}"),
            )),
        }
    }

    /// Stops the supervisor and waits for its end, at most `grace` and 5 s.
    pub(crate) async fn close(&self, grace: Duration) {
        // Fails if the task has ended or is already closing.
        let _ = self.stop.try_send(grace);
        let mut state = self.state();
        let closed = state.wait_for(|state| state.phase == ConnectionPhase::Closed);
        // The task observes `grace` itself; this guards against a hanging task.
        let _ = timeout(grace + Duration::from_secs(5), closed).await;
    }
}
