//! The responder's task: connects, declares, consumes, and does it all again after any error, until it is told to stop.

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
    connection::{Connection, Dialer, Health, connection_lost, describe},
    connection_status::StatusReporter,
    consumer::keepalive::keepalive,
    declare::declare,
    error::{ConnectError, ConnectErrorKind},
    names::QueueName,
    owner::OwnerClaim,
    rpc::counts::RpcServerCounters,
    short_string::short_string,
    topology::Topology,
};

/// How often to look which replies are written, while there are any: the most that an acknowledgement is late.
const SWEEP: Duration = Duration::from_millis(2);

/// All that the task owns. When it ends, so does everything of it.
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
    /// Whatever ends the task, be it a panic, nobody waits for it in vain.
    fn drop(&mut self) {
        drop(self.inbox.close());
        self.report.closed();
    }
}

/// A connection that answers.
struct ServerConnection {
    connection: Connection,
    line: Arc<ReplyChannel>,
    tag: String,
    /// For asking whether anybody is there.
    pulse: Channel,
    pumps: JoinSet<String>,
    /// Hears of what is cancelled, where it may.
    _ear: Option<Channel>,
    created: Vec<QueueName>,
}

/// Why it ended.
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
            // Both arms may be cancelled: a connection that is dropped halfway is cut, and what it was given goes back.
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
                    // First of all nothing more can be answered, then the rest goes.
                    open.line.shut();
                    drop(self.inbox.take_all());
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report
                        .lost(connection_lost(open.connection.address(), &reason));
                }
                End::Stopped(grace) => {
                    for asked in self.inbox.close() {
                        asked.reply.requeue();
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
        let line = Arc::new(ReplyChannel::new(channel));
        let mut pumps = JoinSet::new();
        // Before the first request: its word must not come while nobody listens.
        let ear = self.listen(&connection, &server, &line, &mut pumps).await?;
        let tag = format!("{queue} {server}");
        let consumer = async {
            let prefetch = self
                .settings
                .max_in_flight
                .max(1)
                .saturating_add(SHED_HEADROOM);
            let per_consumer = BasicQosOptions { global: false };
            line.channel().basic_qos(prefetch, per_consumer).await?;
            let options = BasicConsumeOptions::default();
            line.channel()
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
                        "{address} has not answered for {limit:?} to consuming from queue {queue}"
                    ),
                ));
            }
        };
        let pump = Pump {
            consumer,
            line: line.clone(),
            settings: self.settings,
            inbox: self.inbox.clone(),
            counts: self.counts.clone(),
            callers: Callers::new(settings.rpc_callers.clone()),
            role: self.role.clone(),
            skew: Skew::default(),
        };
        pumps.spawn(pump.run());
        let pulse = connection.channel(limit).await?;
        Ok(ServerConnection {
            connection,
            line,
            tag,
            pulse,
            pumps,
            _ear: ear,
            created,
        })
    }

    /// Listens for who goes away, on a queue of our own and a channel apart: where we may not, answering goes on without.
    async fn listen(
        &self,
        connection: &Connection,
        server: &str,
        line: &Arc<ReplyChannel>,
        pumps: &mut JoinSet<String>,
    ) -> Result<Option<Channel>, ConnectError> {
        let settings = self.dialer.settings();
        let limit = settings.connect_timeout;
        let channel = connection.channel(limit).await?;
        let queue = settings.namespace.cancel_queue(&self.role, server);
        let exchange = settings.namespace.cancel_exchange(&self.role);
        match timeout(limit, consume_cancellations(&channel, &queue, &exchange)).await {
            Ok(Ok(consumer)) => {
                let line = line.clone();
                pumps.spawn(async move {
                    receive_cancellations(consumer, line).await;
                    "the broker ended the consumption of what is cancelled".to_owned()
                });
                Ok(Some(channel))
            }
            Ok(Err(error)) if error.is_amqp_soft_error() => {
                let reason = describe(&error);
                tracing::warn!(
                    role = self.role,
                    reason,
                    "what is cancelled is not heard of"
                );
                Ok(None)
            }
            Ok(Err(error)) => Err(connection.failure(&error)),
            Err(_) => {
                let address = connection.address();
                Err(ConnectError::new(
                    ConnectErrorKind::Silent,
                    format!("{address} has not answered for {limit:?} about queue {queue}"),
                ))
            }
        }
    }

    /// Waits until the connection is of no more use, or nobody wants it any more.
    async fn watch(
        &self,
        open: &mut ServerConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> End {
        let mut health = open.connection.health();
        // The watch only tells of changes from here on.
        if *health.borrow() != Health::Open {
            health.mark_changed();
        }
        let settings = self.dialer.settings();
        let pulse_anew = || keepalive(&open.pulse, settings, &self.counts.consumed);
        let mut pulse = std::pin::pin!(pulse_anew());
        let mut is_blocked = false;
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = true;
        loop {
            // Every arm only waits for something that stays true or stays in its channel; the pulse goes on where it was.
            tokio::select! {
                // While the broker reads nothing of ours it cannot be asked anything.
                reason = &mut pulse, if !is_blocked => return End::Lost(reason),
                _ = sweep.tick(), if sweeps => sweeps = open.line.sweep(),
                () = open.line.replies_pending(), if !sweeps => {
                    sweeps = true;
                    sweep.reset();
                }
                Some(ended) = open.pumps.join_next() => {
                    return End::Lost(ended.unwrap_or_else(|e| format!("a pump failed: {e}")));
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return End::Lost("the connection is gone".to_owned());
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
                            pulse.set(pulse_anew());
                            self.report.unblocked();
                        }
                    }
                }
                grace = stopped.recv() => {
                    // Without a word everyone who held the responder is gone.
                    return End::Stopped(grace.unwrap_or(settings.settle_timeout));
                }
            }
        }
    }

    /// Stops consuming, waits until what was handed out is answered, and asks the channel something: the answer comes after every reply
    /// before it has been taken in, which is not so for those handed over just before a connection is closed.
    async fn drain(&self, open: ServerConnection, grace: Duration) {
        let until = Instant::now() + grace;
        let channel = open.line.channel();
        let answering = async {
            let stop = BasicCancelOptions::default();
            let _ = channel.basic_cancel(short_string(&open.tag), stop).await;
            let mut look = interval(SWEEP);
            let is_owed = || self.counts.held.load(Ordering::Relaxed) > 0;
            while (is_owed() || open.line.sweep()) && !open.line.is_shut() {
                open.line.sweep();
                look.tick().await;
            }
            let _ = channel.basic_qos(1, BasicQosOptions::default()).await;
        };
        let _ = timeout_at(until, answering).await;
        open.line.shut();
        let left = until.saturating_duration_since(Instant::now());
        open.connection.close(left.max(SWEEP)).await;
    }
}

/// Makes a queue that only this server has, for the words at this exchange.
async fn consume_cancellations(
    channel: &Channel,
    queue: &QueueName,
    exchange: &str,
) -> lapin::Result<Consumer> {
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let name = short_string(queue.as_str());
    let none = FieldTable::default;
    channel.queue_declare(name.clone(), own, none()).await?;
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
