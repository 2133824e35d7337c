//! Measures publishing and consuming against plain lapin, in interleaved rounds on one quorum queue.
//!
//! ```sh
//! cargo run --release --example throughput -- amqp://localhost 5 100000
//! ```
//!
//! Prints messages per second for each, and the ratios of the medians.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject, headers};
use doorstep_messaging::{
    BrokerSettings, Message, PublishOutcome, Publisher, QueueSubscription, RoleQueues,
    Subscription, Topology,
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Confirmation, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ROLE: RoleQueues = RoleQueues {
    role: "throughput",
    subjects: &["order"],
    handles_requests: false,
};

#[tokio::main]
async fn main() -> Anything<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or("amqp://localhost".to_owned());
    let rounds: usize = arguments.next().unwrap_or("5".to_owned()).parse()?;
    let count: usize = arguments.next().unwrap_or("100000".to_owned()).parse()?;
    let only = arguments.next().unwrap_or_default();
    tokio::spawn(run(url, rounds, count, only)).await?
}

async fn run(url: String, rounds: usize, count: usize, only: String) -> Anything<()> {
    let settings = BrokerSettings::new(&url, "doorstep-throughput")?;
    let topology = Topology::of(&settings.namespace, &[ROLE]);
    let queue = settings.namespace.role_queue(ROLE.role, 0);
    let events: Vec<Event> = (0..count).map(event).collect::<Anything<_>>()?;
    let publisher = Publisher::start(&settings, "throughput publish", topology.clone());
    publisher.ready(Duration::from_secs(10)).await?;
    purge(&url, queue.as_str()).await?;
    let mut figures: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let wanted = |name: &str| only.is_empty() || name.contains(&only);
    for _ in 0..rounds {
        let mut note = |name, figure| figures.entry(name).or_default().push(figure);
        if wanted("publish, bare") {
            let figure = timed(count, bare_publish(&url, &settings, &events)).await?;
            note("publish, bare", figure);
        }
        if wanted("consume, bare") {
            fill(&url, &queue, &publisher, &events).await?;
            let figure = timed(count, bare_consume(&url, queue.as_str(), count)).await?;
            note("consume, bare", figure);
        }
        purge(&url, queue.as_str()).await?;
        if wanted("publish, ours") {
            let figure = timed(count, our_publish(&publisher, &events)).await?;
            note("publish, ours", figure);
        }
        if wanted("consume, ours") {
            fill(&url, &queue, &publisher, &events).await?;
            let figure = timed(count, our_consume(&settings, topology.clone(), count)).await?;
            note("consume, ours", figure);
        }
        purge(&url, queue.as_str()).await?;
    }
    let mut medians = BTreeMap::new();
    for (name, mut rounds) in figures {
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, cpu) = rounds[rounds.len() / 2];
        medians.insert(name, rate);
        let all: Vec<_> = rounds.iter().map(|r| r.0.round()).collect();
        println!("{name}: {rate:.0}/s, {cpu:.2} processor s a million, rounds {all:?}");
    }
    for what in ["publish", "consume"] {
        let bare = medians.get(format!("{what}, bare").as_str());
        let ours = medians.get(format!("{what}, ours").as_str());
        if let (Some(bare), Some(ours)) = (bare, ours) {
            println!("{what}_ratio {:.3}", ours / bare);
        }
    }
    publisher.close(Duration::from_secs(5)).await;
    Ok(())
}

async fn timed(
    count: usize,
    work: impl Future<Output = Anything<()>> + Send + 'static,
) -> Anything<(f64, f64)> {
    let (start, cpu) = (Instant::now(), processor_seconds());
    tokio::spawn(work).await??;
    let rate = count as f64 / start.elapsed().as_secs_f64();
    Ok((
        rate,
        (processor_seconds() - cpu) / count as f64 * 1_000_000.0,
    ))
}

/// Returns user and system time of this process in seconds, from the kernel's hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn event(number: usize) -> Anything<Event> {
    let subject = Subject::new(format!("order/{}", number % 1000))?;
    let sequence = Sequence::new((number / 1000 + 1) as u64).ok_or("sequence")?;
    Ok(Event {
        id: EventId::new(format!("{subject}#{sequence}"))?,
        source: Source::new("throughput/5e3b6c2c-1f0e-4d38-9d0a-4f2d6a1f7c11")?,
        event_type: EventType::new("order.placed.v1")?,
        subject,
        time: Some("2026-11-23T10:00:00.25Z".parse()?),
        sequence: Some(sequence),
        epoch: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        data: Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(289))),
    })
}

