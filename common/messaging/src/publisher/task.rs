//! The publisher's task: connects, declares, publishes, and repeats this after any error until it is stopped.

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
    admin::verify::{check_user_id, may_publish},
    connection::{
        Connection, Dialer, connection_lost,
        error::{ConnectError, ConnectErrorKind, Refusal},
        status::StatusReporter,
    },
    counts::PublisherCounters,
    topology::{Topology, declare::declare, names::QueueName, permissions::DEFAULT_EXCHANGE},
};

/// State of the task. Dropped with everything in it when the task ends.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) report: StatusReporter,
    pub(super) inbox: mpsc::Receiver<PublishCall>,
    pub(super) stopped: mpsc::Receiver<Duration>,
    pub(super) counts: Arc<PublisherCounters>,
}

impl Drop for Task {
    /// However the task ends, even by a panic, no caller waits forever.
    fn drop(&mut self) {
        self.report.closed();
    }
}

struct PublisherConnection {
    connection: Connection,
    channel: Channel,
    /// User id of its messages.
    user_id: Option<ShortString>,
    created: Vec<QueueName>,
}

impl Task {
    pub(super) async fn run(mut self) {
        let mut calls = PublishCalls::new(self.counts.clone());
        let mut failures = 0;
        let events_exchange = self.dialer.settings().namespace.events_exchange();
        let mut outage_began = Instant::now();
        let mut permission = WritePermission::Assumed;
        let mut is_checked = false;
        loop {
            let (settings, dialer, topology) =
                (self.dialer.settings(), &self.dialer, &self.topology);
            let connecting = async {
                settings.backoff_after(failures).await;
                let publishing = connect(dialer, topology).await?;
                if let WritePermission::Unverified { exchange } = &permission {
                    let limit = settings.connect_timeout;
                    may_publish(&publishing.connection, exchange, limit).await?;
                }
                if !is_checked {
                    let limit = settings.connect_timeout;
                    let (connection, exchange) = (&publishing.connection, &events_exchange);
                    if let Some(user_id) = &publishing.user_id {
                        check_user_id(connection, topology, exchange, user_id, limit).await?;
                    }
                }
                Ok(publishing)
            };
            let mut waiting = WaitingCalls {
                inbox: &mut self.inbox,
                stopped: &mut self.stopped,
                calls: &mut calls,
                until: outage_began + settings.outage_timeout,
            };
            let mut publishing = match waiting.while_connecting(connecting).await {
                Some(Ok(publishing)) => publishing,
                Some(Err(error)) => {
                    failures += 1;
                    self.report.lost(error);
                    continue;
                }
                // The publisher was stopped while connecting.
                None => break,
            };
            is_checked = true;
            self.report
                .connected(std::mem::take(&mut publishing.created));
            let connected_at = Instant::now();
            let end = loop {
                let settings = self.dialer.settings();
                let end = run(PublishLoop {
                    channel: &publishing.channel,
                    settings,
                    health: publishing.connection.health(),
                    report: &self.report,
                    counts: &self.counts,
                    inbox: &mut self.inbox,
                    stopped: &mut self.stopped,
                    calls: &mut calls,
                    events_exchange: &events_exchange,
                    user_id: publishing.user_id.as_ref(),
                })
                .await;
                if !matches!(end, LoopExit::ChannelClosed) {
                    break end;
                }
                match confirm_channel(&publishing.connection, settings.connect_timeout).await {
                    Ok(channel) => publishing.channel = channel,
                    Err(error) => break LoopExit::Lost(error.to_string()),
                }
            };
            match end {
                // Unreachable: the inner loop continues in this case.
                LoopExit::ChannelClosed => {}
                LoopExit::Lost(reason) => {
                    outage_began = Instant::now();
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    let error = connection_lost(publishing.connection.address(), &reason);
                    is_checked &= error.kind() != ConnectErrorKind::Refused(Refusal::UserId);
                    permission = WritePermission::after(error.kind(), &reason, &events_exchange);
                    self.report.lost(error);
                }
                LoopExit::Stopped(left) => {
                    publishing.connection.close(left).await;
                    break;
                }
            }
        }
        self.inbox.close();
        calls.resolve_waiting(PublishOutcome::Disconnected);
        while let Ok(call) = self.inbox.try_recv() {
            calls.start(call);
            calls.resolve_waiting(PublishOutcome::Disconnected);
        }
    }
}

/// The user's permission to publish.
enum WritePermission {
    /// Assumed, because a check would leave a line in the broker's log.
    Assumed,
    /// The broker closed the last connection for a missing permission on this exchange. Another connection would only be closed again, so
    /// check first.
    Unverified { exchange: String },
}

impl WritePermission {
    /// Returns the permission to assume after a connection was lost for this reason.
    fn after(kind: ConnectErrorKind, reason: &str, events_exchange: &str) -> Self {
        match kind {
            ConnectErrorKind::Refused(Refusal::UserId) => Self::Assumed,
            // Some programs publish to only one of the two exchanges.
            ConnectErrorKind::Refused(_) if reason.contains(DEFAULT_EXCHANGE) => Self::Unverified {
                exchange: String::new(),
            },
            ConnectErrorKind::Refused(_) => Self::Unverified {
                exchange: events_exchange.to_owned(),
            },
            _ => Self::Assumed,
        }
    }
}

async fn connect(
    dialer: &Dialer,
    topology: &Topology,
) -> Result<PublisherConnection, ConnectError> {
    let limit = dialer.settings().connect_timeout;
    let connection = dialer.open().await?;
    let created = declare(&connection, topology, limit).await?;
    let channel = confirm_channel(&connection, limit).await?;
    Ok(PublisherConnection {
        user_id: dialer.settings().user_id_at(connection.address()),
        connection,
        channel,
        created,
    })
}

/// Opens a channel in confirm mode.
async fn confirm_channel(
    connection: &Connection,
    limit: Duration,
) -> Result<Channel, ConnectError> {
    let channel = connection.channel(limit).await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    match timeout(limit, select).await {
        Ok(Ok(())) => Ok(channel),
        Ok(Err(error)) => Err(connection.failure(&error)),
        Err(_) => Err(ConnectError::new(
            ConnectErrorKind::Silent,
            format!("{} has not responded for {limit:?}", connection.address()),
        )),
    }
}

/// Calls during an outage: they wait for a while, then get an outcome.
struct WaitingCalls<'a> {
    inbox: &'a mut mpsc::Receiver<PublishCall>,
    stopped: &'a mut mpsc::Receiver<Duration>,
    calls: &'a mut PublishCalls,
    until: Instant,
}

impl WaitingCalls<'_> {
    /// Runs `work` to its end. Returns `None` if the publisher is stopped.
    async fn while_connecting<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut inbox_open = true;
        loop {
            let overdue = self.until <= Instant::now();
            if overdue {
                self.calls.resolve_waiting(PublishOutcome::Disconnected);
            }
            // Cancel-safe: the work is pinned outside and continues, the channels lose nothing, and the deadline is fixed.
            let deadline = timeout_at(self.until, std::future::pending::<()>());
            tokio::select! {
                done = &mut work => return Some(done),
                _ = deadline, if !overdue => {}
                call = self.inbox.recv(), if overdue && inbox_open => match call {
                    Some(call) => self.calls.start(call),
                    None => inbox_open = false,
                },
                _ = self.stopped.recv() => return None,
            }
            // Every handle is dropped, so no caller can wait for an outcome.
            if !inbox_open && self.calls.is_empty() {
                return None;
            }
        }
    }
}
