//! The RPC client's supervised task: enables sending on each connection, and delivers the replies.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::BasicConsumeOptions,
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, timeout_at},
};

use super::{
    Shared,
    cancel::{Cancel, publish_cancellations},
    liveness::monitor,
    request_sender::ClientChannels,
};
use crate::{
    connection::{
        Undecodable, describe,
        error::{ConnectError, Result},
        supervisor::{Context, Exit, StopReceiver, Supervised},
    },
    rpc::{codec, error::CallError},
};

/// Interval of polling confirms while any are pending: the maximum delay of a rejection by the broker.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// State of the task. When it ends, all calls fail.
pub(super) struct ClientTask {
    pub(super) shared: Arc<Shared>,
    pub(super) cancelled: mpsc::Receiver<Cancel>,
}

impl Drop for ClientTask {
    fn drop(&mut self) {
        self.shared.end_all("this RPC client is closed");
    }
}

impl Shared {
    /// Rejects further requests and fails all calls.
    fn end_all(&self, reason: &str) {
        self.sender.close(reason);
        self.pending_calls
            .fail(&CallError::unreachable(reason), |_| true);
    }
}

impl Supervised for ClientTask {
    /// Deliver the replies of the two channels.
    type Resources = JoinSet<String>;

    async fn open(&self, context: &Context<'_>) -> Result<JoinSet<String>> {
        let (connection, settings) = (context.connection, context.settings);
        let limit = settings.connect_timeout;
        let channels = ClientChannels {
            confirmed: connection.confirm_channel(limit).await?,
            plain: connection.channel(limit).await?,
            user_id: settings.user_id_at(connection.address()),
        };
        let mut replies = JoinSet::new();
        for channel in [&channels.confirmed, &channels.plain] {
            let consume = consume_replies(channel);
            let consumer = connection.response(limit, "", consume).await?;
            replies.spawn(deliver_replies(consumer, self.shared.clone()));
        }
        self.shared.sender.open(channels);
        Ok(replies)
    }

    async fn serve(
        &mut self,
        context: &Context<'_>,
        replies: &mut JoinSet<String>,
        stop: &mut StopReceiver,
    ) -> Exit {
        let Self { shared, cancelled } = self;
        let (connection, settings) = (context.connection, context.settings);
        let sender = &shared.sender;
        let limit = settings.ack_write_timeout;
        let work = async {
            tokio::select! {
                never = publish_cancellations(connection, &settings.namespace, cancelled, limit) => match never {},
                never = sender.polling.run(POLL_INTERVAL, || sender.poll_confirms(shared)) => match never {},
                Some(ended) = replies.join_next() => {
                    Exit::Lost(ended.unwrap_or_else(|e| format!("delivering replies failed: {e}")))
                }
            }
        };
        let probe = || monitor(connection, shared, limit);
        let blocked = |reason: Option<&str>| sender.block(reason);
        context.watch(stop, probe, work, blocked).await
    }

    fn lost(&mut self, _: Option<&JoinSet<String>>, _: &str, error: &ConnectError) {
        self.shared.end_all(&error.to_string());
    }

    fn end_intake(&mut self) {
        self.shared.sender.close("this RPC client is closing");
    }

    /// Waits for outstanding replies.
    async fn drain(&mut self, _: &Context<'_>, replies: &mut JoinSet<String>, until: Instant) {
        let mut tick = interval(POLL_INTERVAL);
        let all_replied = async {
            while !self.shared.pending_calls.is_empty() {
                tokio::select! {
                    _ = tick.tick() => {}
                    // No more replies can arrive.
                    _ = replies.join_next() => return,
                }
            }
        };
        let _ = timeout_at(until, all_replied).await;
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
async fn deliver_replies(mut consumer: Consumer, shared: Arc<Shared>) -> String {
    while let Some(received) = consumer.next().await {
        let received = match received {
            Ok(received) => received,
            Err(error) => return describe(&error),
        };
        shared.counts.received.add(1);
        let properties = received.properties;
        let (number, result) = match Undecodable::from_properties(&properties) {
            None => {
                let correlation = properties.correlation_id().as_ref();
                let number = correlation.and_then(|id| shared.pending_calls.number(id.as_str()));
                (number, codec::read_reply(&properties, received.data))
            }
            Some(undecodable) => {
                let correlation = undecodable.correlation_id();
                let number = correlation.and_then(|id| shared.pending_calls.number(&id));
                (number, Err(CallError::Malformed(undecodable.reason)))
            }
        };
        if !number.is_some_and(|number| shared.pending_calls.complete(number, result)) {
            shared.counts.late.add(1);
        }
    }
    "the broker cancelled the consumer of replies".to_owned()
}
