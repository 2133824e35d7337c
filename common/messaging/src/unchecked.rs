//! Publishing what no publisher of Doorstep would: any bytes, headers and properties, for demos and tests of bad messages.

use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use tokio::time::timeout;

use crate::{
    connection::{Connection, Dialer},
    error::{ConnectError, ConnectErrorKind},
    message::short_string,
    publisher::PublishOutcome,
    settings::BrokerSettings,
};

/// Any message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawMessage {
    /// The exchange; empty for the default one, whose routing keys are the names of queues.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Headers as they are, whatever their names.
    pub headers: Vec<(String, RawValue)>,
    /// The message id.
    pub message_id: Option<String>,
    /// The type.
    pub kind: Option<String>,
    /// The content type.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// Text.
    Text(String),
    /// Bytes that need not be text.
    Bytes(Vec<u8>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// Seconds from 1970.
    Timestamp(u64),
}

/// A connection that publishes raw messages, one at a time.
pub struct UncheckedPublisher {
    connection: Connection,
    channel: Channel,
    /// Of what goes to an exchange by name.
    user_id: Option<ShortString>,
    limit: Duration,
}

impl std::fmt::Debug for UncheckedPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawPublisher")
            .field("address", self.connection.address())
            .finish_non_exhaustive()
    }
}

impl UncheckedPublisher {
    /// Connects under this name. Declares nothing.
    ///
    /// # Errors
    /// There is no connection to be had; one attempt is made on each address.
    pub async fn connect(settings: &BrokerSettings, name: &str) -> Result<Self, ConnectError> {
        let limit = settings.connect_timeout;
        let connection = Dialer::new(settings, name).open().await?;
        let channel = connection.channel(limit).await?;
        match timeout(
            limit,
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await
        {
            Ok(Ok(())) => Ok(Self {
                user_id: settings.user_id_at(connection.address()),
                connection,
                channel,
                limit: settings.confirm_timeout,
            }),
            Ok(Err(error)) => Err(connection.failure(&error)),
            Err(_) => Err(ConnectError::new(
                ConnectErrorKind::Silent,
                format!("{} does not answer for {limit:?}", connection.address()),
            )),
        }
    }

    /// Publishes a message, persistent and mandatory, and waits for its outcome. Takes `&mut self`: with one message under way, what
    /// is returned can only be that one.
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
        let mandatory = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let publish = async {
            self.channel
                .basic_publish(
                    short_string(&message.exchange),
                    short_string(&message.routing_key),
                    mandatory,
                    &message.body,
                    properties,
                )
                .await?
                .await
        };
        match timeout(self.limit, publish).await {
            Ok(Ok(Confirmation::Ack(None))) => PublishOutcome::Confirmed,
            Ok(Ok(Confirmation::Ack(Some(_)))) => PublishOutcome::Unroutable,
            Ok(Ok(Confirmation::Nack(_))) => PublishOutcome::Refused,
            Ok(Ok(Confirmation::NotRequested) | Err(_)) => PublishOutcome::Disconnected,
            Err(_) => PublishOutcome::TimedOut,
        }
    }

    /// Hangs up, within the limit.
    pub async fn close(self, limit: Duration) {
        self.connection.close(limit).await;
    }
}

fn amqp_value(value: RawValue) -> AMQPValue {
    match value {
        RawValue::Text(text) => AMQPValue::LongString(LongString::from(text)),
        RawValue::Bytes(bytes) => AMQPValue::LongString(LongString::from(bytes)),
        RawValue::Number(number) => AMQPValue::LongLongInt(number),
        RawValue::Flag(flag) => AMQPValue::Boolean(flag),
        RawValue::Timestamp(seconds) => AMQPValue::Timestamp(seconds),
    }
}
