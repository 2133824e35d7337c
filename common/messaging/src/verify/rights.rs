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

use super::{finding::Right, look::Look};
use crate::{
    asker::Answer,
    error::{ConnectError, reply},
    message::short,
    names::QueueName,
    owner::MARKER,
    rights::DEFAULT_EXCHANGE,
};

/// A routing key that no role binds, and no queue's name.
const NOWHERE: &str = "verify";

/// Notes it if the user may not publish to this exchange, the default one if its name is empty.
pub(super) async fn write(look: &mut Look<'_>, exchange: &str) -> Result<(), ConnectError> {
    let name = if exchange.is_empty() {
        DEFAULT_EXCHANGE
    } else {
        exchange
    };
    let key = format!("{NOWHERE}.{}", std::process::id());
    let request = async move |channel: Channel| {
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let mandatory = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        // No time at all: the broker refuses that, after it has looked at the rights and before it routes anything.
        let properties = BasicProperties::default().with_expiration(short("never"));
        let confirm = channel
            .basic_publish(short(exchange), short(&key), mandatory, &[], properties)
            .await?;
        confirm.await.map(drop)
    };
    let refused = match look.ask("exchange", name, request).await? {
        Answer::No(reply::ACCESS_REFUSED, text) => !text.contains("access to topic"),
        // It may, or there is none, which is a finding by itself.
        Answer::Yes(()) | Answer::No(..) | Answer::Silence => false,
    };
    if refused {
        look.forbidden(Right::Write, "exchange", name);
    }
    Ok(())
}

/// Notes it if the user may not consume from this queue.
pub(super) async fn read(look: &mut Look<'_>, queue: &QueueName) -> Result<(), ConnectError> {
    let name = queue.as_str();
    let request = async move |channel: Channel| {
        // Should a broker let it pass after all, it holds one delivery for a moment.
        channel
            .basic_qos(1, BasicQosOptions { global: false })
            .await?;
        let mut arguments = FieldTable::default();
        let no_number = AMQPValue::LongString(LongString::from(NOWHERE));
        arguments.insert("x-priority".into(), no_number);
        channel
            .basic_consume(
                short(name),
                short(NOWHERE),
                BasicConsumeOptions::default(),
                arguments,
            )
            .await?;
        channel
            .basic_cancel(short(NOWHERE), BasicCancelOptions::default())
            .await
    };
    if let Answer::No(reply::ACCESS_REFUSED, text) = look.ask("queue", name, request).await?
        // A queue with an exclusive consumer refuses others with the same code.
        && !text.contains("exclusive")
    {
        look.forbidden(Right::Read, "queue", name);
    }
    Ok(())
}

/// Notes it if the user may not hear of requests in this queue that are cancelled: by a queue of the server's own, made when it connects.
pub(super) async fn hear(look: &mut Look<'_>, requests: &QueueName) -> Result<(), ConnectError> {
    let exchange = format!("{requests}.cancel");
    let own = QueueName::new(format!("{exchange}.{NOWHERE}"));
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
        channel.queue_declare(short(name), options, arguments).await
    };
    if let Answer::No(reply::ACCESS_REFUSED, _) = look.ask("queue", name, declare).await? {
        look.forbidden(Right::Configure, "queue", name);
    }
    // The queue is not there, which the broker finds only after it has looked at the rights to both ends.
    let bind = async |channel: Channel| {
        let (key, options) = (short(NOWHERE), QueueBindOptions::default());
        let nothing = FieldTable::default();
        channel
            .queue_bind(short(name), short(&exchange), key, options, nothing)
            .await
    };
    if let Answer::No(reply::ACCESS_REFUSED, text) = look.ask("queue", name, bind).await? {
        if text.contains("access to exchange") {
            look.forbidden(Right::Read, "exchange", &exchange);
        } else {
            look.forbidden(Right::Write, "queue", name);
        }
    }
    read(look, &own).await
}

/// Notes it if the user may not mark this queue, so that its loss would not be noticed.
pub(super) async fn mark(look: &mut Look<'_>, queue: &QueueName) -> Result<(), ConnectError> {
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
            .exchange_declare(short(name), ExchangeKind::Fanout, options, arguments)
            .await
    };
    if let Answer::No(reply::ACCESS_REFUSED, _) = look.ask("exchange", name, declare).await? {
        look.forbidden(Right::Configure, "exchange", name);
    }
    // Unbinding asks for the same rights as binding. Nothing is bound by such a key, nor is the mark's own binding.
    let unbind = async |channel: Channel| {
        channel
            .queue_unbind(
                short(queue.as_str()),
                short(name),
                short(NOWHERE),
                FieldTable::default(),
            )
            .await
    };
    if let Answer::No(reply::ACCESS_REFUSED, text) = look.ask("exchange", name, unbind).await? {
        if text.contains("access to exchange") {
            look.forbidden(Right::Read, "exchange", name);
        } else {
            look.forbidden(Right::Write, "queue", queue.as_str());
        }
    }
    Ok(())
}

/// Notes it if the user lacks a right that creating the record of an owner takes, beside configuring it.
pub(super) async fn own(look: &mut Look<'_>, exchange: &str) -> Result<(), ConnectError> {
    let record = format!("{MARKER}{NOWHERE}");
    // Unbinding asks for the right to read from the one exchange and to write to the other, and there is nothing to unbind.
    let unbind = async |channel: Channel| {
        channel
            .exchange_unbind(
                short(&record),
                short(exchange),
                short(NOWHERE),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    if let Answer::No(reply::ACCESS_REFUSED, text) = look.ask("exchange", exchange, unbind).await? {
        if text.contains(&record) {
            look.forbidden(Right::Write, "exchange", &format!("{MARKER}.*"));
        } else {
            look.forbidden(Right::Read, "exchange", exchange);
        }
    }
    Ok(())
}
