//! Probes the user's write and read permissions with requests that the broker rejects in any case, but only after checking the permissions.
//! So nothing is published or consumed, and nothing stays at the broker.

use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{finding::Permission, verifier::Verifier};
use crate::{
    amqp::{MANDATORY, long_string, short_string},
    connection::error::Result,
    topology::{names::QueueName, permissions::DEFAULT_EXCHANGE, queue_owner::MARKER},
};

/// A value that is no routing key of any role, no queue's name and no priority.
const PROBE_PRIORITY: &str = "verify";

/// Records it if the user may not publish to this exchange. An empty name is the default exchange.
pub(super) async fn check_write(verifier: &mut Verifier<'_>, exchange: &str) -> Result<()> {
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
        // An invalid expiration: the broker rejects it after checking permissions and before routing.
        let properties = BasicProperties::default().with_expiration(short_string("never"));
        let confirm = channel
            .basic_publish(
                short_string(exchange),
                short_string(&key),
                MANDATORY,
                &[],
                properties,
            )
            .await?;
        confirm.await.map(drop)
    };
    if let Some(text) = verifier.denial("exchange", name, request).await?
        && !text.contains("access to topic")
    {
        verifier.forbidden(Permission::Write, "exchange", name);
    }
    Ok(())
}

/// Records it if the user may not consume from this queue.
pub(super) async fn check_read(verifier: &mut Verifier<'_>, queue: &QueueName) -> Result<()> {
    let name = queue.as_str();
    let request = async move |channel: Channel| {
        // If a broker accepts the request after all, it delivers at most one message for a moment.
        channel
            .basic_qos(1, BasicQosOptions { global: false })
            .await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), long_string(PROBE_PRIORITY));
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
    if let Some(text) = verifier.denial("queue", name, request).await?
        // A queue with an exclusive consumer rejects others with the same code.
        && !text.contains("exclusive")
    {
        verifier.forbidden(Permission::Read, "queue", name);
    }
    Ok(())
}

/// Records it if the user may not receive cancellations of this queue's requests. A server receives them on its own queue, declared when it
/// connects.
pub(super) async fn check_cancel_binding(
    verifier: &mut Verifier<'_>,
    requests: &QueueName,
) -> Result<()> {
    let exchange = format!("{requests}.cancel");
    let own = QueueName::new(format!("{exchange}.{PROBE_PRIORITY}"));
    let name = own.as_str();
    let declare = async |channel: Channel| {
        // An invalid time: the broker rejects it after checking permissions.
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), long_string("never"));
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short_string(name), options, arguments)
            .await
    };
    if verifier.denial("queue", name, declare).await?.is_some() {
        verifier.forbidden(Permission::Configure, "queue", name);
    }
    // The queue does not exist, which the broker notices only after checking the permissions on both ends.
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
    if let Some(text) = verifier.denial("queue", name, bind).await? {
        if text.contains("access to exchange") {
            verifier.forbidden(Permission::Read, "exchange", &exchange);
        } else {
            verifier.forbidden(Permission::Write, "queue", name);
        }
    }
    check_read(verifier, &own).await
}

/// Records it if the user may not mark this queue, so that its loss would go unnoticed.
pub(super) async fn check_marker(verifier: &mut Verifier<'_>, queue: &QueueName) -> Result<()> {
    let mark = queue.marker();
    let name = mark.as_str();
    let declare = async |channel: Channel| {
        // An invalid exchange name: the broker rejects it after checking permissions. No real marker has these properties either.
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
    if verifier.denial("exchange", name, declare).await?.is_some() {
        verifier.forbidden(Permission::Configure, "exchange", name);
    }
    // Unbinding needs the same permissions as binding. No binding has this key, not even the marker's own.
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
    if let Some(text) = verifier.denial("exchange", name, unbind).await? {
        if text.contains("access to exchange") {
            verifier.forbidden(Permission::Read, "exchange", name);
        } else {
            verifier.forbidden(Permission::Write, "queue", queue.as_str());
        }
    }
    Ok(())
}

/// Records it if the user lacks a permission, other than configure, to record an owner.
pub(super) async fn check_owner_record(verifier: &mut Verifier<'_>, exchange: &str) -> Result<()> {
    let record = format!("{MARKER}{PROBE_PRIORITY}");
    // Unbinding needs read permission on one exchange and write permission on the other. There is nothing to unbind.
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
    if let Some(text) = verifier.denial("exchange", exchange, unbind).await? {
        if text.contains(&record) {
            verifier.forbidden(Permission::Write, "exchange", &format!("{MARKER}.*"));
        } else {
            verifier.forbidden(Permission::Read, "exchange", exchange);
        }
    }
    Ok(())
}
