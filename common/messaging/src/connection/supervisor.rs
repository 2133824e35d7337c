//! The reconnect loop of publishers, subscriptions, RPC clients and RPC servers. It connects, declares the topology, claims the queues and
//! serves, and repeats this after any error until it is stopped.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    Connection, Dialer, Health, changed, connection_lost,
    error::{ConnectError, Result},
    status::{ConnectionPhase, ConnectionStatus, StatusReporter},
};
use crate::{
    settings::BrokerSettings,
    topology::{Topology, declare::declare, names::QueueName, queue_owner::OwnerClaim},
};

/// A message with the time left to close; the channel is closed once every handle is dropped.
pub(crate) type StopReceiver = mpsc::Receiver<Duration>;

/// Minimum time to close a connection.
const MIN_CLOSE_TIMEOUT: Duration = Duration::from_millis(5);

/// The work of one publisher, subscription, client or server on its connections. Dropped before the status says that it is closed.
pub(crate) trait Supervised {
    /// Channels, consumers and tasks on one connection.
    type Resources;

    /// Opens them on a new connection, whose topology is declared. Cancel-safe: a dropped attempt shuts its connection's socket down.
    async fn open(&self, context: &Context<'_>) -> Result<Self::Resources>;

    /// Runs until the connection is unusable or the task is stopped.
    async fn serve(
        &mut self,
        context: &Context<'_>,
        open: &mut Self::Resources,
        stop: &mut StopReceiver,
    ) -> Exit;

    /// Ends the work on a lost connection, or on one that failed before it was `open`. Called before the loss is reported. `reason` is the
    /// broker's text or lapin's.
    fn lost(&mut self, open: Option<&Self::Resources>, reason: &str, error: &ConnectError);

    /// Stops taking new work. Called before the status says that the connection is draining, so that nothing starts after it. A task
    /// that drains inside `serve` reports that itself.
    fn end_intake(&mut self) {}

    /// Finishes the work in progress, at most until then. The connection is closed afterwards.
    async fn drain(&mut self, _: &Context<'_>, _: &mut Self::Resources, _until: Instant) {}

    /// Runs an attempt to connect to its end. Returns `None` if a connection is of no use any more.
    async fn while_connecting<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
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

/// One connection, with the settings, topology and status of its supervisor.
pub(crate) struct Context<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) settings: &'a BrokerSettings,
    pub(crate) topology: &'a Topology,
    pub(crate) report: &'a StatusReporter,
}

/// Rebuilds a connection until it is stopped by its [`Handle`].
pub(crate) struct Supervisor {
    connector: Connector,
    stop: StopReceiver,
}

/// Opens the connections.
struct Connector {
    dialer: Dialer,
    topology: Topology,
    claim: Option<OwnerClaim>,
    report: StatusReporter,
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
        let (sender, stop) = mpsc::channel(1);
        let connector = Connector {
            dialer: Dialer::new(settings, connection_name),
            topology,
            claim,
            report,
        };
        (
            Self { connector, stop },
            Handle {
                state,
                stop: sender,
            },
        )
    }

    pub(crate) async fn run(self, task: impl Supervised) {
        let Self {
            connector,
            mut stop,
        } = self;
        let (settings, report) = (connector.dialer.settings(), &connector.report);
        // Dropped before the reporter, whose drop reports the end: however the task ends, no caller waits forever.
        let mut task = task;
        let mut failures = 0;
        loop {
            let attempt = connector.connect(&task, failures);
            // Both arms are cancel-safe: a dropped attempt shuts its socket down before anything was published or taken on it.
            let connected = tokio::select! {
                connected = task.while_connecting(attempt) => connected,
                _ = stop.recv() => None,
            };
            let mut opened = match connected {
                Some(Ok(opened)) => opened,
                Some(Err(error)) => {
                    failures += 1;
                    task.lost(None, "", &error);
                    report.lost(error);
                    continue;
                }
                None => break,
            };
            report.connected(std::mem::take(&mut opened.created));
            let connected_at = Instant::now();
            let Opened {
                connection, open, ..
            } = &mut opened;
            let context = connector.context(connection);
            match task.serve(&context, open, &mut stop).await {
                Exit::Lost(reason) => {
                    let error = connection_lost(connection.address(), &reason);
                    task.lost(Some(open), &reason, &error);
                    failures = settings.failures_after(failures, connected_at.elapsed());
                    report.lost(error);
                }
                Exit::Suspended(unacked_for) => {
                    failures = 0;
                    report.suspended(unacked_for);
                    opened.connection.close(settings.ack_write_timeout).await;
                    // Both arms are cancel-safe: neither takes anything.
                    tokio::select! {
                        () = task.resumed() => {}
                        _ = stop.recv() => break,
                    }
                }
                Exit::Stopped(grace) => {
                    task.end_intake();
                    report.draining();
                    let until = Instant::now() + grace;
                    task.drain(&context, open, until).await;
                    let left = until.saturating_duration_since(Instant::now());
                    opened.connection.close(left.max(MIN_CLOSE_TIMEOUT)).await;
                    break;
                }
            }
        }
    }
}

impl Connector {
    fn context<'a>(&'a self, connection: &'a Connection) -> Context<'a> {
        Context {
            connection,
            settings: self.dialer.settings(),
            topology: &self.topology,
            report: &self.report,
        }
    }

    async fn connect<T: Supervised>(
        &self,
        task: &T,
        failures: u32,
    ) -> Result<Opened<T::Resources>> {
        let settings = self.dialer.settings();
        let limit = settings.connect_timeout;
        settings.backoff_after(failures).await;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        if let Some(claim) = &self.claim {
            let claimed = claim.check(&connection, &settings.namespace, limit).await?;
            self.report.claimed(claimed);
        }
        Ok(Opened {
            open: task.open(&self.context(&connection)).await?,
            connection,
            created,
        })
    }
}

impl Context<'_> {
    /// Runs `work` until it ends, the connection is unusable, or the task is stopped. `probe` ends with the reason if the broker does not
    /// respond; it is paused while the broker blocks the connection, since a blocked connection gets no responses. `blocked` is called with
    /// the broker's reason, and with `None` when it ends.
    pub(crate) async fn watch<P: Future<Output = String>>(
        &self,
        stop: &mut StopReceiver,
        probe: impl Fn() -> P,
        work: impl Future<Output = Exit>,
        blocked: impl Fn(Option<&str>),
    ) -> Exit {
        let mut health = self.connection.health();
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
                grace = stop.recv() => {
                    return Exit::Stopped(grace.unwrap_or(self.settings.ack_write_timeout));
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
    pub(crate) fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.state.clone()
    }

    /// Waits for the first connection.
    ///
    /// # Errors
    /// Returns a permanent error at once, or the latest error after `limit`.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<()> {
        let mut state = self.status();
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
            None => Err(ConnectError::unreachable(format!(
                "no connection to the broker within {limit:?}"
            ))),
        }
    }

    /// Stops the supervisor and waits for its end, at most `grace` and 5 s.
    pub(crate) async fn close(&self, grace: Duration) {
        // Fails if the task has ended or is already closing.
        let _ = self.stop.try_send(grace);
        let mut state = self.status();
        let closed = state.wait_for(|state| state.phase == ConnectionPhase::Closed);
        // The task observes `grace` itself; this guards against a hanging task.
        let _ = timeout(grace + Duration::from_secs(5), closed).await;
    }
}
