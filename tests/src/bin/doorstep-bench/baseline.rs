//! The bare client in its fastest known form: the baseline for Doorstep.
//!
//! - Publishing: a channel in confirm mode, 1,000 outstanding confirms that are polled together, persistent and
//!   mandatory.
//! - Consuming: a prefetch of 2,000, every body decoded, one cumulative acknowledgement for 500 messages.
//!
//! Both run in a spawned task, which is 20 % faster on two cores. Both omit everything that Doorstep adds: reconnects,
//! matching of returned messages, order, deduplication, a store.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use doorstep_event::{Event, headers};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Confirmation,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use tokio::time::timeout;

use crate::{
    env::{BenchEnv, LIMIT, TIMEOUT, connect},
    events::ParcelWeighed,
    figures::{Figure, Stopwatch},
};

const CONFIRMS: usize = 1_000;
const PREFETCH: u16 = 2_000;
const ACKNOWLEDGED_AT_A_TIME: usize = 500;
const PERSISTENT: u8 = 2;

/// The headers and properties of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageShape {
    /// Exactly those that Doorstep sends.
    AsDoorstep,
    /// Only the persistent delivery mode.
    Plain,
}

/// Publishes these events and waits for every confirm.
pub(crate) async fn publish(
    env: &BenchEnv,
    events: &Arc<[Event]>,
    dress: MessageShape,
) -> Result<Figure> {
    let (connection, channel) = connect(
        &env.url,
        &format!("{}: bare publish", env.settings.namespace),
    )
    .await?;
    timeout(
        TIMEOUT,
        channel.confirm_select(ConfirmSelectOptions::default()),
    )
    .await??;
    let exchange: ShortString = env.exchange.as_str().into();
    let events = Arc::clone(events);
    let user: ShortString = env.settings.addresses[0].user().into();
    // The client closes a channel when its last handle is dropped, which must not coincide with closing the connection.
    let kept = channel.clone();
    let task = tokio::spawn(async move {
        let watch = Stopwatch::start()?;
        let channel = &channel;
        let (exchange, events, user) = (&exchange, &events, &user);
        let mut confirms = futures_util::stream::iter(0..events.len())
            .map(|number| async move {
                let event = &events[number];
                let properties = match dress {
                    MessageShape::AsDoorstep => properties(event).with_user_id(user.clone()),
                    MessageShape::Plain => {
                        BasicProperties::default().with_delivery_mode(PERSISTENT)
                    }
                };
                let mandatory = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let kind = event.event_type.as_str().into();
                channel
                    .basic_publish(exchange.clone(), kind, mandatory, &event.data, properties)
                    .await?
                    .await
            })
            .buffer_unordered(CONFIRMS);
        while let Some(confirm) = confirms.next().await {
            let confirm = confirm?;
            ensure!(
                confirm == Confirmation::Ack(None),
                "the broker answered {confirm:?}"
            );
        }
        watch.stop(events.len())
    });
    let figure = timeout(LIMIT, task)
        .await
        .context("the bare publisher timed out")??;
    timeout(TIMEOUT, connection.close(200, "OK".into())).await??;
    drop(kept);
    figure
}

/// The same properties and headers as Doorstep's, built in the shortest way.
fn properties(event: &Event) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers::write(event) {
        table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    let properties = BasicProperties::default()
        .with_content_type(headers::CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(event.id.as_str().into())
        .with_type(event.event_type.as_str().into())
        .with_headers(table);
    match event
        .time
        .and_then(|time| u64::try_from(time.as_second()).ok())
    {
        Some(seconds) => properties.with_timestamp(seconds),
        None => properties,
    }
}

/// Consumes this many messages, decodes each, and acknowledges all. Timed from the first message to the last
/// acknowledgement.
pub(crate) async fn consume(env: &BenchEnv, events: usize) -> Result<Figure> {
    let (connection, channel) = connect(
        &env.url,
        &format!("{}: bare consume", env.settings.namespace),
    )
    .await?;
    timeout(
        TIMEOUT,
        channel.basic_qos(PREFETCH, BasicQosOptions::default()),
    )
    .await??;
    let queue: ShortString = env.queue.as_str().into();
    let tag: ShortString = "bare".into();
    let kept = channel.clone();
    let task = tokio::spawn(async move {
        let watch = Stopwatch::start()?;
        let consumed = channel.basic_consume(
            queue,
            tag,
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = timeout(TIMEOUT, consumed).await??;
        let mut first = None;
        let mut grams = 0;
        for number in 1..=events {
            let delivery = consumer
                .next()
                .await
                .context("the broker ended the consumer")??;
            first.get_or_insert_with(Instant::now);
            let fact: ParcelWeighed = serde_json::from_slice(&delivery.data)?;
            grams += fact.grams;
            if number % ACKNOWLEDGED_AT_A_TIME == 0 || number == events {
                let all = BasicAckOptions { multiple: true };
                channel.basic_ack(delivery.delivery_tag, all).await?;
            }
        }
        let figure = watch.stop_since(first.context("nothing was consumed")?, events)?;
        ensure!(grams > 0, "nothing was decoded");
        // Writes just before a close may be lost, so this waits for an answer on the channel first.
        timeout(TIMEOUT, channel.basic_qos(1, BasicQosOptions::default())).await??;
        Ok(figure)
    });
    let figure = timeout(LIMIT, task)
        .await
        .context("the bare consumer timed out")??;
    timeout(TIMEOUT, connection.close(200, "OK".into())).await??;
    drop(kept);
    figure
}
