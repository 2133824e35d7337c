//! The subscription's task: connects, declares, consumes, and repeats this after any error until it is stopped.
//!
//! Each queue has its own channel, so that a cumulative ack concerns only that queue. Each reconnect opens new channels: a consumer
//! registered again on an old channel would meet deliveries still in flight.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    QueueSubscription,
    buffer::DeliveryBuffer,
    channels::Channels,
    keepalive::keepalive,
    markers::watch_markers,
    pump::{Pump, PumpEnd},
    rebind::{bindings_of, rebind_loop},
    sender::Senders,
};
use crate::{
    connection::{
        Connection, Dialer, Health, connection_lost,
        error::{ConnectError, ConnectErrorKind},
        status::StatusReporter,
    },
    short_string::short_string,
    topology::{
        Topology,
        declare::{MarkerState, check_marker, declare},
        names::QueueName,
        owner::OwnerClaim,
    },
};

/// State of the task. Dropped with everything in it when the task ends.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) queues: Vec<QueueSubscription>,
    pub(super) claim: Option<OwnerClaim>,
    pub(super) report: StatusReporter,
    pub(super) inbox: Arc<DeliveryBuffer>,
    pub(super) channels: Arc<Channels>,
}

impl Drop for Task {
    /// However the task ends, even by a panic, no caller waits forever and no ack is possible any more.
    fn drop(&mut self) {
        self.clear_buffers();
        self.inbox.close();
        self.report.closed();
    }
}

struct ConsumerConnection {
    connection: Connection,
    consumed: Vec<(QueueSubscription, Channel)>,
    /// Channel for the keepalive requests.
    keepalive: Channel,
    pumps: JoinSet<PumpEnd>,
    created: Vec<QueueName>,
    /// Queues that were marked when consuming began.
    marked: Vec<QueueName>,
}

