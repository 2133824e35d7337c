//! Every message gets its true outcome.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use doorstep_broker::{NodeOptions, PrivateNode, percent_encoded};
use doorstep_messaging::{
    ConnectionPhase, Inspector, Message, PublishOutcome, Publisher, QueueName, RawMessage,
    RawValue, UncheckedPublisher,
};

use doorstep_tests::{Point, TestChannel, WireFault};
use lapin::types::FieldTable;
use tokio::task::block_in_place;

use crate::support::{
    LONG, ROLE, TestEnv, all_confirmed, begin, event, kind_of_event, publish, publisher, settings,
    take, until, within,
};

/// A random number generator with a fixed seed, so that a failure is reproducible.
struct SeededRng(u64);

impl SeededRng {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The client attaches a returned message to the next confirm that completes, in another order than they were
/// published. With this many, unroutable and other messages share ack frames all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_right_among_many_unroutable_messages() -> Result<()> {
    const ROUNDS: u64 = 4;
    const MESSAGES: u64 = 6_000;
    let env = TestEnv::new("flood").await?;
    let publisher = env.publisher("flood").await?;
    let mut rng = SeededRng(42);
    for round in 0..ROUNDS {
        let mut messages = Vec::new();
        let mut expected = Vec::new();
        for number in 1..=MESSAGES {
            let key = format!("{round}-{number}");
            // Single ones, runs, and a queue that does not exist: all returned messages are in between the others.
            let (message, outcome) = match rng.roll(6) {
                0 => (
                    Message::event(&kind_of_event("parcel", &key, number)),
                    PublishOutcome::Unroutable,
                ),
                1 => (
                    Message::to_queue(
                        QueueName::new("no-such-queue"),
                        &key,
                        Vec::new(),
                        Bytes::from_static(b"copy"),
                    ),
                    PublishOutcome::Unroutable,
                ),
                _ => (
                    Message::event(&event(&key, number)),
                    PublishOutcome::Confirmed,
                ),
            };
            messages.push(message);
            expected.push(outcome);
        }
        let outcomes = within(LONG, "the flood", publisher.publish_all(messages)).await?;
        let wrong: Vec<_> = (0..expected.len())
            .filter(|i| outcomes[*i] != expected[*i])
            .map(|i| (i, outcomes[i], expected[i]))
            .collect();
        assert!(wrong.is_empty(), "{} wrong: {wrong:?}", wrong.len());
    }
    Ok(())
}

#[tokio::test]
async fn equal_ids_get_outcomes_by_destination() -> Result<()> {
    let env = TestEnv::new("same-id").await?;
    let publisher = env.publisher("same id").await?;
    let event = event("1", 1);
    let copy = |queue: &QueueName| {
        let body = Bytes::from_static(b"copy");
        Message::to_queue(queue.clone(), event.id.as_str(), Vec::new(), body)
    };
    for _ in 0..200 {
        let outcomes = publisher
            .publish_all(vec![
                copy(&QueueName::new("no-such-queue")),
                Message::event(&event),
                copy(&env.namespace().dead_letter_queue("orders")),
            ])
            .await;
        assert_eq!(
            outcomes,
            [
                PublishOutcome::Unroutable,
                PublishOutcome::Confirmed,
                PublishOutcome::Confirmed
            ]
        );
    }
    Ok(())
}

#[tokio::test]
async fn concurrent_calls_get_their_own_outcomes() -> Result<()> {
    let env = TestEnv::new("calls").await?;
    let publisher = env.publisher("calls").await?;
    let calls: Vec<_> = (1..=300)
        .map(|number| {
            let publisher = publisher.clone();
            tokio::spawn(async move {
                let event = match number % 3 {
                    0 => kind_of_event("parcel", "1", number),
                    _ => event("1", number),
                };
                (number, publisher.publish(Message::event(&event)).await)
            })
        })
        .collect();
    for call in calls {
        let (number, outcome) = within(LONG, "a call", call).await??;
        let expected = match number % 3 {
            0 => PublishOutcome::Unroutable,
            _ => PublishOutcome::Confirmed,
        };
        assert_eq!(outcome, expected, "message {number}");
    }
    Ok(())
}

