//! The publisher's task: connects, declares, publishes, and does it all again after any error, until it is told to stop.

use std::{sync::Arc, time::Duration};

use lapin::{Channel, options::ConfirmSelectOptions, types::ShortString};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    PublishOutcome,
    calls::{PublishCall, PublishCalls},
    publish_loop::{LoopExit, PublishLoop, run},
};
use crate::{
    connection::{Connection, Dialer, connection_lost},
    connection_status::StatusReporter,
    counts::PublisherCounters,
    declare::declare,
    error::{ConnectError, ConnectErrorKind, Refusal},
    names::QueueName,
    permissions::DEFAULT_EXCHANGE,
    topology::Topology,
    verify::{check_user_id, may_publish},
};

/// All that the task owns. When it ends, so does everything of it.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) report: StatusReporter,
    pub(super) inbox: mpsc::Receiver<PublishCall>,
    pub(super) stopped: mpsc::Receiver<Duration>,
    pub(super) counts: Arc<PublisherCounters>,
}

impl Drop for Task {
    /// Whatever ends the task, be it a panic, nobody waits for it in vain.
    fn drop(&mut self) {
        self.report.closed();
    }
}

/// What it needs to publish.
struct PublisherConnection {
    connection: Connection,
    channel: Channel,
    /// Of the messages that it publishes.
    user_id: Option<ShortString>,
    created: Vec<QueueName>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut jobs = PublishCalls::new(self.counts.clone());
        let mut failures = 0;
        let events_exchange = self.dialer.settings().namespace.events_exchange();
        let mut outage_began = Instant::now();
        let mut right = WritePermission::Assumed;
        let mut is_checked = false;
        loop {
            let (settings, dialer, topology) =
                (self.dialer.settings(), &self.dialer, &self.topology);
            let connecting = async {
                settings.backoff_after(failures).await;
                let line = connect(dialer, topology).await?;
                if let WritePermission::Unverified { exchange } = &right {
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
            let mut waiting = WaitingCalls {
                inbox: &mut self.inbox,
                stopped: &mut self.stopped,
                jobs: &mut jobs,
                until: outage_began + settings.outage_timeout,
            };
            let mut line = match waiting.while_connecting(connecting).await {
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
                let end = run(PublishLoop {
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
                if !matches!(end, LoopExit::ChannelClosed) {
                    break end;
                }
                match confirming(&line.connection, settings.connect_timeout).await {
                    Ok(channel) => line.channel = channel,
                    Err(error) => break LoopExit::Lost(error.to_string()),
                }
            };
            match end {
                // The loop above goes on after this one.
                LoopExit::ChannelClosed => {}
                LoopExit::Lost(reason) => {
                    outage_began = Instant::now();
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    let error = connection_lost(line.connection.address(), &reason);
                    right = match error.kind() {
                        ConnectErrorKind::Refused(Refusal::UserId) => {
                            is_checked = false;
                            WritePermission::Assumed
                        }
                        // Some programs publish to one of the two only.
                        ConnectErrorKind::Refused(_) if reason.contains(DEFAULT_EXCHANGE) => {
                            WritePermission::Unverified {
                                exchange: String::new(),
                            }
                        }
                        ConnectErrorKind::Refused(_) => WritePermission::Unverified {
                            exchange: events_exchange.clone(),
                        },
                        _ => WritePermission::Assumed,
                    };
                    self.report.lost(error);
                }
                LoopExit::Stopped(left) => {
                    line.connection.close(left).await;
                    break;
                }
            }
        }
        self.inbox.close();
        jobs.resolve_waiting(PublishOutcome::Disconnected);
        while let Ok(job) = self.inbox.try_recv() {
            jobs.take_in(job);
            jobs.resolve_waiting(PublishOutcome::Disconnected);
        }
    }
}

/// True if the user may publish.
enum WritePermission {
    /// Taken for granted: asking leaves a line in the broker's log.
    Assumed,
    /// The broker ended the last connection for want of a right to this exchange. Connecting alone would be no progress then, only the
    /// next to be ended.
    Unverified { exchange: String },
}

async fn connect(
    dialer: &Dialer,
    topology: &Topology,
) -> Result<PublisherConnection, ConnectError> {
    let limit = dialer.settings().connect_timeout;
    let connection = dialer.open().await?;
    let created = declare(&connection, topology, limit).await?;
    let channel = confirming(&connection, limit).await?;
    Ok(PublisherConnection {
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
struct WaitingCalls<'a> {
    inbox: &'a mut mpsc::Receiver<PublishCall>,
    stopped: &'a mut mpsc::Receiver<Duration>,
    jobs: &'a mut PublishCalls,
    until: Instant,
}

impl WaitingCalls<'_> {
    /// Runs this to its end, or returns `None` when told to stop.
    async fn while_connecting<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut inbox_open = true;
        loop {
            let impatient = self.until <= Instant::now();
            if impatient {
                self.jobs.resolve_waiting(PublishOutcome::Disconnected);
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
