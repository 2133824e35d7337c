//! The publisher's task: connects, declares, publishes, and does it all again after any error, until it is told to stop.

use std::{sync::Arc, time::Duration};

use lapin::{Channel, options::ConfirmSelectOptions, types::ShortString};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Outcome,
    jobs::{Job, Jobs},
    serve::{End, Served, serve},
};
use crate::{
    connection::{Connection, Dialer, broke},
    counts::PublishCells,
    declare::declare,
    error::{ConnectError, ConnectErrorKind, Refusal},
    link::LinkReport,
    names::QueueName,
    rights::DEFAULT_EXCHANGE,
    topology::Topology,
    verify::{check_user_id, may_publish},
};

/// All that the task owns. When it ends, so does everything of it.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) report: LinkReport,
    pub(super) inbox: mpsc::Receiver<Job>,
    pub(super) stopped: mpsc::Receiver<Duration>,
    pub(super) counts: Arc<PublishCells>,
}

impl Drop for Task {
    /// Whatever ends the task, be it a panic, nobody waits for it in vain.
    fn drop(&mut self) {
        self.report.closed();
    }
}

/// What it needs to publish.
struct Line {
    connection: Connection,
    channel: Channel,
    /// Of the messages that it publishes.
    user_id: Option<ShortString>,
    created: Vec<QueueName>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut jobs = Jobs::new(self.counts.clone());
        let mut failures = 0;
        let events_exchange = self.dialer.settings().namespace.events_exchange();
        let mut outage_began = Instant::now();
        let mut right = Right::Taken;
        let mut is_checked = false;
        loop {
            let (settings, dialer, topology) =
                (self.dialer.settings(), &self.dialer, &self.topology);
            let connecting = async {
                settings.backoff_after(failures).await;
                let line = connect(dialer, topology).await?;
                if let Right::Doubted { exchange } = &right {
                    let limit = settings.connect_timeout;
                    may_publish(&line.connection, exchange, limit).await?;
                }
                if !is_checked {
                    let limit = settings.connect_timeout;
                    let (connection, exchange) = (&line.connection, &events_exchange);
                    if let Some(user_id) = &line.user_id {
                        check_user_id(connection, topology, exchange, user_id, limit).await?;
                    }
                }
                Ok(line)
            };
            let mut waiting = Waiting {
                inbox: &mut self.inbox,
                stopped: &mut self.stopped,
                jobs: &mut jobs,
                until: outage_began + settings.outage_timeout,
            };
            let mut line = match waiting.during(connecting).await {
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    failures += 1;
                    self.report.lost(error);
                    continue;
                }
                // Told to stop: without a connection there is nothing left to do.
                None => break,
            };
            is_checked = true;
            self.report.connected(std::mem::take(&mut line.created));
            let connected_at = Instant::now();
            let end = loop {
                let settings = self.dialer.settings();
                let end = serve(Served {
                    channel: &line.channel,
                    settings,
                    health: line.connection.health(),
                    report: &self.report,
                    counts: &self.counts,
                    inbox: &mut self.inbox,
                    stopped: &mut self.stopped,
                    jobs: &mut jobs,
                    events_exchange: &events_exchange,
                    user_id: line.user_id.as_ref(),
                })
                .await;
                if !matches!(end, End::ChannelClosed) {
                    break end;
                }
                match confirming(&line.connection, settings.connect_timeout).await {
                    Ok(channel) => line.channel = channel,
                    Err(error) => break End::Lost(error.to_string()),
                }
            };
            match end {
                // The loop above goes on after this one.
                End::ChannelClosed => {}
                End::Lost(reason) => {
                    outage_began = Instant::now();
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    let error = broke(line.connection.address(), &reason);
                    right = match error.kind() {
                        ConnectErrorKind::Refused(Refusal::UserId) => {
                            is_checked = false;
                            Right::Taken
                        }
                        // Some programs publish to one of the two only.
                        ConnectErrorKind::Refused(_) if reason.contains(DEFAULT_EXCHANGE) => {
                            Right::Doubted {
                                exchange: String::new(),
                            }
                        }
                        ConnectErrorKind::Refused(_) => Right::Doubted {
                            exchange: events_exchange.clone(),
                        },
                        _ => Right::Taken,
                    };
                    self.report.lost(error);
                }
                End::Stopped(left) => {
                    line.connection.close(left).await;
                    break;
                }
            }
        }
        self.inbox.close();
        jobs.resolve_waiting(Outcome::Disconnected);
        while let Ok(job) = self.inbox.try_recv() {
            jobs.take_in(job);
            jobs.resolve_waiting(Outcome::Disconnected);
        }
    }
}

/// True if the user may publish.
enum Right {
    /// Taken for granted: asking leaves a line in the broker's log.
    Taken,
    /// The broker ended the last connection for want of a right to this exchange. Connecting alone would be no progress then, only the
    /// next to be ended.
    Doubted { exchange: String },
}

async fn connect(dialer: &Dialer, topology: &Topology) -> Result<Line, ConnectError> {
    let limit = dialer.settings().connect_timeout;
    let connection = dialer.open().await?;
    let created = declare(&connection, topology, limit).await?;
    let channel = confirming(&connection, limit).await?;
    Ok(Line {
        user_id: dialer.settings().user_id_at(connection.address()),
        connection,
        channel,
        created,
    })
}

/// Opens a channel that confirms.
async fn confirming(connection: &Connection, limit: Duration) -> Result<Channel, ConnectError> {
    let channel = connection.channel(limit).await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    match timeout(limit, select).await {
        Ok(Ok(())) => Ok(channel),
        Ok(Err(error)) => Err(connection.failure(&error)),
        Err(_) => Err(ConnectError::new(
            ConnectErrorKind::Silent,
            format!("{} does not answer for {limit:?}", connection.address()),
        )),
    }
}

/// The calls that come while there is no connection: they wait a while, then hear so.
struct Waiting<'a> {
    inbox: &'a mut mpsc::Receiver<Job>,
    stopped: &'a mut mpsc::Receiver<Duration>,
    jobs: &'a mut Jobs,
    until: Instant,
}

impl Waiting<'_> {
    /// Runs this to its end, or returns `None` when told to stop.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut inbox_open = true;
        loop {
            let impatient = self.until <= Instant::now();
            if impatient {
                self.jobs.resolve_waiting(Outcome::Disconnected);
            }
            // Arms may be cancelled: the work is pinned outside and goes on, the channels lose nothing, the time is a fixed one.
            let patience = timeout_at(self.until, std::future::pending::<()>());
            tokio::select! {
                done = &mut work => return Some(done),
                _ = patience, if !impatient => {}
                job = self.inbox.recv(), if impatient && inbox_open => match job {
                    Some(job) => self.jobs.take_in(job),
                    None => inbox_open = false,
                },
                _ = self.stopped.recv() => return None,
            }
            // Every handle is gone, and with it everyone who could wait for an outcome.
            if !inbox_open && self.jobs.is_empty() {
                return None;
            }
        }
    }
}