#[tokio::test]
async fn unroutable_messages_pass_once_a_queue_is_bound() -> Result<()> {
    let env = TestEnv::new("bound-later").await?;
    let publisher = env.publisher("bound later").await?;
    let event = kind_of_event("parcel", "1", 1);
    assert_eq!(
        publisher.publish(Message::event(&event)).await,
        PublishOutcome::Unroutable
    );
    let roles = [doorstep_messaging::RoleQueues {
        role: "parcels",
        subjects: &["parcel"],
        handles_requests: false,
    }];
    let topology = doorstep_messaging::Topology::for_roles(env.namespace(), &roles);
    let other = Publisher::start(&env.settings, "parcels", topology);
    other.ready(LONG).await?;
    assert_eq!(
        publisher.publish(Message::event(&event)).await,
        PublishOutcome::Confirmed
    );
    Ok(())
}

#[tokio::test]
async fn a_full_queue_rejects() -> Result<()> {
    let env = TestEnv::new("full").await?;
    let json = r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-max-length":1,"x-overflow":"reject-publish"}}"#;
    env.put_queue("small", json).await?;
    let publisher = env.publisher("full").await?;
    let one = |number: u64| {
        let id = format!("small#{number}");
        Message::to_queue(QueueName::new("small"), &id, Vec::new(), Bytes::new())
    };
    // The queue accepts a few more than its bound before it rejects.
    let mut number = 0;
    until("the queue is full", async || {
        number += 1;
        Ok(publisher.publish(one(number)).await == PublishOutcome::Rejected)
    })
    .await?;
    let event = event("1", 1);
    let outcomes = publisher
        .publish_all(vec![one(1), Message::event(&event), one(2)])
        .await;
    assert_eq!(
        outcomes,
        [
            PublishOutcome::Rejected,
            PublishOutcome::Confirmed,
            PublishOutcome::Rejected
        ]
    );
    Ok(())
}

#[tokio::test]
async fn messages_beyond_the_window_keep_their_order() -> Result<()> {
    let mut env = TestEnv::new("window").await?;
    env.settings.publish_window = 7;
    let publisher = env.publisher("window").await?;
    let (first, second) = tokio::join!(
        publisher.publish_all((1..=500).map(|n| Message::event(&event("a", n))).collect()),
        publisher.publish_all((1..=500).map(|n| Message::event(&event("b", n))).collect()),
    );
    all_confirmed(&first);
    all_confirmed(&second);
    let subscription = env.subscription("window").await?;
    let taken = take(&subscription, 1000, async |batch| {
        subscription.ack_up_to(batch.channel, batch.last_tag).await;
    })
    .await?;
    for key in ["order/a", "order/b"] {
        let sequences: Vec<_> = taken
            .iter()
            .filter_map(|d| match &d.decoded {
                doorstep_event::headers::Decoded::Valid(e) if e.subject.as_str() == key => {
                    e.sequence
                }
                _ => None,
            })
            .map(|s| s.get())
            .collect();
        assert_eq!(sequences, (1..=500).collect::<Vec<_>>(), "{key}");
    }
    Ok(())
}

