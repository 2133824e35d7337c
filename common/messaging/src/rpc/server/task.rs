//! The RPC server's supervised task: consumes requests on each connection, and acks them once their replies are written.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Consumer,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

use super::{
    RpcServerSettings, SHED_HEADROOM,
    callers::Callers,
    incoming::IncomingRequest,
    pump::{RequestPump, receive_cancellations},
    reply_channel::ReplyChannel,
    request_buffer::RequestBuffer,
    skew::Skew,
};
use crate::{
    amqp::short_string,
    connection::{
        describe,
        error::{ConnectError, Result},
        supervisor::{Context, Exit, StopReceiver, Supervised},
    },
    consumer::keepalive::keepalive,
    rpc::stats::RpcServerCounters,
    topology::names::QueueName,
};

/// Interval of polling for written replies while there are any: the maximum delay of an ack.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// State of the task. When it ends, no caller waits for a request any more.
pub(super) struct ServerTask {
    pub(super) role: String,
    pub(super) settings: RpcServerSettings,
    pub(super) requests: Arc<RequestBuffer<IncomingRequest>>,
    pub(super) counts: Arc<RpcServerCounters>,
}

impl Drop for ServerTask {
    fn drop(&mut self) {
        drop(self.requests.close());
    }
}

pub(super) struct OpenServer {
    channel: Arc<ReplyChannel>,
    tag: String,
    /// Channel for the keepalive requests.
    keepalive: Channel,
    pumps: JoinSet<String>,
    /// Channel that receives cancellations, if the user may.
    _cancel_channel: Option<Channel>,
}

impl Supervised for ServerTask {
    type Resources = OpenServer;

    async fn open(&self, context: &Context<'_>) -> Result<OpenServer> {
        let (connection, settings) = (context.connection, context.settings);
        let limit = settings.connect_timeout;
        let server = format!("{:016x}", rand::random::<u64>());
        let queue = settings.namespace.rpc_queue(&self.role);
        let channel = Arc::new(ReplyChannel::new(connection.channel(limit).await?));
        let mut pumps = JoinSet::new();
        // Before the first request, so that its cancellation is not missed.
        let cancel_channel = self.listen(context, &server, &channel, &mut pumps).await?;
        let tag = format!("{queue} {server}");
        let consume = async {
            let prefetch = self
                .settings
                .max_in_flight
                .max(1)
                .saturating_add(SHED_HEADROOM);
            let per_consumer = BasicQosOptions { global: false };
            channel.channel().basic_qos(prefetch, per_consumer).await?;
            let (queue, tag) = (short_string(queue.as_str()), short_string(&tag));
            let options = BasicConsumeOptions::default();
            channel
                .channel()
                .basic_consume(queue, tag, options, FieldTable::default())
                .await
        };
        let about = format!(" to consuming from queue {queue}");
        let pump = RequestPump {
            consumer: connection.response(limit, &about, consume).await?,
            channel: channel.clone(),
            settings: self.settings,
            requests: self.requests.clone(),
            counts: self.counts.clone(),
            callers: Callers::new(settings.rpc_callers.clone()),
            role: self.role.clone(),
            skew: Skew::default(),
        };
        pumps.spawn(pump.run());
        Ok(OpenServer {
            keepalive: connection.channel(limit).await?,
            channel,
            tag,
            pumps,
            _cancel_channel: cancel_channel,
        })
    }

    async fn serve(
        &mut self,
        context: &Context<'_>,
        open: &mut OpenServer,
        stop: &mut StopReceiver,
    ) -> Exit {
        let probe = || keepalive(&open.keepalive, context.settings, &self.counts.delivered);
        let channel = &open.channel;
        let work = async {
            tokio::select! {
                never = channel.polling.run(POLL_INTERVAL, || channel.poll_written()) => match never {},
                Some(ended) = open.pumps.join_next() => {
                    Exit::Lost(ended.unwrap_or_else(|e| format!("a pump failed: {e}")))
                }
            }
        };
        context.watch(stop, probe, work, |_| ()).await
    }

    fn lost(&mut self, open: Option<&OpenServer>, _: &str, _: &ConnectError) {
        // First prevent further replies, then drop the rest.
        if let Some(open) = open {
            open.channel.close();
        }
        drop(self.requests.take_all());
    }

    fn end_intake(&mut self) {
        for request in self.requests.close() {
            request.reply.requeue();
        }
    }

    /// Stops consuming, waits for the replies to requests handed out, and sends a request on the channel. Its response confirms that the
    /// broker has processed all earlier replies; replies sent just before a connection closes may be lost.
    async fn drain(&mut self, _: &Context<'_>, open: &mut OpenServer, until: Instant) {
        let channel = open.channel.channel();
        let replying = async {
            let stop = BasicCancelOptions::default();
            let _ = channel.basic_cancel(short_string(&open.tag), stop).await;
            let mut tick = interval(POLL_INTERVAL);
            let is_pending = || self.counts.in_flight.get() > 0;
            while (is_pending() || open.channel.poll_written()) && !open.channel.is_closed() {
                open.channel.poll_written();
                tick.tick().await;
            }
            let _ = channel.basic_qos(1, BasicQosOptions::default()).await;
        };
        let _ = timeout_at(until, replying).await;
        open.channel.close();
    }
}

impl ServerTask {
    /// Consumes cancellations, on the server's own queue and a separate channel: without the permission, the server works without them.
    async fn listen(
        &self,
        context: &Context<'_>,
        server: &str,
        replies: &Arc<ReplyChannel>,
        pumps: &mut JoinSet<String>,
    ) -> Result<Option<Channel>> {
        let (connection, settings) = (context.connection, context.settings);
        let limit = settings.connect_timeout;
        let channel = connection.channel(limit).await?;
        let queue = settings.namespace.cancel_queue(&self.role, server);
        let exchange = settings.namespace.cancel_exchange(&self.role);
        let consume = async {
            match consume_cancellations(&channel, &queue, &exchange).await {
                Err(error) if error.is_amqp_soft_error() => {
                    let reason = describe(&error);
                    tracing::warn!(role = self.role, reason, "cancellations are not received");
                    Ok(None)
                }
                consumer => consumer.map(Some),
            }
        };
        let about = format!(" about queue {queue}");
        let Some(consumer) = connection.response(limit, &about, consume).await? else {
            return Ok(None);
        };
        let replies = replies.clone();
        pumps.spawn(async move {
            receive_cancellations(consumer, replies).await;
            "the broker cancelled the consumer of cancellations".to_owned()
        });
        Ok(Some(channel))
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
