//! Tests the publisher with a fake broker that provokes rare interleavings of a real one.
//!
//! Above all with returned messages: lapin attaches each to the next confirm that completes, and completes the messages of one ack in no
//! particular order, on its own thread. A real broker seldom mixes them up. The fake broker does so constantly: it confirms like RabbitMQ,
//! but with large acks and as many returns in them as possible.

mod broker;

use std::time::Duration;

use bytes::Bytes;
use doorstep_messaging::{BrokerSettings, Message, PublishOutcome, Publisher, QueueName, Topology};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{net::TcpListener, time::timeout};

use broker::{FakeBroker, UNBOUND_QUEUE};

const WINDOW: usize = 1000;
const ROUNDS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_right_for_any_confirm_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    let broker = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        FakeBroker::new(socket, WINDOW).run().await;
    });
    let mut settings = BrokerSettings::new(&url, "test").unwrap();
    settings.publish_window = WINDOW;
    let publisher = Publisher::start(&settings, "returned messages", Topology::none());
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..ROUNDS {
        let mut messages = Vec::new();
        let mut expected = Vec::new();
        for number in 0..WINDOW {
            let (queue, outcome) = if rng.random_ratio(1, 3) {
                (UNBOUND_QUEUE, PublishOutcome::Unroutable)
            } else {
                ("somewhere", PublishOutcome::Confirmed)
            };
            messages.push(Message::to_queue(
                QueueName::new(queue),
                &format!("{round}-{number}"),
                Vec::new(),
                Bytes::from_static(b"body"),
            ));
            expected.push(outcome);
        }
        let outcomes = timeout(Duration::from_secs(60), publisher.publish_all(messages))
            .await
            .unwrap();
        let mismatches: Vec<_> = (0..WINDOW)
            .filter(|i| outcomes[*i] != expected[*i])
            .map(|i| (i, outcomes[i], expected[i]))
            .collect();
        assert!(
            mismatches.is_empty(),
            "round {round}: {} mismatches, such as {:?}",
            mismatches.len(),
            mismatches[0]
        );
    }
    publisher.close(Duration::from_secs(5)).await;
    timeout(Duration::from_secs(60), broker)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn an_unconfirmed_message_causes_timeout_and_reconnect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    let broker = tokio::spawn(async move {
        for window in [usize::MAX, 1] {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(FakeBroker::new(socket, window).run());
        }
    });
    let mut settings = BrokerSettings::new(&url, "test").unwrap();
    // Long enough for the confirmed message, even on a stalled machine.
    settings.confirm_timeout = Duration::from_secs(2);
    let publisher = Publisher::start(&settings, "never confirmed", Topology::none());
    let message = || {
        let queue = QueueName::new("somewhere");
        Message::to_queue(queue, "1", Vec::new(), Bytes::from_static(b"body"))
    };
    let outcome = timeout(Duration::from_secs(30), publisher.publish(message()));
    assert_eq!(outcome.await.unwrap(), PublishOutcome::TimedOut);
    let mut state = publisher.status();
    let reconnected = state.wait_for(|s| s.connections == 2);
    timeout(Duration::from_secs(30), reconnected)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        publisher.publish(message()).await,
        PublishOutcome::Confirmed
    );
    broker.await.unwrap();
}
