//! The subscription's task: connects, declares, consumes, and does it all again after any error, until it is told to stop.
//!
//! Each queue has a channel of its own, so that a cumulative acknowledgement concerns that queue alone, and each reconnect makes new
//! ones: a consumer that is registered again on an old channel meets deliveries that are still under way.

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
    connection::{Connection, Dialer, Health, connection_lost},
    connection_status::StatusReporter,
    declare::{MarkerState, check_marker, declare},
    error::{ConnectError, ConnectErrorKind},
    names::QueueName,
    owner::OwnerClaim,
    short_string::short_string,
    topology::Topology,
};

/// All that the task owns. When it ends, so does everything of it.
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
    /// Whatever ends the task, be it a panic, nobody waits for it in vain and nothing can be settled any more.
    fn drop(&mut self) {
        self.clear_buffers();
        self.inbox.close();
        self.report.closed();
    }
}

/// A connection that consumes.
struct ConsumerConnection {
    connection: Connection,
    consumed: Vec<(QueueSubscription, Channel)>,
    /// For asking whether anybody is there.
    keepalive: Channel,
    pumps: JoinSet<PumpEnd>,
    created: Vec<QueueName>,
    /// The queues that were marked when consuming began.
    marked: Vec<QueueName>,
}

/// Why it ended.
enum Exit {
    Lost(String),
    /// A delivery was not acknowledged for so long.
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
            // Both arms may be cancelled: a connection that is dropped halfway is cut, and nothing was taken from it.
            let connected = tokio::select! {
                connected = connecting => connected,
                _ = stopped.recv() => break,
            };
            let mut line = match connected {
                Ok(line) => line,
                Err(error) => {
                    failures += 1;
                    self.clear_buffers();
                    self.report.lost(error);
                    continue;
                }
            };
            self.report.connected(std::mem::take(&mut line.created));
            let connected_at = Instant::now();
            match self.watch(&mut line, &mut stopped).await {
                Exit::Lost(reason) => {
                    // First of all nothing more can be settled, then the rest goes.
                    self.clear_buffers();
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report
                        .lost(connection_lost(line.connection.address(), &reason));
                }
                Exit::Overdue(unacked_for) => {
                    self.clear_buffers();
                    failures = 0;
                    self.report.suspended(unacked_for);
                    line.connection
                        .close(self.dialer.settings().settle_timeout)
                        .await;
                    // Both arms may be cancelled: nothing is taken by either.
                    tokio::select! {
                        () = self.inbox.wanted() => {}
                        _ = stopped.recv() => break,
                    }
                }
                Exit::Stopped(grace) => {
                    self.report.draining();
                    self.inbox.close();
                    // The limits inside are for one step each; this is for all.
                    let _ = timeout(grace, self.close(line)).await;
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
        let mut beside_others = false;
        for queue in &self.queues {
            let channel = connection.channel(limit).await?;
            let consumer = async {
                let per_consumer = BasicQosOptions { global: false };
                channel.basic_qos(queue.prefetch, per_consumer).await?;
                // Right before consuming, so that hardly anybody can come in between. Of a queue with a single active consumer the
                // broker counts that one, and those who have gone and left something unsettled.
                let there = channel
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
                Ok::<_, lapin::Error>((consumer, there.consumer_count()))
            };
            let consumer = match timeout(limit, consumer).await {
                Ok(Ok((consumer, others))) => {
                    beside_others |= others > 0;
                    consumer
                }
                Ok(Err(error)) => return Err(connection.failure(&error)),
                Err(_) => {
                    return Err(ConnectError::new(
                        ConnectErrorKind::Silent,
                        format!(
                            "{} has not answered for {limit:?} to consuming from queue {}: has it lost its majority?",
                            connection.address(),
                            queue.queue
                        ),
                    ));
                }
            };
            let (generation, open) = self.channels.open(channel.clone());
            let emptied = self.inbox.open(generation, queue.queue.clone());
            pumps.spawn(
                Pump {
                    consumer,
                    channel: generation,
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
        self.report.shares_queue(beside_others);
        Ok(ConsumerConnection {
            connection,
            consumed,
            keepalive,
            pumps,
            created,
            marked,
        })
    }

    /// Waits until the connection is of no more use, or nobody wants it any more.
    async fn watch(
        &self,
        line: &mut ConsumerConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> Exit {
        let mut health = line.connection.health();
        if *health.borrow() != Health::Open
            && let Some(end) = self.check_health(&mut health)
        {
            return end;
        }
        let silence = keepalive(
            &line.keepalive,
            self.dialer.settings(),
            self.channels.counts(),
        );
        let mut silence = std::pin::pin!(silence);
        let overdue = self.overdue();
        let mut overdue = std::pin::pin!(overdue);
        let own = bindings_of(&self.topology, self.queues.iter().map(|queue| &queue.queue));
        let rebinding = rebind_loop(&line.connection, &own, self.dialer.settings());
        let mut rebinding = std::pin::pin!(rebinding);
        let marked = std::mem::take(&mut line.marked);
        let marks = watch_markers(
            &line.connection,
            marked,
            self.dialer.settings(),
            &self.report,
        );
        let mut marks = std::pin::pin!(marks);
        loop {
            // Every arm only waits for something that stays true or stays in its channel; what is pinned goes on where it was.
            tokio::select! {
                reason = &mut silence => return Exit::Lost(reason),
                unacked_for = &mut overdue => return Exit::Overdue(unacked_for),
                never = &mut rebinding => match never {},
                never = &mut marks => match never {},
                Some(ended) = line.pumps.join_next() => {
                    return Exit::Lost(match ended {
                        Ok(end) => self.record_end(end),
                        Err(error) => format!("a pump failed: {error}"),
                    });
                }
                reason = self.channels.given_up() => return Exit::Lost(reason),
                changed = health.changed() => {
                    if changed.is_err() {
                        return Exit::Lost("the connection is gone".to_owned());
                    }
                    if let Some(end) = self.check_health(&mut health) {
                        return end;
                    }
                }
                grace = stopped.recv() => {
                    // Without a word everyone who held the subscription is gone.
                    return Exit::Stopped(grace.unwrap_or(self.dialer.settings().settle_timeout));
                }
            }
        }
    }

    /// Waits until a delivery is not acknowledged for as long as the settings allow. Returns for how long it was not.
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
                format!("the broker ended the consumption of {queue}")
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

    /// Stops consuming, and asks each channel something: the answer comes after every acknowledgement before it has been taken in,
    /// which is not so for those handed over just before a connection is closed.
    async fn close(&self, line: ConsumerConnection) {
        let limit = self.dialer.settings().settle_timeout;
        for (queue, channel) in &line.consumed {
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
                tracing::debug!(queue = %queue.queue, reason = %error, "channel ended before its time");
            }
        }
        line.connection.close(limit).await;
    }

    /// Nothing of the present connection can be settled or taken any more.
    fn clear_buffers(&self) {
        self.channels.discard();
        self.inbox.clear();
    }
}

/// Asks for a queue that is there, and changes nothing.
fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        durable: true,
        ..QueueDeclareOptions::default()
    }
}