/// Limits what a process keeps and publishes again if the broker does not confirm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_limits_messages_in_flight() -> Result<()> {
    const WINDOW: usize = 7;
    let env = TestEnv::new("bounded").await?;
    let proxy = env.proxy().await;
    let mut settings = env.settings_by(&proxy)?;
    settings.publish_window = WINDOW;
    settings.confirm_timeout = LONG;
    settings.heartbeat = LONG;
    let publisher = publisher(&settings, "bounded").await?;
    // From here on nothing is confirmed.
    proxy.at(Point::Confirm, WireFault::Stall);
    let messages = (1..=500).map(|n| Message::event(&event("1", n))).collect();
    let call = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish_all(messages).await }
    });
    let meter = publisher.stats();
    until("some are under way", async || {
        Ok(meter.read().unconfirmed > 0)
    })
    .await?;
    let mut triggered = proxy.triggered();
    within(LONG, "a confirm", triggered.wait_for(|times| *times == 1)).await??;
    assert_eq!(meter.read().unconfirmed, WINDOW as u64);
    proxy.cut();
    call.abort();
    let inspector = Inspector::connect(&env.settings, "bounded").await?;
    let depth = inspector.queue_depth(&env.queue()).await?;
    assert!(depth.ready <= WINDOW as u64, "{depth:?}");
    Ok(())
}

#[tokio::test]
async fn closing_waits_for_messages_in_flight() -> Result<()> {
    let env = TestEnv::new("close").await?;
    let publisher = env.publisher("close").await?;
    let last_words = publisher.clone();
    let messages: Vec<_> = (1..=5000).map(|n| Message::event(&event("1", n))).collect();
    let mut under_way = std::pin::pin!(publisher.publish_all(messages));
    // Begun, and then closed in the middle.
    begin(under_way.as_mut()).await;
    let state = last_words.status();
    let (outcomes, ()) = tokio::join!(under_way, last_words.clone().close(LONG));
    all_confirmed(&outcomes);
    assert_eq!(state.borrow().phase, ConnectionPhase::Closed);
    assert_eq!(
        last_words.publish(Message::event(&event("2", 1))).await,
        PublishOutcome::Disconnected
    );
    let inspector = Inspector::connect(&env.settings, "close").await?;
    assert_eq!(inspector.queue_depth(&env.queue()).await?.ready, 5000);
    Ok(())
}

#[tokio::test]
async fn an_abandoned_call_still_publishes() -> Result<()> {
    let env = TestEnv::new("abandoned").await?;
    let publisher = env.publisher("abandoned").await?;
    {
        let messages: Vec<_> = (1..=100).map(|n| Message::event(&event("1", n))).collect();
        let mut call = std::pin::pin!(publisher.publish_all(messages));
        begin(call.as_mut()).await;
    }
    publish(&publisher, [event("2", 1)]).await;
    let inspector = Inspector::connect(&env.settings, "abandoned").await?;
    until("all arrived", async || {
        Ok(inspector.queue_depth(&env.queue()).await?.ready == 101)
    })
    .await
}

/// Any bound queue keeps the messages, even one that stores them on disk only if they are persistent.
#[tokio::test]
async fn published_messages_are_persistent() -> Result<()> {
    const PERSISTENT: u8 = 2;
    let env = TestEnv::new("persistent").await?;
    let publisher = env.publisher("persistent").await?;
    let wire = TestChannel::open(&env.amqp_url()).await;
    wire.declare("kept", FieldTable::default()).await;
    let exchange = env.namespace().events_exchange();
    wire.bind("kept", &exchange, "#").await;
    let queue = QueueName::new("kept");
    let copy = Message::to_queue(queue, "copy", Vec::new(), Bytes::from_static(b"copy"));
    let expiring = copy.clone().expiring(LONG);
    let messages = vec![Message::event(&event("1", 1)), copy, expiring];
    all_confirmed(&publisher.publish_all(messages).await);
    let user = env.settings.addresses[0].user();
    for taken in wire.take_many("kept", 3, LONG).await {
        let mode = *taken.properties.delivery_mode();
        assert_eq!(mode, Some(PERSISTENT), "{:?}", taken.properties);
        // A copy contains a message of another program.
        let id = taken.properties.user_id().as_ref().map(|id| id.as_str());
        let wanted = (taken.body != b"copy").then_some(user);
        assert_eq!(id, wanted, "{:?}", taken.properties);
    }
    Ok(())
}

