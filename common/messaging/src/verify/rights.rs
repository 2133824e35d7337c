//! Whether the user may write and read: asked by requests that the broker refuses in any case, but only after it has looked at the
//! user's rights. So nothing is published, nothing is consumed, and nothing stays.

use lapin::{
    BasicProperties, Channel,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};

use super::{finding::Right, look::Look};
use crate::{
    asker::Answer,
    error::{ConnectError, reply},
    message::short,
    names::QueueName,
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
