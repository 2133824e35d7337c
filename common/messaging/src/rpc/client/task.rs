//! The RPC client's task: connects, declares, enables sending, and repeats this after any error until it is stopped.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, ConfirmSelectOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Shared,
    cancel::{Cancel, publish_cancellation},
    liveness::monitor,
    request_sender::Channels,
};
use crate::{
    connection::{
        Connection, Dialer, Health, Undecodable, connection_lost, describe,
        error::{ConnectError, ConnectErrorKind},
        status::StatusReporter,
    },
    rpc::{codec, error::CallError},
    topology::{Topology, declare::declare, names::QueueName},
};

/// Interval of polling confirms while any are pending: the maximum delay of a rejection by the broker.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// State of the task. Dropped with everything in it when the task ends.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) report: StatusReporter,
    pub(super) shared: Arc<Shared>,
    pub(super) cancelled: mpsc::Receiver<Cancel>,
}

impl Drop for Task {
    /// However the task ends, even by a panic, no caller waits forever.
    fn drop(&mut self) {
        self.shared.end_all("this RPC client is closed");
        self.report.closed();
    }
}

impl Shared {
    /// Rejects further requests and fails all calls.
    fn end_all(&self, reason: &str) {
        self.sender.shut(reason);
        self.waiting.fail_all(&CallError::unreachable(reason));
    }
}

struct ClientConnection {
    connection: Connection,
    channels: Channels,
    replies: JoinSet<String>,
    created: Vec<QueueName>,
}

enum End {
    Lost(String),
    Stopped(Duration),
}

impl Task {
    pub(super) async fn run(mut self, mut stopped: mpsc::Receiver<Duration>) {
        let mut failures = 0;
        loop {
            let connecting = async {
                self.dialer.settings().backoff_after(failures).await;
                self.connect().await
            };
            // Both arms are cancel-safe: a dropped connection attempt shuts its socket down before anything was published on it.
            let connected = tokio::select! {
                connected = connecting => connected,
                _ = stopped.recv() => break,
            };
            let mut calling = match connected {
                Ok(calling) => calling,
                Err(error) => {
                    failures += 1;
                    self.shared.sender.shut(&error.to_string());
                    self.report.lost(error);
                    continue;
                }
            };
            self.shared.sender.open(calling.channels.clone());
            self.report.connected(std::mem::take(&mut calling.created));
            let connected_at = Instant::now();
            match self.serve(&mut calling, &mut stopped).await {
                End::Lost(reason) => {
                    let error = connection_lost(calling.connection.address(), &reason);
                    self.shared.end_all(&error.to_string());
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report.lost(error);
                }
                End::Stopped(grace) => {
                    self.shared.sender.shut("this RPC client is closing");
                    self.report.draining();
                    self.drain(calling, grace).await;
                    break;
                }
            }
        }
    }

    async fn connect(&self) -> Result<ClientConnection, ConnectError> {
        let limit = self.dialer.settings().connect_timeout;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        let channels = Channels {
            confirmed: connection.channel(limit).await?,
            plain: connection.channel(limit).await?,
            user_id: self.dialer.settings().user_id_at(connection.address()),
        };
        let consume = async {
            let confirms = ConfirmSelectOptions::default();
            channels.confirmed.confirm_select(confirms).await?;
            Ok([
                consume_replies(&channels.confirmed).await?,
                consume_replies(&channels.plain).await?,
            ])
        };
        let consumers = match timeout(limit, consume).await {
            Ok(Ok(consumers)) => consumers,
            Ok(Err(error)) => return Err(connection.failure(&error)),
            Err(_) => {
                let address = connection.address();
                return Err(ConnectError::new(
                    ConnectErrorKind::Silent,
                    format!("{address} has not responded for {limit:?}"),
                ));
            }
        };
        let mut replies = JoinSet::new();
        for consumer in consumers {
            replies.spawn(deliver_reply(consumer, self.shared.clone()));
        }
        Ok(ClientConnection {
            connection,
            channels,
            replies,
            created,
        })
    }

