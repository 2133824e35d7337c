//! Deliveries come in order, decoded, and are settled on their own channel or not at all.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use doorstep_broker::percent_encoded;
use doorstep_event::headers::{Decoded, HEADER_ID, HEADER_TYPE, write};
use doorstep_messaging::{
    AckOutcome, Inspector, RawMessage, RawValue, Subscription, UncheckedPublisher,
};

use crate::support::{LONG, World, consume, event, publish, take, until, within};

/// A header of a raw message.
type Header = (String, RawValue);

async fn ready(world: &World) -> Result<u64> {
    let inspector = Inspector::connect(&world.settings, "ready").await?;
    let depth = inspector.queue_depth(&world.queue()).await?;
    inspector.close(LONG).await;
    Ok(depth.ready)
}

#[tokio::test]
async fn an_event_is_read_as_it_was_published() -> Result<()> {
    let world = World::new("read").await?;
    let publisher = world.publisher("read").await?;
    let mut plain = event("2", 1);
    (plain.time, plain.sequence, plain.traceparent) = (None, None, None);
    let sent = [event("1", 1), event("1", 2), plain];
    publish(&publisher, sent.clone()).await;
    let subscription = world.subscription("read").await?;
    let taken = take(&subscription, 3, async |_| {}).await?;
    for (delivery, event) in taken.iter().zip(sent) {
        assert_eq!(delivery.body(), &event.data);
        assert_eq!(delivery.read, Decoded::Valid(event));
        assert!(!delivery.redelivered);
        assert_eq!(delivery.headers_json, None);
    }
    let tags: Vec<_> = taken.iter().map(|d| d.tag).collect();
    assert_eq!(tags, [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn what_is_settled_before_closing_never_comes_again() -> Result<()> {
    let world = World::new("settle").await?;
    let publisher = world.publisher("settle").await?;
    publish(&publisher, (1..=3000).map(|n| event("1", n))).await;
    let subscription = world.subscription("settle").await?;
    take(&subscription, 2000, async |batch| {
        let settled = subscription.ack_up_to(batch.channel, batch.last_tag).await;
        assert_eq!(settled, AckOutcome::Acked);
    })
    .await?;
    within(LONG, "closing", subscription.close(LONG)).await?;
    assert!(subscription.next_batch(1, 1).await.is_none());
    until("the rest is back in the queue", async || {
        Ok(ready(&world).await? == 1000)
    })
    .await
}

#[tokio::test]
async fn a_subscription_knows_whether_somebody_else_worked_its_queue_when_it_came() -> Result<()> {
    let world = World::new("beside").await?;
    let first = world.subscription("first").await?;
    assert!(!first.state().borrow().shares_queue);
    let second = world.subscription("second").await?;
    assert!(second.state().borrow().shares_queue);
    first.close(LONG).await;
    second.close(LONG).await;
    // The broker may need a moment to see that they are gone.
    until("one comes that is alone", async || {
        let next = world.subscription("next").await?;
        let alone = !next.state().borrow().shares_queue;
        next.close(LONG).await;
        Ok(alone)
    })
    .await
}

#[tokio::test]
async fn what_is_not_settled_comes_again_marked_and_in_order() -> Result<()> {
    let world = World::new("again").await?;
    let publisher = world.publisher("again").await?;
    publish(&publisher, (1..=10).map(|n| event("1", n))).await;
    let first = world.subscription("again").await?;
    let mut channel = None;
    take(&first, 10, async |batch| channel = Some(batch.channel)).await?;
    let channel = channel.expect("a batch came");
    assert_eq!(first.unacked(), 10);
    assert_eq!(first.ack_up_to(channel, 4).await, AckOutcome::Acked);
    assert_eq!(first.unacked(), 6);
    first.close(LONG).await;
    let second = world.subscription("again").await?;
    let again = take(&second, 6, async |_| {}).await?;
    let sequences: Vec<_> = again
        .iter()
        .map(|d| match &d.read {
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
async fn no_more_is_unsettled_than_the_prefetch_and_the_connection_stays() -> Result<()> {
    let world = World::new("prefetch").await?;
    let publisher = world.publisher("prefetch").await?;
    publish(&publisher, (1..=500).map(|n| event("1", n))).await;
    let queues = vec![consume(world.queue(), 20)];
    let mut settings = world.settings.clone();
    settings.heartbeat = Duration::from_secs(3);
    let subscription = Subscription::start(&settings, "prefetch", world.topology(), queues);
    // Deliveries may come a moment before the subscription calls itself connected.
    subscription.ready(LONG).await?;
    until("the prefetch is full", async || {
        Ok(subscription.unacked() == 20)
    })
    .await?;
    // Longer than a peer that shows no sign of life would be kept: nobody takes anything, and the heart beats.
    let mut state = subscription.state();
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
async fn a_tag_that_was_never_delivered_costs_the_channel_but_not_the_subscription() -> Result<()> {
    let world = World::new("wrong-tag").await?;
    let publisher = world.publisher("wrong tag").await?;
    publish(&publisher, [event("1", 1)]).await;
    let subscription = world.subscription("wrong tag").await?;
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
async fn a_settlement_never_reaches_a_rebuilt_channel() -> Result<()> {
    let world = World::new("rebuilt").await?;
    let publisher = world.publisher("rebuilt").await?;
    publish(&publisher, (1..=5).map(|n| event("1", n))).await;
    let subscription = world.subscription("rebuilt subscription").await?;
    let mut old = None;
    take(&subscription, 5, async |batch| {
        old = Some((batch.channel, batch.last_tag));
    })
    .await?;
    let (channel, last_tag) = old.expect("a batch came");
    close_connections(&world, "rebuilt subscription").await?;
    // The new channel has delivered as many, so the old tag would be one of its own.
    let mut state = subscription.state();
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
async fn a_queue_that_is_deleted_while_consuming_is_made_again_and_reported() -> Result<()> {
    let world = World::new("deleted").await?;
    let publisher = world.publisher("deleted").await?;
    let subscription = world.subscription("deleted").await?;
    assert_eq!(lost(&subscription, &world), Some(1), "new at the start");
    world.delete_queue(&world.queue()).await?;
    let mut state = subscription.state();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!(lost(&subscription, &world), Some(2));
    assert_eq!(subscription.meter().read().consumers_cancelled, 1);
    publish(&publisher, [event("1", 1)]).await;
    take(&subscription, 1, async |_| {}).await?;
    Ok(())
}

#[tokio::test]
async fn a_queue_that_somebody_else_made_again_is_reported_and_nothing_else_is() -> Result<()> {
    let world = World::new("else").await?;
    world.publisher("else").await?;
    let first = world.subscription("else one").await?;
    assert_eq!(lost(&first, &world), Some(1));
    first.close(LONG).await;

    // As it was, consumed from by another process.
    let second = world.subscription("else two").await?;
    assert_eq!(lost(&second, &world), None);
    close_connections(&world, "else two").await?;
    let mut state = second.state();
    within(LONG, "coming back", state.wait_for(|s| s.connections == 2)).await??;
    assert_eq!(lost(&second, &world), None);
    second.close(LONG).await;

    // Deleted and made again while no role ran.
    world.delete_queue(&world.queue()).await?;
    let other = world.publisher("else again").await?;
    assert!(other.state().borrow().created.contains(&world.queue()));
    let third = world.subscription("else three").await?;
    assert!(third.state().borrow().created.is_empty());
    assert_eq!(lost(&third, &world), Some(1));
    Ok(())
}

/// By which connection, if by any, the queue was found to be another than before.
fn lost(subscription: &Subscription, world: &World) -> Option<u64> {
    let state = subscription.state();
    let state = state.borrow();
    let mut losses = state.possible_loss.iter();
    losses
        .find(|loss| loss.queue == world.queue())
        .map(|loss| loss.connection)
}

#[tokio::test]
async fn several_queues_are_consumed_side_by_side() -> Result<()> {
    let world = World::new("several").await?;
    let net = world.namespace().net_queue("orders");
    let publisher = world.publisher("several").await?;
    let queues = vec![consume(world.queue(), 10), consume(net.clone(), 1)];
    let subscription = Subscription::start(&world.settings, "several", world.topology(), queues);
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
async fn other_libraries_headers_are_read_and_bad_messages_keep_what_can_be_read() -> Result<()> {
    let world = World::new("foreign").await?;
    world.publisher("topology").await?;
    let mut raw = UncheckedPublisher::connect(&world.settings, "foreign").await?;
    let event = event("1", 7);
    let headers = |change: &dyn Fn(&str, String) -> Option<Header>| {
        write(&event)
            .into_iter()
            .filter_map(|(name, value)| change(name, value))
            .collect::<Vec<_>>()
    };
    let keep = |name: &str, value: String| Some((name.to_owned(), RawValue::Text(value)));
    let message = |headers| RawMessage {
        exchange: world.namespace().events_exchange(),
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
    let subscription = world.subscription("foreign").await?;
    let taken = take(&subscription, 5, async |_| {}).await?;
    for (index, delivery) in taken[..3].iter().enumerate() {
        assert_eq!(
            delivery.read,
            Decoded::Valid(event.clone()),
            "message {index}"
        );
    }
    match &taken[3].read {
        Decoded::Invalid(spoiled, defect) => {
            assert_eq!(spoiled.stream(), event.stream());
            assert!(defect.contains("0.3"), "{defect}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(&taken[4].read, Decoded::Undecodable { .. }));
    assert_eq!(taken[4].body(), &event.data);
    let json = taken[4].headers_json.as_deref().unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(json)?;
    assert_eq!(json["routing_key"], "order.placed.v1");
    assert_eq!(json["message_id"], "order/1#7");
    assert_eq!(json["headers"]["when"], 1);
    assert_eq!(json["headers"]["sure"], true);
    Ok(())
}

/// Closes, as an administrator would, the connections whose name is this.
async fn close_connections(world: &World, name: &'static str) -> Result<()> {
    // The management API learns of a connection some seconds after it was made.
    until("the connection is closed", async || {
        let closing = world.manage(move |broker, vhost| {
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
