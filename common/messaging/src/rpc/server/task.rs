//! The RPC server's task: connects, declares, consumes, and repeats this after any error until it is stopped.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lapin::{
    Channel, Consumer,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    RpcServerSettings, SHED_HEADROOM,
    callers::Callers,
    inbox::Inbox,
    incoming::IncomingRequest,
    pump::{Pump, receive_cancellations},
    reply_channel::ReplyChannel,
    skew::Skew,
};
use crate::{
    connection::{
        Connection, Dialer, Health, connection_lost, describe,
        error::{ConnectError, ConnectErrorKind},
        status::StatusReporter,
    },
    consumer::keepalive::keepalive,
    rpc::stats::RpcServerCounters,
    short_string::short_string,
    topology::{Topology, declare::declare, names::QueueName, owner::OwnerClaim},
};

/// Interval of polling for written replies while there are any: the maximum delay of an ack.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// State of the task. Dropped with everything in it when the task ends.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) role: String,
    pub(super) settings: RpcServerSettings,
    pub(super) claim: Option<OwnerClaim>,
    pub(super) report: StatusReporter,
    pub(super) inbox: Arc<Inbox<IncomingRequest>>,
    pub(super) counts: Arc<RpcServerCounters>,
}

impl Drop for Task {
    /// However the task ends, even by a panic, no caller waits forever.
    fn drop(&mut self) {
        drop(self.inbox.close());
        self.report.closed();
    }
}

struct ServerConnection {
    connection: Connection,
    channel: Arc<ReplyChannel>,
    tag: String,
    /// Channel for the keepalive requests.
    keepalive: Channel,
    pumps: JoinSet<String>,
    /// Channel that receives cancellations, if the user may.
    _cancel_channel: Option<Channel>,
    created: Vec<QueueName>,
}

enum End {
    Lost(String),
    Stopped(Duration),
}

impl Task {
    pub(super) async fn run(self, mut stopped: mpsc::Receiver<Duration>) {
        let mut failures = 0;
        loop {
            let connecting = async {
                self.dialer.settings().backoff_after(failures).await;
                self.connect().await
            };
            // Both arms are cancel-safe: a dropped connection attempt shuts its socket down, and its deliveries are requeued.
            let connected = tokio::select! {
                connected = connecting => connected,
                _ = stopped.recv() => break,
            };
            let mut open = match connected {
                Ok(open) => open,
                Err(error) => {
                    failures += 1;
                    self.report.lost(error);
                    continue;
                }
            };
            self.report.connected(std::mem::take(&mut open.created));
            let connected_at = Instant::now();
            match self.watch(&mut open, &mut stopped).await {
                End::Lost(reason) => {
                    // First prevent further replies, then drop the rest.
                    open.channel.shut();
                    drop(self.inbox.take_all());
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report
                        .lost(connection_lost(open.connection.address(), &reason));
                }
                End::Stopped(grace) => {
                    for request in self.inbox.close() {
                        request.reply.requeue();
                    }
                    self.report.draining();
                    self.drain(open, grace).await;
                    break;
                }
            }
        }
    }

    async fn connect(&self) -> Result<ServerConnection, ConnectError> {
        let settings = self.dialer.settings();
        let limit = settings.connect_timeout;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        if let Some(claim) = &self.claim {
            let claimed = claim.check(&connection, &settings.namespace, limit).await?;
            self.report.claimed(claimed);
        }
        let server = format!("{:016x}", rand::random::<u64>());
        let queue = settings.namespace.rpc_queue(&self.role);
        let channel = connection.channel(limit).await?;
        let replies = Arc::new(ReplyChannel::new(channel));
        let mut pumps = JoinSet::new();
        // Before the first request, so that its cancellation is not missed.
        let cancel_channel = self
            .listen(&connection, &server, &replies, &mut pumps)
            .await?;
        let tag = format!("{queue} {server}");
        let consumer = async {
            let prefetch = self
                .settings
                .max_in_flight
                .max(1)
                .saturating_add(SHED_HEADROOM);
            let per_consumer = BasicQosOptions { global: false };
            replies.channel().basic_qos(prefetch, per_consumer).await?;
            let options = BasicConsumeOptions::default();
            replies
                .channel()
                .basic_consume(
                    short_string(queue.as_str()),
                    short_string(&tag),
                    options,
                    FieldTable::default(),
                )
                .await
        };
        let consumer = match timeout(limit, consumer).await {
            Ok(Ok(consumer)) => consumer,
            Ok(Err(error)) => return Err(connection.failure(&error)),
            Err(_) => {
                let address = connection.address();
                return Err(ConnectError::new(
                    ConnectErrorKind::Silent,
                    format!(
                        "{address} has not responded for {limit:?} to consuming from queue {queue}"
                    ),
                ));
            }
        };
        let pump = Pump {
            consumer,
            channel: replies.clone(),
            settings: self.settings,
            inbox: self.inbox.clone(),
            counts: self.counts.clone(),
            callers: Callers::new(settings.rpc_callers.clone()),
            role: self.role.clone(),
            skew: Skew::default(),
        };
        pumps.spawn(pump.run());
        let keepalive = connection.channel(limit).await?;
        Ok(ServerConnection {
            connection,
            channel: replies,
            tag,
            keepalive,
            pumps,
            _cancel_channel: cancel_channel,
            created,
        })
    }

