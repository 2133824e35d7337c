//! Publishes arbitrary bytes, headers and properties without validation, for demos and tests of bad messages.

use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use crate::{
    amqp::{MANDATORY, long_string, short_string},
    connection::{Connection, Dialer, error::Result},
    publisher::PublishOutcome,
    settings::BrokerSettings,
};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawMessage {
    /// The exchange. Empty for the default exchange, whose routing keys are queue names.
    pub exchange: String,
    pub routing_key: String,
    /// Headers, which are sent without any validation.
    pub headers: Vec<(String, RawValue)>,
    pub message_id: Option<String>,
    pub kind: Option<String>,
    pub content_type: Option<String>,
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    Text(String),
    /// Bytes, which need not be UTF-8.
    Bytes(Vec<u8>),
    Number(i64),
    Flag(bool),
    /// Unix time, in whole seconds.
    Timestamp(u64),
}

/// A connection that publishes raw messages, one at a time.
#[derive(derive_more::Debug)]
#[debug("UncheckedPublisher({})", connection.address())]
pub struct UncheckedPublisher {
    connection: Connection,
    channel: Channel,
    /// User id of messages to a named exchange.
    user_id: Option<ShortString>,
    limit: Duration,
}

impl UncheckedPublisher {
    /// Connects under this name. Declares nothing. Tries each address once.
    ///
    /// # Errors
    /// Fails if no address accepts a connection.
    pub async fn connect(settings: &BrokerSettings, name: &str) -> Result<Self> {
        let limit = settings.connect_timeout;
        let connection = Dialer::new(settings, name).open().await?;
        Ok(Self {
            channel: connection.confirm_channel(limit).await?,
            user_id: settings.user_id_at(connection.address()),
            connection,
            limit: settings.confirm_timeout,
        })
    }

    /// Publishes a persistent, mandatory message and waits for its outcome. It takes `&mut self`, so only one message is in flight, and a
    /// returned message can only be that one.
    pub async fn publish(&mut self, message: RawMessage) -> PublishOutcome {
        let mut table = FieldTable::default();
        for (name, value) in message.headers {
            table.insert(short_string(&name), amqp_value(value));
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(table);
        if let Some(user_id) = self
            .user_id
            .clone()
            .filter(|_| !message.exchange.is_empty())
        {
            properties = properties.with_user_id(user_id);
        }
        if let Some(id) = message.message_id {
            properties = properties.with_message_id(short_string(&id));
        }
        if let Some(kind) = message.kind {
            properties = properties.with_type(short_string(&kind));
        }
        if let Some(content_type) = message.content_type {
            properties = properties.with_content_type(short_string(&content_type));
        }
        let publish = async {
            self.channel
                .basic_publish(
                    short_string(&message.exchange),
                    short_string(&message.routing_key),
                    MANDATORY,
                    &message.body,
                    properties,
                )
                .await?
                .await
        };
        match timeout(self.limit, publish).await {
            Ok(Ok(Confirmation::Ack(None))) => PublishOutcome::Confirmed,
            Ok(Ok(Confirmation::Ack(Some(_)))) => PublishOutcome::Unroutable,
            Ok(Ok(Confirmation::Nack(_))) => PublishOutcome::Rejected,
            Ok(Ok(Confirmation::NotRequested) | Err(_)) => PublishOutcome::Disconnected,
            Err(_) => PublishOutcome::TimedOut,
        }
    }

    /// Closes the connection within the limit.
    pub async fn close(self, limit: Duration) {
        self.connection.close(limit).await;
    }
}

fn amqp_value(value: RawValue) -> AMQPValue {
    match value {
        RawValue::Text(text) => long_string(text),
        RawValue::Bytes(bytes) => long_string(bytes),
        RawValue::Number(number) => AMQPValue::LongLongInt(number),
        RawValue::Flag(flag) => AMQPValue::Boolean(flag),
        RawValue::Timestamp(seconds) => AMQPValue::Timestamp(seconds),
    }
}
