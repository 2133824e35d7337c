//! A plain lapin channel, for messages that Doorstep never sends and for reading what arrived.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions,
        BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::wait_for;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The interval between two polls of a queue that a message should reach.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A connection with one channel, in confirm mode.
pub struct TestChannel {
    channel: Channel,
    /// Kept, since dropping it would close the channel.
    _connection: Connection,
}

/// A message taken from a queue.
#[derive(Debug)]
pub struct Taken {
    /// The headers with text values.
    pub headers: BTreeMap<String, String>,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Taken {
    /// Returns a header's text, empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn from_get(message: BasicGetMessage) -> Self {
        let delivery = message.delivery;
        let headers = delivery
            .properties
            .headers()
            .iter()
            .flatten()
            .filter_map(|(name, value)| match value {
                AMQPValue::LongString(text) => Some((
                    name.to_string(),
                    String::from_utf8_lossy(text.as_bytes()).into_owned(),
                )),
                _ => None,
            })
            .collect();
        Self {
            headers,
            properties: delivery.properties,
            body: delivery.data,
        }
    }
}

impl TestChannel {
    /// Connects.
    ///
    /// # Panics
    /// If the broker rejects the connection.
    pub async fn open(amqp_url: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name("a test".into());
        let opening = async {
            let connection = Connection::connect(amqp_url, properties).await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            lapin::Result::Ok((connection, channel))
        };
        let (connection, channel) = tokio::time::timeout(CONNECT_LIMIT, opening)
            .await
            .expect("the broker does not answer")
            .unwrap();
        Self {
            channel,
            _connection: connection,
        }
    }

    /// The channel, for any other operation.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes a message unchanged.
    ///
    /// # Panics
    /// Unless the broker confirms it and routes it to a queue.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = self
            .channel
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                options,
                body,
                properties.with_delivery_mode(2),
            )
            .await
            .unwrap();
        let confirmation = tokio::time::timeout(Duration::from_secs(30), confirm)
            .await
            .expect("no confirm")
            .unwrap();
        assert!(
            matches!(confirmation, Confirmation::Ack(None)),
            "{confirmation:?}"
        );
    }

    /// Declares a durable queue.
    ///
    /// # Panics
    /// If the broker rejects it.
    pub async fn declare(&self, queue: &str, arguments: FieldTable) {
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), durable, arguments)
            .await
            .unwrap();
    }

    /// Binds a queue.
    ///
    /// # Panics
    /// If the broker rejects it.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        self.channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                routing_key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// Removes a binding of a queue.
    ///
    /// # Panics
    /// If the broker rejects it.
    pub async fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        self.channel
            .queue_unbind(
                queue.into(),
                exchange.into(),
                routing_key.into(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// Takes the next message from a queue, if there is one.
    ///
    /// # Panics
    /// If there is no such queue.
    pub async fn take(&self, queue: &str) -> Option<Taken> {
        let message = self.get(queue).await?;
        let tag = message.delivery.delivery_tag;
        self.channel
            .basic_ack(tag, BasicAckOptions::default())
            .await
            .unwrap();
        Some(Taken::from_get(message))
    }

    /// Takes this many messages from a queue as they arrive.
    ///
    /// # Panics
    /// If they do not arrive within the limit.
    pub async fn take_many(&self, queue: &str, count: usize, limit: Duration) -> Vec<Taken> {
        let mut all = Vec::new();
        wait_for(
            format!("{count} messages arrive in {queue}"),
            limit,
            async || {
                while all.len() < count {
                    match self.take(queue).await {
                        Some(taken) => all.push(taken),
                        None => return Err(all.len()),
                    }
                }
                Ok(())
            },
        )
        .await;
        all
    }

    /// Consumes from a queue like a process that crashes on each delivery: every message is requeued as soon as it
    /// arrives. Returns the number of deliveries after which the broker moved one into the quarantine queue `net`.
    ///
    /// # Panics
    /// If there are no such queues, or the broker moves none within the limit.
    pub async fn give_back_until_given_up(&self, queue: &str, net: &str, limit: Duration) -> u64 {
        let options = BasicConsumeOptions::default();
        let mut consumer = self
            .channel
            .basic_consume(queue.into(), "dying".into(), options, FieldTable::default())
            .await
            .unwrap();
        let mut times = 0;
        let mut look = tokio::time::interval(POLL_INTERVAL);
        let giving_back = async {
            loop {
                // Both are cancel-safe: a delivery stays in the consumer until it is taken, and ticks repeat.
                tokio::select! {
                    delivery = consumer.next() => {
                        let requeue = BasicRejectOptions { requeue: true };
                        let tag = delivery.expect("an open consumer").unwrap().delivery_tag;
                        self.channel.basic_reject(tag, requeue).await.unwrap();
                        times += 1;
                    }
                    _ = look.tick() => {
                        if self.ready(net).await > 0 {
                            return;
                        }
                    }
                }
            }
        };
        tokio::time::timeout(limit, giving_back)
            .await
            .expect("the broker does not move the message to quarantine");
        self.channel
            .basic_cancel("dying".into(), BasicCancelOptions::default())
            .await
            .unwrap();
        times
    }

    /// Returns the number of ready messages in a queue.
    async fn ready(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap()
    }
}
