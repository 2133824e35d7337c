//! Whether the user may write and read: asked by requests that the broker refuses in any case, but only after it has looked at the
//! user's rights. So nothing is published, nothing is consumed, and nothing stays.

use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};

use super::{finding::Permission, verifier::Verifier};
use crate::{
    error::{ConnectError, reply},
    message::short_string,
    names::QueueName,
    owner::MARKER,
    permissions::DEFAULT_EXCHANGE,
    probe_channel::ProbeResult,
};

/// A routing key that no role binds, and no queue's name.
const PROBE_PRIORITY: &str = "verify";

/// Notes it if the user may not publish to this exchange, the default one if its name is empty.
pub(super) async fn write(look: &mut Verifier<'_>, exchange: &str) -> Result<(), ConnectError> {
    let name = if exchange.is_empty() {
        DEFAULT_EXCHANGE
    } else {
        exchange
    };
    let key = format!("{PROBE_PRIORITY}.{}", std::process::id());
    let request = async move |channel: Channel| {
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let mandatory = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        // No time at all: the broker refuses that, after it has looked at the rights and before it routes anything.
        let properties = BasicProperties::default().with_expiration(short_string("never"));
        let confirm = channel
            .basic_publish(
                short_string(exchange),
                short_string(&key),
                mandatory,
                &[],
                properties,
            )
            .await?;
        confirm.await.map(drop)
    };
    let refused = match look.ask("exchange", name, request).await? {
        ProbeResult::No(reply::ACCESS_REFUSED, text) => !text.contains("access to topic"),
        // It may, or there is none, which is a finding by itself.
        ProbeResult::Yes(()) | ProbeResult::No(..) | ProbeResult::Silence => false,
    };
    if refused {
        look.forbidden(Permission::Write, "exchange", name);
    }
    Ok(())
}

/// Notes it if the user may not consume from this queue.
pub(super) async fn read(look: &mut Verifier<'_>, queue: &QueueName) -> Result<(), ConnectError> {
    let name = queue.as_str();
    let request = async move |channel: Channel| {
        // Should a broker let it pass after all, it holds one delivery for a moment.
        channel
            .basic_qos(1, BasicQosOptions { global: false })
            .await?;
        let mut arguments = FieldTable::default();
        let no_number = AMQPValue::LongString(LongString::from(PROBE_PRIORITY));
        arguments.insert("x-priority".into(), no_number);
        channel
            .basic_consume(
                short_string(name),
                short_string(PROBE_PRIORITY),
                BasicConsumeOptions::default(),
                arguments,
            )
            .await?;
        channel
            .basic_cancel(short_string(PROBE_PRIORITY), BasicCancelOptions::default())
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, text) = look.ask("queue", name, request).await?
        // A queue with an exclusive consumer refuses others with the same code.
        && !text.contains("exclusive")
    {
        look.forbidden(Permission::Read, "queue", name);
    }
    Ok(())
}

/// Notes it if the user may not hear of requests in this queue that are cancelled: by a queue of the server's own, made when it connects.
pub(super) async fn check_cancel_binding(
    look: &mut Verifier<'_>,
    requests: &QueueName,
) -> Result<(), ConnectError> {
    let exchange = format!("{requests}.cancel");
    let own = QueueName::new(format!("{exchange}.{PROBE_PRIORITY}"));
    let name = own.as_str();
    let declare = async |channel: Channel| {
        // No time at all: the broker refuses that, after it has looked at the rights.
        let mut arguments = FieldTable::default();
        let no_time = AMQPValue::LongString(LongString::from("never"));
        arguments.insert("x-expires".into(), no_time);
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short_string(name), options, arguments)
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, _) = look.ask("queue", name, declare).await? {
        look.forbidden(Permission::Configure, "queue", name);
    }
    // The queue is not there, which the broker finds only after it has looked at the rights to both ends.
    let bind = async |channel: Channel| {
        let (key, options) = (short_string(PROBE_PRIORITY), QueueBindOptions::default());
        let nothing = FieldTable::default();
        channel
            .queue_bind(
                short_string(name),
                short_string(&exchange),
                key,
                options,
                nothing,
            )
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, text) = look.ask("queue", name, bind).await? {
        if text.contains("access to exchange") {
            look.forbidden(Permission::Read, "exchange", &exchange);
        } else {
            look.forbidden(Permission::Write, "queue", name);
        }
    }
    read(look, &own).await
}

/// Notes it if the user may not mark this queue, so that its loss would not be noticed.
pub(super) async fn check_marker(
    look: &mut Verifier<'_>,
    queue: &QueueName,
) -> Result<(), ConnectError> {
    let mark = queue.mark();
    let name = mark.as_str();
    let declare = async |channel: Channel| {
        // No name at all: the broker refuses that, after it has looked at the rights. Nor is any mark like this.
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), AMQPValue::Boolean(true));
        let options = ExchangeDeclareOptions {
            durable: false,
            auto_delete: true,
            internal: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(short_string(name), ExchangeKind::Fanout, options, arguments)
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, _) = look.ask("exchange", name, declare).await? {
        look.forbidden(Permission::Configure, "exchange", name);
    }
    // Unbinding asks for the same rights as binding. Nothing is bound by such a key, nor is the mark's own binding.
    let unbind = async |channel: Channel| {
        channel
            .queue_unbind(
                short_string(queue.as_str()),
                short_string(name),
                short_string(PROBE_PRIORITY),
                FieldTable::default(),
            )
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, text) = look.ask("exchange", name, unbind).await?
    {
        if text.contains("access to exchange") {
            look.forbidden(Permission::Read, "exchange", name);
        } else {
            look.forbidden(Permission::Write, "queue", queue.as_str());
        }
    }
    Ok(())
}

/// Notes it if the user lacks a right that creating the record of an owner takes, beside configuring it.
pub(super) async fn own(look: &mut Verifier<'_>, exchange: &str) -> Result<(), ConnectError> {
    let record = format!("{MARKER}{PROBE_PRIORITY}");
    // Unbinding asks for the right to read from the one exchange and to write to the other, and there is nothing to unbind.
    let unbind = async |channel: Channel| {
        channel
            .exchange_unbind(
                short_string(&record),
                short_string(exchange),
                short_string(PROBE_PRIORITY),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    if let ProbeResult::No(reply::ACCESS_REFUSED, text) =
        look.ask("exchange", exchange, unbind).await?
    {
        if text.contains(&record) {
            look.forbidden(Permission::Write, "exchange", &format!("{MARKER}.*"));
        } else {
            look.forbidden(Permission::Read, "exchange", exchange);
        }
    }
    Ok(())
}