async fn our_publish_all(publisher: Publisher, events: Vec<Event>) -> Anything<()> {
    // Like the relay: one page of the outbox at a time, the next already in flight.
    let pages: Vec<Vec<Event>> = events.chunks(500).map(<[Event]>::to_vec).collect();
    let publisher = &publisher;
    let mut in_flight = futures_util::stream::iter(pages.into_iter().map(async |page| {
        let messages = page.iter().map(Message::event).collect();
        publisher.publish_all(messages).await
    }))
    .buffered(4);
    while let Some(outcomes) = in_flight.next().await {
        if !outcomes.iter().all(|o| *o == PublishOutcome::Confirmed) {
            return Err("not all confirmed".into());
        }
    }
    Ok(())
}

fn our_publish(
    publisher: &Publisher,
    events: &[Event],
) -> impl Future<Output = Anything<()>> + Send + use<> {
    our_publish_all(publisher.clone(), events.to_vec())
}

fn our_consume(
    settings: &BrokerSettings,
    topology: Topology,
    count: usize,
) -> impl Future<Output = Anything<()>> + Send + use<> {
    let settings = settings.clone();
    async move {
        let queue = settings.namespace.role_queue(ROLE.role, 0);
        let subscription = Subscription::start(
            &settings,
            "throughput consume",
            topology,
            vec![QueueSubscription {
                queue,
                consumer_tag: "throughput".to_owned(),
                prefetch: settings.prefetch,
            }],
        );
        let mut seen = 0;
        while seen < count {
            let batch = subscription
                .next_batch(1000, 4 << 20)
                .await
                .ok_or("closed")?;
            seen += batch.deliveries.len();
            for delivery in &batch.deliveries {
                if !matches!(delivery.read, headers::Decoded::Valid(_)) {
                    return Err("not an event".into());
                }
            }
            subscription.ack_up_to(batch.channel, batch.last_tag).await;
        }
        subscription.close(Duration::from_secs(5)).await;
        Ok(())
    }
}

async fn connect(url: &str) -> Anything<lapin::Connection> {
    Ok(lapin::Connection::connect(url, ConnectionProperties::default()).await?)
}

async fn purge(url: &str, queue: &str) -> Anything<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel
        .queue_purge(queue.into(), QueuePurgeOptions::default())
        .await?;
    connection.close(200, "OK".into()).await?;
    Ok(())
}

/// Replaces the queue's content by these events.
async fn fill(
    url: &str,
    queue: &doorstep_messaging::QueueName,
    publisher: &Publisher,
    events: &[Event],
) -> Anything<()> {
    purge(url, queue.as_str()).await?;
    tokio::spawn(our_publish(publisher, events)).await?
}

fn bare_publish(
    url: &str,
    settings: &BrokerSettings,
    events: &[Event],
) -> impl Future<Output = Anything<()>> + Send + use<> {
    let (url, events) = (url.to_owned(), events.to_vec());
    let exchange: ShortString = settings.namespace.events_exchange().into();
    async move {
        let connection = connect(&url).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let channel = &channel;
        let mut confirms = futures_util::stream::iter(events.into_iter().map(|event| {
            let exchange = exchange.clone();
            async move {
                let mut table = FieldTable::default();
                for (name, value) in headers::write(&event) {
                    table.insert(name.into(), AMQPValue::LongString(value.into()));
                }
                let properties = BasicProperties::default()
                    .with_content_type("application/json".into())
                    .with_delivery_mode(2)
                    .with_message_id(event.id.as_str().into())
                    .with_type(event.event_type.as_str().into())
                    .with_timestamp(1)
                    .with_headers(table);
                let mandatory = BasicPublishOptions {
                    mandatory: true,
                    immediate: false,
                };
                channel
                    .basic_publish(
                        exchange,
                        event.event_type.as_str().into(),
                        mandatory,
                        &event.data,
                        properties,
                    )
                    .await?
                    .await
            }
        }))
        .buffer_unordered(1000);
        while let Some(confirm) = confirms.next().await {
            if confirm? != Confirmation::Ack(None) {
                return Err("not confirmed".into());
            }
        }
        connection.close(200, "OK".into()).await?;
        Ok(())
    }
}

fn bare_consume(
    url: &str,
    queue: &str,
    count: usize,
) -> impl Future<Output = Anything<()>> + Send + use<> {
    let (url, queue) = (url.to_owned(), queue.to_owned());
    async move {
        let connection = connect(&url).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(2000, BasicQosOptions::default()).await?;
        let mut consumer = channel
            .basic_consume(
                queue.as_str().into(),
                "bare".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let all = BasicAckOptions { multiple: true };
        let mut bytes = 0;
        for number in 1..=count {
            let delivery = consumer.next().await.ok_or("ended")??;
            let data: serde_json::Value = serde_json::from_slice(&delivery.data)?;
            bytes += data["text"].as_str().map_or(0, str::len);
            if number % 500 == 0 || number == count {
                channel.basic_ack(delivery.delivery_tag, all).await?;
            }
        }
        // The response confirms that the last ack has arrived.
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        connection.close(200, "OK".into()).await?;
        if bytes == 0 {
            return Err("nothing read".into());
        }
        Ok(())
    }
}