    /// Serves the connection until it is unusable or the client is stopped.
    async fn serve(
        &mut self,
        calling: &mut ClientConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> End {
        let Self {
            dialer,
            report,
            shared,
            cancelled,
            ..
        } = self;
        let settings = dialer.settings();
        let mut health = calling.connection.health();
        // The receiver reports only later changes.
        if *health.borrow() != Health::Open {
            health.mark_changed();
        }
        let start_monitor = || monitor(&calling.connection, shared, settings.settle_timeout);
        let mut monitoring = std::pin::pin!(start_monitor());
        let mut is_blocked = false;
        let (namespace, limit) = (&settings.namespace, settings.settle_timeout);
        let cancelling = publish_cancellation(&calling.connection, namespace, cancelled, limit);
        let mut cancelling = std::pin::pin!(cancelling);
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_polling = true;
        loop {
            // Every arm waits for a condition that stays true or for a message that stays in its channel. Pinned futures continue where
            // they were.
            tokio::select! {
                // While the broker blocks the connection, it responds to nothing.
                reason = &mut monitoring, if !is_blocked => return End::Lost(reason),
                () = &mut cancelling => {}
                _ = poll.tick(), if is_polling => is_polling = shared.sender.poll_confirms(shared),
                () = shared.sender.work_available(), if !is_polling => {
                    is_polling = true;
                    poll.reset();
                }
                Some(ended) = calling.replies.join_next() => {
                    return End::Lost(ended.unwrap_or_else(|e| format!("delivering replies failed: {e}")));
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return End::Lost("the connection is lost".to_owned());
                    }
                    let health = health.borrow_and_update().clone();
                    match health {
                        Health::Lost(reason) => return End::Lost(reason),
                        Health::Blocked(reason) => {
                            is_blocked = true;
                            shared.sender.block(Some(reason.clone()));
                            report.blocked(reason);
                        }
                        Health::Open => {
                            is_blocked = false;
                            monitoring.set(start_monitor());
                            shared.sender.block(None);
                            report.unblocked();
                        }
                    }
                }
                // The channel is closed: every handle of the client was dropped.
                grace = stopped.recv() => return End::Stopped(grace.unwrap_or(Duration::ZERO)),
            }
        }
    }

    /// Waits for outstanding replies, then closes the connection.
    async fn drain(&self, mut calling: ClientConnection, grace: Duration) {
        let until = Instant::now() + grace;
        let mut tick = interval(POLL_INTERVAL);
        let all_replied = async {
            while !self.shared.waiting.is_empty() {
                tokio::select! {
                    _ = tick.tick() => {}
                    // No more replies can arrive.
                    _ = calling.replies.join_next() => return,
                }
            }
        };
        let _ = timeout_at(until, all_replied).await;
        let left = until.saturating_duration_since(Instant::now());
        calling.connection.close(left.max(POLL_INTERVAL)).await;
    }
}

/// Consumes the replies to this channel's requests.
async fn consume_replies(channel: &Channel) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let (any_tag, none) = (ShortString::default(), FieldTable::default());
    channel
        .basic_consume(codec::REPLY_TO.into(), any_tag, options, none)
        .await
}

/// Delivers each reply to its caller. Returns the reason when no more can arrive.
async fn deliver_reply(mut consumer: Consumer, shared: Arc<Shared>) -> String {
    while let Some(received) = consumer.next().await {
        let received = match received {
            Ok(received) => received,
            Err(error) => return describe(&error),
        };
        shared.counts.heard.add(1);
        let properties = received.properties;
        let (number, result) = match Undecodable::of(&properties) {
            None => {
                let correlation = properties.correlation_id().as_ref();
                let number = correlation.and_then(|id| shared.waiting.number(id.as_str()));
                (number, codec::read_reply(&properties, received.data))
            }
            Some(undecodable) => {
                let correlation = undecodable.correlation_id();
                let number = correlation.and_then(|id| shared.waiting.number(&id));
                (number, Err(CallError::Malformed(undecodable.reason)))
            }
        };
        if !number.is_some_and(|number| shared.waiting.complete(number, result)) {
            shared.counts.late.add(1);
        }
    }
    "the broker cancelled the consumer of replies".to_owned()
}
