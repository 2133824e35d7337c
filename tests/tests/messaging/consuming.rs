//! Deliveries arrive decoded and in order, and are acknowledged on their own channel or not at all.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use doorstep_broker::percent_encoded;
use doorstep_event::headers::{Decoded, HEADER_ID, HEADER_TYPE, write};
use doorstep_messaging::{
    AckOutcome, Inspector, RawMessage, RawValue, Subscription, UncheckedPublisher,
};

use crate::support::{LONG, TestEnv, consume, event, publish, take, until, within};

type Header = (String, RawValue);

async fn ready(env: &TestEnv) -> Result<u64> {
    let inspector = Inspector::connect(&env.settings, "ready").await?;
    let depth = inspector.queue_depth(&env.queue()).await?;
    inspector.close(LONG).await;
    Ok(depth.ready)
}

#[tokio::test]
async fn an_event_is_decoded_as_published() -> Result<()> {
    let env = TestEnv::new("read").await?;
    let publisher = env.publisher("read").await?;
    let mut plain = event("2", 1);
    (plain.time, plain.sequence, plain.traceparent) = (None, None, None);
    let sent = [event("1", 1), event("1", 2), plain];
    publish(&publisher, sent.clone()).await;
    let subscription = env.subscription("read").await?;
    let taken = take(&subscription, 3, async |_| {}).await?;
    for (delivery, event) in taken.iter().zip(sent) {
        assert_eq!(delivery.body(), &event.data);
        assert_eq!(delivery.decoded, Decoded::Valid(event));
        assert!(!delivery.redelivered);
        assert_eq!(delivery.headers_json, None);
    }
    let tags: Vec<_> = taken.iter().map(|d| d.tag).collect();
    assert_eq!(tags, [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn deliveries_acked_before_closing_are_not_redelivered() -> Result<()> {
    let env = TestEnv::new("settle").await?;
    let publisher = env.publisher("settle").await?;
    publish(&publisher, (1..=3000).map(|n| event("1", n))).await;
    let subscription = env.subscription("settle").await?;
    take(&subscription, 2000, async |batch| {
        let settled = subscription.ack_up_to(batch.channel, batch.last_tag).await;
        assert_eq!(settled, AckOutcome::Acked);
    })
    .await?;
    within(LONG, "closing", subscription.close(LONG)).await?;
    assert!(subscription.next_batch(1, 1).await.is_none());
    until("the rest is back in the queue", async || {
        Ok(ready(&env).await? == 1000)
    })
    .await
}

#[tokio::test]
async fn a_subscription_knows_if_another_consumer_preceded_it() -> Result<()> {
    let env = TestEnv::new("beside").await?;
    let first = env.subscription("first").await?;
    assert!(!first.status().borrow().shares_queue);
    let second = env.subscription("second").await?;
    assert!(second.status().borrow().shares_queue);
    first.close(LONG).await;
    second.close(LONG).await;
    // The broker may need a moment to see that they are gone.
    until("a subscription starts alone", async || {
        let next = env.subscription("next").await?;
        let alone = !next.status().borrow().shares_queue;
        next.close(LONG).await;
        Ok(alone)
    })
    .await
}

#[tokio::test]
async fn unacked_deliveries_are_redelivered_in_order() -> Result<()> {
    let env = TestEnv::new("again").await?;
    let publisher = env.publisher("again").await?;
    publish(&publisher, (1..=10).map(|n| event("1", n))).await;
    let first = env.subscription("again").await?;
    let mut channel = None;
    take(&first, 10, async |batch| channel = Some(batch.channel)).await?;
    let channel = channel.expect("a batch came");
    assert_eq!(first.unacked(), 10);
    assert_eq!(first.ack_up_to(channel, 4).await, AckOutcome::Acked);
    assert_eq!(first.unacked(), 6);
    first.close(LONG).await;
    let second = env.subscription("again").await?;
    let again = take(&second, 6, async |_| {}).await?;
    let sequences: Vec<_> = again
        .iter()
        .map(|d| match &d.decoded {
            Decoded::Valid(event) => event.sequence.map(|s| s.get()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sequences, (5..=10).map(Some).collect::<Vec<_>>());
    for delivery in again {
        assert!(delivery.redelivered);
        assert_eq!(delivery.delivery_count, Some(1));
    }
    Ok(())
}

#[tokio::test]
async fn unacked_deliveries_stay_within_the_prefetch() -> Result<()> {
    let env = TestEnv::new("prefetch").await?;
    let publisher = env.publisher("prefetch").await?;
    publish(&publisher, (1..=500).map(|n| event("1", n))).await;
    let queues = vec![consume(env.queue(), 20)];
    let mut settings = env.settings.clone();
    settings.heartbeat = Duration::from_secs(3);
    let subscription = Subscription::start(&settings, "prefetch", env.topology(), queues, None);
    // Deliveries may arrive a moment before the subscription reports that it is connected.
    subscription.ready(LONG).await?;
    until("the prefetch is full", async || {
        Ok(subscription.unacked() == 20)
    })
    .await?;
    // Longer than the timeout of a peer without heartbeats: no delivery is taken, and heartbeats continue.
    let mut state = subscription.status();
    state.mark_unchanged();
    let changed = tokio::time::timeout(settings.heartbeat * 3, state.changed()).await;
    assert!(changed.is_err(), "{:?}", state.borrow());
    let batch = subscription
        .next_batch(1000, usize::MAX)
        .await
        .expect("deliveries wait");
    assert_eq!(batch.deliveries.len(), 20);
    assert_eq!(subscription.unacked(), 20);
    assert_eq!(
        subscription.ack_up_to(batch.channel, batch.last_tag).await,
        AckOutcome::Acked
    );
    take(&subscription, 480, async |batch| {
        assert!(subscription.unacked() <= 20);
        subscription.ack_up_to(batch.channel, batch.last_tag).await;
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_tag_costs_only_the_channel() -> Result<()> {
    let env = TestEnv::new("wrong-tag").await?;
    let publisher = env.publisher("wrong tag").await?;
    publish(&publisher, [event("1", 1)]).await;
    let subscription = env.subscription("wrong tag").await?;
    let batch = subscription.next_batch(1, 1).await.expect("one is there");
    assert_eq!(
        subscription.ack_up_to(batch.channel, 99).await,
        AckOutcome::ChannelGone
    );
    let again = take(&subscription, 1, async |again| {
        assert_ne!(again.channel, batch.channel);
        let settled = subscription.ack_up_to(again.channel, again.last_tag).await;
        assert_eq!(settled, AckOutcome::Acked);
    })
    .await?;
    assert!(again[0].redelivered);
    Ok(())
}

#[tokio::test]
async fn an_ack_never_reaches_a_new_channel() -> Result<()> {
    let env = TestEnv::new("rebuilt").await?;
    let publisher = env.publisher("rebuilt").await?;
    publish(&publisher, (1..=5).map(|n| event("1", n))).await;
    let subscription = env.subscription("rebuilt subscription").await?;
    let mut old = None;
    take(&subscription, 5, async |batch| {
        old = Some((batch.channel, batch.last_tag));
    })
    .await?;
    let (channel, last_tag) = old.expect("a batch came");
    close_connections(&env, "rebuilt subscription").await?;
    // The new channel has delivered as many, so it has a delivery with the old tag.
    let mut state = subscription.status();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    until("delivered again", async || Ok(subscription.unacked() == 5)).await?;
    assert_eq!(
        subscription.ack_up_to(channel, last_tag).await,
        AckOutcome::ChannelGone
    );
    assert_eq!(subscription.unacked(), 5);
    let again = take(&subscription, 5, async |batch| {
        assert_ne!(batch.channel, channel);
    })
    .await?;
    assert!(again.iter().all(|d| d.redelivered));
    Ok(())
}

#[tokio::test]
async fn a_queue_deleted_while_consuming_is_redeclared() -> Result<()> {
    let env = TestEnv::new("deleted").await?;
    let publisher = env.publisher("deleted").await?;
    let subscription = env.subscription("deleted").await?;
    assert_eq!(lost(&subscription, &env), Some(1), "new at the start");
    env.delete_queue(&env.queue()).await?;
    let mut state = subscription.status();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!(lost(&subscription, &env), Some(2));
    assert_eq!(subscription.stats().read().consumers_cancelled, 1);
    publish(&publisher, [event("1", 1)]).await;
    take(&subscription, 1, async |_| {}).await?;
    Ok(())
}

#[tokio::test]
async fn only_a_replaced_queue_is_reported() -> Result<()> {
    let env = TestEnv::new("else").await?;
    env.publisher("else").await?;
    let first = env.subscription("else one").await?;
    assert_eq!(lost(&first, &env), Some(1));
    first.close(LONG).await;

    // Unchanged, and used by another process.
    let second = env.subscription("else two").await?;
    assert_eq!(lost(&second, &env), None);
    close_connections(&env, "else two").await?;
    let mut state = second.status();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!(lost(&second, &env), None);
    second.close(LONG).await;

    // Deleted and declared again while no role was running.
    env.delete_queue(&env.queue()).await?;
    let other = env.publisher("else again").await?;
    assert!(other.status().borrow().created.contains(&env.queue()));
    let third = env.subscription("else three").await?;
    assert!(third.status().borrow().created.is_empty());
    assert_eq!(lost(&third, &env), Some(1));
    Ok(())
}

/// Returns the connection that found the queue replaced, if any.
fn lost(subscription: &Subscription, env: &TestEnv) -> Option<u64> {
    let state = subscription.status();
    let state = state.borrow();
    let mut losses = state.possible_loss.iter();
    losses
        .find(|loss| loss.queue == env.queue())
        .map(|loss| loss.connection)
}

#[tokio::test]
async fn several_queues_are_consumed_concurrently() -> Result<()> {
    let env = TestEnv::new("several").await?;
    let net = env.namespace().quarantine_queue("orders");
    let publisher = env.publisher("several").await?;
    let queues = vec![consume(env.queue(), 10), consume(net.clone(), 1)];
    let subscription = Subscription::start(&env.settings, "several", env.topology(), queues, None);
    publish(&publisher, (1..=20).map(|n| event("1", n))).await;
    for number in 0..3 {
        let body = Bytes::from_static(b"x");
        let id = format!("net-{number}");
        let copy = doorstep_messaging::Message::to_queue(net.clone(), &id, Vec::new(), body);
        assert_eq!(
            publisher.publish(copy).await,
            doorstep_messaging::PublishOutcome::Confirmed
        );
    }
    let mut seen = BTreeSet::new();
    take(&subscription, 23, async |batch| {
        if batch.queue == net {
            assert_eq!(batch.deliveries.len(), 1);
        }
        seen.insert((batch.queue.to_string(), batch.channel));
        subscription.ack_up_to(batch.channel, batch.last_tag).await;
    })
    .await?;
    assert_eq!(seen.len(), 2, "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn headers_of_other_libraries_are_decoded() -> Result<()> {
    let env = TestEnv::new("foreign").await?;
    env.publisher("topology").await?;
    let mut raw = UncheckedPublisher::connect(&env.settings, "foreign").await?;
    let event = event("1", 7);
    let headers = |change: &dyn Fn(&str, String) -> Option<Header>| {
        write(&event)
            .into_iter()
            .filter_map(|(name, value)| change(name, value))
            .collect::<Vec<_>>()
    };
    let keep = |name: &str, value: String| Some((name.to_owned(), RawValue::Text(value)));
    let message = |headers| RawMessage {
        exchange: env.namespace().events_exchange(),
        routing_key: "order.placed.v1".to_owned(),
        message_id: Some(event.id.to_string()),
        kind: Some(event.event_type.to_string()),
        headers,
        body: event.data.clone(),
        ..RawMessage::default()
    };
    let underscores = headers(&|name, value| keep(&name.replace(':', "_"), value));
    let from_properties = headers(&|name, value| match name {
        HEADER_ID | HEADER_TYPE => None,
        _ => keep(name, value),
    });
    let number = headers(&|name, value| match name {
        "cloudEvents:sequence" => Some((name.to_owned(), RawValue::Number(7))),
        _ => keep(name, value),
    });
    let spoiled = headers(&|name, value| match name {
        "cloudEvents:specversion" => keep(name, "0.3".to_owned()),
        _ => keep(name, value),
    });
    let unreadable = vec![
        ("cloudEvents:source".to_owned(), RawValue::Bytes(vec![0xff])),
        ("when".to_owned(), RawValue::Timestamp(1)),
        ("sure".to_owned(), RawValue::Flag(true)),
    ];
    for headers in [underscores, from_properties, number, spoiled, unreadable] {
        let outcome = raw.publish(message(headers)).await;
        assert_eq!(outcome, doorstep_messaging::PublishOutcome::Confirmed);
    }
    let subscription = env.subscription("foreign").await?;
    let taken = take(&subscription, 5, async |_| {}).await?;
    for (index, delivery) in taken[..3].iter().enumerate() {
        assert_eq!(
            delivery.decoded,
            Decoded::Valid(event.clone()),
            "message {index}"
        );
    }
    match &taken[3].decoded {
        Decoded::Invalid(spoiled, defect) => {
            assert_eq!(spoiled.stream(), event.stream());
            assert!(defect.contains("0.3"), "{defect}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(&taken[4].decoded, Decoded::Undecodable { .. }));
    assert_eq!(taken[4].body(), &event.data);
    let json = taken[4].headers_json.as_deref().unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(json)?;
    assert_eq!(json["routing_key"], "order.placed.v1");
    assert_eq!(json["message_id"], "order/1#7");
    assert_eq!(json["headers"]["when"], 1);
    assert_eq!(json["headers"]["sure"], true);
    Ok(())
}

/// Closes the connections of this name, as an administrator would.
async fn close_connections(env: &TestEnv, name: &'static str) -> Result<()> {
    // The management API learns of a connection some seconds after it was opened.
    until("the connection is closed", async || {
        let closing = env.manage(move |broker, vhost| {
            let management = broker.management()?;
            let path = format!("/api/vhosts/{}/connections", percent_encoded(vhost));
            let connections: serde_json::Value = serde_json::from_str(&management.get(&path)?)?;
            let mut closed = false;
            for connection in connections.as_array().into_iter().flatten() {
                if connection["client_properties"]["connection_name"] == name
                    && let Some(id) = connection["name"].as_str()
                {
                    management.delete(&format!("/api/connections/{}", percent_encoded(id)))?;
                    closed = true;
                }
            }
            Ok(closed)
        });
        closing.await
    })
    .await
}