enum Exit {
    Lost(String),
    /// A delivery was unacked for this long.
    Overdue(Duration),
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
            // Both arms are cancel-safe: a dropped connection attempt shuts its socket down before any delivery was taken.
            let connected = tokio::select! {
                connected = connecting => connected,
                _ = stopped.recv() => break,
            };
            let mut consuming = match connected {
                Ok(consuming) => consuming,
                Err(error) => {
                    failures += 1;
                    self.clear_buffers();
                    self.report.lost(error);
                    continue;
                }
            };
            self.report
                .connected(std::mem::take(&mut consuming.created));
            let connected_at = Instant::now();
            match self.watch(&mut consuming, &mut stopped).await {
                Exit::Lost(reason) => {
                    // First prevent further acks, then report.
                    self.clear_buffers();
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report
                        .lost(connection_lost(consuming.connection.address(), &reason));
                }
                Exit::Overdue(unacked_for) => {
                    self.clear_buffers();
                    failures = 0;
                    self.report.suspended(unacked_for);
                    consuming
                        .connection
                        .close(self.dialer.settings().settle_timeout)
                        .await;
                    // Both arms are cancel-safe: neither takes anything.
                    tokio::select! {
                        () = self.inbox.wait_for_demand() => {}
                        _ = stopped.recv() => break,
                    }
                }
                Exit::Stopped(grace) => {
                    self.report.draining();
                    self.inbox.close();
                    // The inner timeouts apply to single steps, this one to all of them.
                    let _ = timeout(grace, self.close(consuming)).await;
                    break;
                }
            }
        }
    }

    async fn connect(&self) -> Result<ConsumerConnection, ConnectError> {
        let limit = self.dialer.settings().connect_timeout;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        if let Some(claim) = &self.claim {
            let namespace = &self.dialer.settings().namespace;
            let claimed = claim.check(&connection, namespace, limit).await?;
            self.report.claimed(claimed);
        }
        let mut consumed = Vec::new();
        let mut marked = Vec::new();
        let mut pumps = JoinSet::new();
        let mut shares_queue = false;
        for queue in &self.queues {
            let channel = connection.channel(limit).await?;
            let consumer = async {
                let per_consumer = BasicQosOptions { global: false };
                channel.basic_qos(queue.prefetch, per_consumer).await?;
                // Just before consuming, so other consumers hardly have time to come in between. On a queue with a single active consumer,
                // the broker counts that one, and former consumers with unacked messages.
                let declared = channel
                    .queue_declare(
                        short_string(queue.queue.as_str()),
                        passive(),
                        FieldTable::default(),
                    )
                    .await?;
                let consumer = channel
                    .basic_consume(
                        short_string(queue.queue.as_str()),
                        short_string(&queue.consumer_tag),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    )
                    .await?;
                Ok::<_, lapin::Error>((consumer, declared.consumer_count()))
            };
            let consumer = match timeout(limit, consumer).await {
                Ok(Ok((consumer, others))) => {
                    shares_queue |= others > 0;
                    consumer
                }
                Ok(Err(error)) => return Err(connection.failure(&error)),
                Err(_) => {
                    return Err(ConnectError::new(
                        ConnectErrorKind::Silent,
                        format!(
                            "{} has not responded for {limit:?} to consuming from queue {}: has it lost its quorum?",
                            connection.address(),
                            queue.queue
                        ),
                    ));
                }
            };
            let (id, open) = self.channels.open(channel.clone());
            let emptied = self.inbox.open(id, queue.queue.clone());
            pumps.spawn(
                Pump {
                    consumer,
                    channel: id,
                    open,
                    senders: Senders::new(&self.dialer.settings().namespace, &queue.queue),
                    queue: queue.queue.clone(),
                    inbox: self.inbox.clone(),
                    emptied,
                    channels: self.channels.clone(),
                }
                .run(),
            );
            let missing = || self.report.possible_loss(&queue.queue);
            match check_marker(&connection, &queue.queue, limit, missing).await? {
                MarkerState::Yes => {
                    self.report.marker_found(&queue.queue);
                    marked.push(queue.queue.clone());
                }
                MarkerState::Forbidden(reason) => self.report.marker_missing(&queue.queue, &reason),
                MarkerState::Unknown => {}
            }
            consumed.push((queue.clone(), channel));
        }
        let keepalive = connection.channel(limit).await?;
        self.report.shares_queue(shares_queue);
        Ok(ConsumerConnection {
            connection,
            consumed,
            keepalive,
            pumps,
            created,
            marked,
        })
    }

    /// Waits until the connection is unusable, or the subscription is stopped.
    async fn watch(
        &self,
        consuming: &mut ConsumerConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> Exit {
        let mut health = consuming.connection.health();
        if *health.borrow() != Health::Open
            && let Some(end) = self.check_health(&mut health)
        {
            return end;
        }
        let silence = keepalive(
            &consuming.keepalive,
            self.dialer.settings(),
            self.channels.counts(),
        );
        let mut silence = std::pin::pin!(silence);
        let overdue = self.overdue();
        let mut overdue = std::pin::pin!(overdue);
        let own = bindings_of(&self.topology, self.queues.iter().map(|queue| &queue.queue));
        let rebinding = rebind_loop(&consuming.connection, &own, self.dialer.settings());
        let mut rebinding = std::pin::pin!(rebinding);
        let marked = std::mem::take(&mut consuming.marked);
        let marks = watch_markers(
            &consuming.connection,
            marked,
            self.dialer.settings(),
            &self.report,
        );
        let mut marks = std::pin::pin!(marks);
        loop {
            // Every arm waits for a condition that stays true or for a message that stays in its channel. Pinned futures continue where
            // they were.
            tokio::select! {
                reason = &mut silence => return Exit::Lost(reason),
                unacked_for = &mut overdue => return Exit::Overdue(unacked_for),
                never = &mut rebinding => match never {},
                never = &mut marks => match never {},
                Some(ended) = consuming.pumps.join_next() => {
                    return Exit::Lost(match ended {
                        Ok(end) => self.record_end(end),
                        Err(error) => format!("a pump failed: {error}"),
                    });
                }
                reason = self.channels.given_up() => return Exit::Lost(reason),
                changed = health.changed() => {
                    if changed.is_err() {
                        return Exit::Lost("the connection is lost".to_owned());
                    }
                    if let Some(end) = self.check_health(&mut health) {
                        return end;
                    }
                }
                grace = stopped.recv() => {
                    // The channel is closed: every handle of the subscription was dropped.
                    return Exit::Stopped(grace.unwrap_or(self.dialer.settings().settle_timeout));
                }
            }
        }
    }

    /// Waits until a delivery has been unacked for [`ack_timeout`](crate::BrokerSettings::ack_timeout). Returns its age.
    async fn overdue(&self) -> Duration {
        let limit = self.dialer.settings().ack_timeout;
        loop {
            let oldest = self.channels.oldest_unacked();
            let age = oldest.map_or(Duration::ZERO, |since| since.elapsed());
            if age >= limit {
                return age;
            }
            sleep(limit - age).await;
        }
    }

    fn record_end(&self, end: PumpEnd) -> String {
        let counts = self.channels.counts();
        match end {
            PumpEnd::Cancelled(queue) => {
                counts.consumers_cancelled.add(1);
                format!("the broker cancelled the consumer of {queue}")
            }
            PumpEnd::ChannelClosed(reason) => {
                counts.channels_ended.add(1);
                reason
            }
            PumpEnd::Lost(reason) => reason,
        }
    }

    fn check_health(&self, health: &mut watch::Receiver<Health>) -> Option<Exit> {
        let health = health.borrow_and_update().clone();
        match health {
            Health::Lost(reason) => return Some(Exit::Lost(reason)),
            Health::Blocked(reason) => self.report.blocked(reason),
            Health::Open => self.report.unblocked(),
        }
        None
    }

    /// Stops consuming, and sends a request on each channel. Its response confirms that the broker has processed all earlier acks; acks
    /// sent just before a connection closes may be lost.
    async fn close(&self, consuming: ConsumerConnection) {
        let limit = self.dialer.settings().settle_timeout;
        for (queue, channel) in &consuming.consumed {
            let tag = short_string(&queue.consumer_tag);
            let round_trip = async {
                channel
                    .basic_cancel(tag, BasicCancelOptions::default())
                    .await?;
                channel
                    .queue_declare(
                        short_string(queue.queue.as_str()),
                        passive(),
                        FieldTable::default(),
                    )
                    .await
            };
            if let Ok(Err(error)) = timeout(limit, round_trip).await {
                tracing::debug!(queue = %queue.queue, reason = %error, "channel closed while stopping");
            }
        }
        consuming.connection.close(limit).await;
    }

    /// Discards everything of the current connection: no ack or delivery of it is possible any more.
    fn clear_buffers(&self) {
        self.channels.discard();
        self.inbox.clear();
    }
}

/// Options of a declaration that only checks an existing queue.
fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    }
}
