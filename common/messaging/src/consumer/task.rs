//! The subscription's supervised task: consumes from its queues on each connection.
//!
//! Each queue has its own channel, so that a cumulative ack concerns only that queue. Each reconnect opens new channels: a consumer
//! registered again on an old channel would meet deliveries still in flight.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    QueueSubscription,
    buffer::DeliveryBuffer,
    channels::Channels,
    delivery_sender::Senders,
    keepalive::keepalive,
    markers::watch_markers,
    pump::{DeliveryPump, PumpEnd},
    rebind::{bindings_of, rebind_loop},
};
use crate::{
    amqp::{PASSIVE_QUEUE, short_string},
    connection::{
        error::{ConnectError, Result},
        supervisor::{Context, Exit, StopReceiver, Supervised},
    },
    topology::{
        declare::{MarkerState, check_marker},
        names::QueueName,
    },
};

/// State of the task. When it ends, no caller waits any more, and no ack is possible.
pub(super) struct ConsumerTask {
    pub(super) queues: Vec<QueueSubscription>,
    pub(super) buffer: Arc<DeliveryBuffer>,
    pub(super) channels: Arc<Channels>,
}

impl Drop for ConsumerTask {
    fn drop(&mut self) {
        self.clear_buffers();
        self.buffer.close();
    }
}

pub(super) struct OpenConsumer {
    consumed: Vec<(QueueSubscription, Channel)>,
    /// Channel for the keepalive requests.
    keepalive: Channel,
    pumps: JoinSet<PumpEnd>,
    /// Queues that were marked when consuming began.
    marked: Vec<QueueName>,
}

impl Supervised for ConsumerTask {
    type Resources = OpenConsumer;

    async fn open(&self, context: &Context<'_>) -> Result<OpenConsumer> {
        let (connection, report) = (context.connection, context.report);
        let settings = context.settings;
        let limit = settings.connect_timeout;
        let mut consumed = Vec::new();
        let mut marked = Vec::new();
        let mut pumps = JoinSet::new();
        let mut shares_queue = false;
        for subscription in &self.queues {
            let queue = &subscription.queue;
            let channel = connection.channel(limit).await?;
            let about = format!(" to consuming from queue {queue}: has it lost its quorum?");
            let consume = consume(&channel, subscription);
            let (consumer, others) = connection.response(limit, &about, consume).await?;
            shares_queue |= others > 0;
            let (id, open) = self.channels.open(channel.clone());
            let pump = DeliveryPump {
                consumer,
                channel: id,
                open,
                senders: Senders::new(&settings.namespace, queue),
                queue: queue.clone(),
                emptied: self.buffer.open(id, queue.clone()),
                buffer: self.buffer.clone(),
                channels: self.channels.clone(),
            };
            pumps.spawn(pump.run());
            let missing = || report.possible_loss(queue);
            match check_marker(connection, queue, limit, missing).await? {
                MarkerState::Marked => {
                    report.marker_found(queue);
                    marked.push(queue.clone());
                }
                MarkerState::Forbidden(reason) => report.marker_missing(queue, &reason),
                MarkerState::Unknown => {}
            }
            consumed.push((subscription.clone(), channel));
        }
        let keepalive = connection.channel(limit).await?;
        report.shares_queue(shares_queue);
        Ok(OpenConsumer {
            consumed,
            keepalive,
            pumps,
            marked,
        })
    }

    async fn serve(
        &mut self,
        context: &Context<'_>,
        open: &mut OpenConsumer,
        stop: &mut StopReceiver,
    ) -> Exit {
        let (connection, settings) = (context.connection, context.settings);
        let counters = self.channels.counters();
        let probe = || keepalive(&open.keepalive, settings, &counters.delivered);
        let queues = self.queues.iter().map(|subscription| &subscription.queue);
        let own = bindings_of(context.topology, queues);
        let marked = std::mem::take(&mut open.marked);
        let work = async {
            tokio::select! {
                unacked_for = self.overdue(settings.ack_timeout) => {
                    self.clear_buffers();
                    Exit::Suspended(unacked_for)
                }
                never = rebind_loop(connection, &own, settings) => match never {},
                never = watch_markers(context, marked) => match never {},
                Some(ended) = open.pumps.join_next() => Exit::Lost(match ended {
                    Ok(end) => self.record_end(end),
                    Err(error) => format!("a pump failed: {error}"),
                }),
                reason = self.channels.given_up() => Exit::Lost(reason),
            }
        };
        context.watch(stop, probe, work, |_| ()).await
    }

    fn lost(&mut self, _: Option<&OpenConsumer>, _: &str, _: &ConnectError) {
        self.clear_buffers();
    }

    fn end_intake(&mut self) {
        self.buffer.close();
    }

    async fn drain(&mut self, context: &Context<'_>, open: &mut OpenConsumer, until: Instant) {
        // The inner timeouts apply to single steps, this one to all of them.
        let stopping = stop_consuming(&open.consumed, context.settings.ack_write_timeout);
        let _ = timeout_at(until, stopping).await;
    }

    async fn resumed(&self) {
        self.buffer.wait_for_demand().await;
    }
}

impl ConsumerTask {
    /// Waits until a delivery has been unacked for [`ack_timeout`](crate::BrokerSettings::ack_timeout). Returns its age.
    async fn overdue(&self, limit: Duration) -> Duration {
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
        let counters = self.channels.counters();
        match end {
            PumpEnd::Cancelled(queue) => {
                counters.consumers_cancelled.add(1);
                format!("the broker cancelled the consumer of {queue}")
            }
            PumpEnd::ChannelClosed(reason) => {
                counters.channels_closed.add(1);
                reason
            }
            PumpEnd::Lost(reason) => reason,
        }
    }

    /// Discards everything of the current connection: no ack or delivery of it is possible any more.
    fn clear_buffers(&self) {
        self.channels.discard();
        self.buffer.clear();
    }
}

/// Consumes from a queue. Returns also the number of other consumers: just before consuming, so other consumers hardly have time to come in
/// between. On a queue with a single active consumer, the broker counts that one, and former consumers with unacked messages.
async fn consume(
    channel: &Channel,
    subscription: &QueueSubscription,
) -> lapin::Result<(Consumer, u32)> {
    let queue = || short_string(subscription.queue.as_str());
    let per_consumer = BasicQosOptions { global: false };
    channel
        .basic_qos(subscription.prefetch, per_consumer)
        .await?;
    let declared = channel
        .queue_declare(queue(), PASSIVE_QUEUE, FieldTable::default())
        .await?;
    let tag = short_string(&subscription.consumer_tag);
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue(), tag, options, FieldTable::default())
        .await?;
    Ok((consumer, declared.consumer_count()))
}

/// Stops consuming, and sends a request on each channel. Its response confirms that the broker has processed all earlier acks; acks sent
/// just before a connection closes may be lost.
async fn stop_consuming(consumed: &[(QueueSubscription, Channel)], limit: Duration) {
    for (
        QueueSubscription {
            queue,
            consumer_tag,
            ..
        },
        channel,
    ) in consumed
    {
        let round_trip = async {
            channel
                .basic_cancel(short_string(consumer_tag), BasicCancelOptions::default())
                .await?;
            let name = short_string(queue.as_str());
            channel
                .queue_declare(name, PASSIVE_QUEUE, FieldTable::default())
                .await
        };
        if let Ok(Err(error)) = timeout(limit, round_trip).await {
            tracing::debug!(%queue, error = %error, "channel closed while stopping");
        }
    }
}