#[tokio::test]
async fn a_raw_message_gets_its_outcome() -> Result<()> {
    let env = TestEnv::new("raw").await?;
    env.publisher("topology").await?;
    let mut raw = UncheckedPublisher::connect(&env.settings, "raw").await?;
    let mut message = RawMessage {
        exchange: env.namespace().events_exchange(),
        routing_key: "order.placed.v1".to_owned(),
        headers: vec![("n".to_owned(), RawValue::Number(-1))],
        body: Bytes::from_static(&[0xff, 0x00]),
        ..RawMessage::default()
    };
    assert_eq!(
        raw.publish(message.clone()).await,
        PublishOutcome::Confirmed
    );
    message.routing_key = "parcel.placed.v1".to_owned();
    assert_eq!(raw.publish(message).await, PublishOutcome::Unroutable);
    raw.close(Duration::from_secs(5)).await;
    Ok(())
}

#[tokio::test]
async fn a_closed_channel_is_counted_and_redeclared() -> Result<()> {
    let mut env = TestEnv::new("channel").await?;
    // A retry waits for a new connection with the complete topology declared on it.
    env.settings.outage_timeout = LONG;
    let publisher = env.publisher("channel").await?;
    publish(&publisher, [event("1", 1)]).await;
    let counts = publisher.stats().read();
    assert_eq!((counts.confirmed, counts.channels_closed), (1, 0));
    env.manage(|broker, vhost| {
        let path = format!("/api/exchanges/{}/test.events", percent_encoded(vhost));
        broker.management()?.delete(&path)
    })
    .await?;
    // The broker closes the publishing channel for a missing exchange, and keeps the connection.
    let outcome = publisher.publish(Message::event(&event("1", 2))).await;
    assert_eq!(outcome, PublishOutcome::Disconnected);
    assert_eq!(publisher.stats().read().channels_closed, 1);
    let loss = publisher.status().borrow().last_loss.clone();
    let loss = loss.map_or_else(String::new, |loss| loss.to_string());
    assert!(loss.contains("test.events"), "{loss:?}");
    publish(&publisher, [event("1", 2)]).await;
    assert_eq!(publisher.status().borrow().connections, 2);
    let outcome = publisher.publish(Message::event(&kind_of_event("parcel", "1", 1)));
    assert_eq!(outcome.await, PublishOutcome::Unroutable);
    assert_eq!(publisher.stats().read().returned, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_costs_only_a_channel() -> Result<()> {
    let options = NodeOptions::named("small-messages").setting("max_message_size = 100000");
    let node = block_in_place(|| PrivateNode::start(options))?;
    let mut settings = settings(&node.amqp_url())?;
    settings.outage_timeout = LONG;
    let publisher = publisher(&settings, "too large").await?;
    let queue = settings.namespace.role_queue(ROLE.role, 0);
    let message = |id: &str, bytes: usize| {
        Message::to_queue(queue.clone(), id, Vec::new(), vec![b'x'; bytes].into())
    };
    let mixed = vec![message("1", 10), message("2", 200_000), message("3", 10)];
    // Later messages cannot be told apart from the faulty one.
    let outcomes = publisher.publish_all(mixed).await;
    assert!(
        !outcomes.contains(&PublishOutcome::Unpublishable),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], PublishOutcome::Disconnected, "{outcomes:?}");
    for _ in 0..3 {
        let alone = publisher.publish(message("2", 200_000)).await;
        assert_eq!(alone, PublishOutcome::Unpublishable);
        assert_eq!(
            publisher.publish(message("3", 10)).await,
            PublishOutcome::Confirmed
        );
    }
    let state = publisher.status().borrow().clone();
    assert_eq!(state.connections, 1, "{state:?}");
    let words = state.last_rejection.unwrap_or_default();
    assert!(words.contains("PRECONDITION_FAILED"), "{words}");
    let counts = publisher.stats().read();
    assert_eq!((counts.rejected, counts.channels_closed), (3, 4));
    publisher.close(LONG).await;
    Ok(())
}