    /// Consumes cancellations, on the server's own queue and a separate channel: without the permission, the server works without them.
    async fn listen(
        &self,
        connection: &Connection,
        server: &str,
        replies: &Arc<ReplyChannel>,
        pumps: &mut JoinSet<String>,
    ) -> Result<Option<Channel>, ConnectError> {
        let settings = self.dialer.settings();
        let limit = settings.connect_timeout;
        let channel = connection.channel(limit).await?;
        let queue = settings.namespace.cancel_queue(&self.role, server);
        let exchange = settings.namespace.cancel_exchange(&self.role);
        match timeout(limit, consume_cancellations(&channel, &queue, &exchange)).await {
            Ok(Ok(consumer)) => {
                let replies = replies.clone();
                pumps.spawn(async move {
                    receive_cancellations(consumer, replies).await;
                    "the broker cancelled the consumer of cancellations".to_owned()
                });
                Ok(Some(channel))
            }
            Ok(Err(error)) if error.is_amqp_soft_error() => {
                let reason = describe(&error);
                tracing::warn!(role = self.role, reason, "cancellations are not received");
                Ok(None)
            }
            Ok(Err(error)) => Err(connection.failure(&error)),
            Err(_) => {
                let address = connection.address();
                Err(ConnectError::new(
                    ConnectErrorKind::Silent,
                    format!("{address} has not responded for {limit:?} about queue {queue}"),
                ))
            }
        }
    }

    /// Waits until the connection is unusable or the server is stopped.
    async fn watch(
        &self,
        open: &mut ServerConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> End {
        let mut health = open.connection.health();
        // The receiver reports only later changes.
        if *health.borrow() != Health::Open {
            health.mark_changed();
        }
        let settings = self.dialer.settings();
        let start_keepalive = || keepalive(&open.keepalive, settings, &self.counts.consumed);
        let mut alive = std::pin::pin!(start_keepalive());
        let mut is_blocked = false;
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_polling = true;
        loop {
            // Every arm waits for a condition that stays true or for a message that stays in its channel. The keepalive continues where it
            // was.
            tokio::select! {
                // While the broker blocks the connection, it responds to nothing.
                reason = &mut alive, if !is_blocked => return End::Lost(reason),
                _ = poll.tick(), if is_polling => is_polling = open.channel.poll_written(),
                () = open.channel.replies_pending(), if !is_polling => {
                    is_polling = true;
                    poll.reset();
                }
                Some(ended) = open.pumps.join_next() => {
                    return End::Lost(ended.unwrap_or_else(|e| format!("a pump failed: {e}")));
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
                            self.report.blocked(reason);
                        }
                        Health::Open => {
                            is_blocked = false;
                            alive.set(start_keepalive());
                            self.report.unblocked();
                        }
                    }
                }
                grace = stopped.recv() => {
                    // The channel is closed: every handle of the server was dropped.
                    return End::Stopped(grace.unwrap_or(settings.settle_timeout));
                }
            }
        }
    }

    /// Stops consuming, waits for the replies to requests handed out, and sends a request on the channel. Its response confirms that the
    /// broker has processed all earlier replies; replies sent just before a connection closes may be lost.
    async fn drain(&self, open: ServerConnection, grace: Duration) {
        let until = Instant::now() + grace;
        let channel = open.channel.channel();
        let replying = async {
            let stop = BasicCancelOptions::default();
            let _ = channel.basic_cancel(short_string(&open.tag), stop).await;
            let mut tick = interval(POLL_INTERVAL);
            let is_pending = || self.counts.held.load(Ordering::Relaxed) > 0;
            while (is_pending() || open.channel.poll_written()) && !open.channel.is_shut() {
                open.channel.poll_written();
                tick.tick().await;
            }
            let _ = channel.basic_qos(1, BasicQosOptions::default()).await;
        };
        let _ = timeout_at(until, replying).await;
        open.channel.shut();
        let left = until.saturating_duration_since(Instant::now());
        open.connection.close(left.max(POLL_INTERVAL)).await;
    }
}

/// Declares the server's own queue for cancellations and binds it to this exchange.
async fn consume_cancellations(
    channel: &Channel,
    queue: &QueueName,
    exchange: &str,
) -> lapin::Result<Consumer> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let name = short_string(queue.as_str());
    let none = FieldTable::default;
    channel
        .queue_declare(name.clone(), exclusive, none())
        .await?;
    let (any_key, bind) = (ShortString::default(), QueueBindOptions::default());
    channel
        .queue_bind(name.clone(), short_string(exchange), any_key, bind, none())
        .await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(name, ShortString::default(), options, none())
        .await
}
