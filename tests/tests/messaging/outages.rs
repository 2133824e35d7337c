//! A broker that is killed, stopped, frozen or short of memory: nothing hangs, no confirmed message is lost, and all
//! clients recover.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use doorstep_event::headers::Decoded;
use doorstep_messaging::{AckOutcome, ConnectionPhase, Message, PublishOutcome};

use crate::support::{
    LONG, event, on_node, private_node, publish, publisher, settings, subscription, take, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_messages_survive_a_kill() -> Result<()> {
    let node = private_node("messaging-kill").await?;
    let settings = settings(&node.amqp_url())?;
    let publisher = publisher(&settings, "kill publish").await?;
    let subscription = subscription(&settings, "kill consume").await?;
    let (node, ()) = on_node(node, |node| node.sync_declarations()).await?;

    // Killed while publishing, and while deliveries are unacknowledged.
    let mut node = Some(node);
    let mut killing = None;
    let mut confirmed = BTreeSet::new();
    let mut sequence = 0;
    let cut = loop {
        if confirmed.len() >= 1000
            && let Some(node) = node.take()
        {
            killing = Some(tokio::spawn(on_node(node, |node| node.kill())));
        }
        let numbers: Vec<u64> = (sequence + 1..=sequence + 200).collect();
        sequence += 200;
        let messages = numbers.iter().map(|n| Message::event(&event("1", *n)));
        let outcomes = within(
            LONG,
            "publishing",
            publisher.publish_all(messages.collect()),
        )
        .await?;
        confirmed.extend(
            numbers
                .iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| **outcome == PublishOutcome::Confirmed)
                .map(|(number, _)| *number),
        );
        if let Some(other) = outcomes.iter().find(|o| **o != PublishOutcome::Confirmed) {
            break *other;
        }
    };
    assert_eq!(cut, PublishOutcome::Disconnected);
    let killing = killing.expect("it was killed");
    let (node, ()) = killing.await??;

    // During the outage a publish resolves within the timeout rather than hanging.
    let publishing = publisher.publish(Message::event(&event("2", 1)));
    let outcome = within(LONG, "the outcome", publishing).await?;
    assert_eq!(outcome, PublishOutcome::Disconnected);
    assert_eq!(
        publisher.status().borrow().phase,
        ConnectionPhase::Connecting
    );

    let (_node, ()) = on_node(node, |node| node.start_again()).await?;
    let mut state = publisher.status();
    within(LONG, "the publisher", state.wait_for(|s| s.is_connected())).await??;
    assert!(state.borrow().created.len() <= 2);
    publish(&publisher, [event("3", 1)]).await;

    let mut seen = BTreeSet::new();
    within(LONG, "reading everything", async {
        while let Some(batch) = subscription.next_batch(1000, usize::MAX).await {
            let mut last = false;
            for delivery in &batch.deliveries {
                if let Decoded::Valid(event) = &delivery.decoded {
                    match event.subject.as_str() {
                        "order/1" => seen.extend(event.sequence.map(|s| s.get())),
                        "order/3" => last = true,
                        _ => {}
                    }
                }
            }
            subscription.ack_up_to(batch.channel, batch.last_tag).await;
            if last {
                break;
            }
        }
    })
    .await?;
    let lost: Vec<_> = confirmed.difference(&seen).collect();
    assert!(
        lost.is_empty(),
        "{} confirmed and lost: {lost:?}",
        lost.len()
    );
    assert!(!confirmed.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_heartbeat_reveals_a_frozen_broker() -> Result<()> {
    let node = private_node("messaging-freeze").await?;
    let mut settings = settings(&node.amqp_url())?;
    settings.heartbeat = Duration::from_secs(2);
    settings.ack_write_timeout = Duration::from_secs(2);
    // No other timeout may notice it first.
    settings.confirm_timeout = LONG * 10;
    let publisher = publisher(&settings, "freeze publish").await?;
    let subscription = subscription(&settings, "freeze consume").await?;
    publish(&publisher, [event("1", 1)]).await;
    let batch = subscription.next_batch(1, 1).await.expect("one is there");
    let (node, ()) = on_node(node, |node| node.freeze()).await?;

    let publishing = publisher.publish(Message::event(&event("1", 2)));
    let outcome = within(LONG, "noticing", publishing).await?;
    assert_eq!(outcome, PublishOutcome::Disconnected);
    // An acknowledgement resolves in any case.
    let settled = subscription.ack_up_to(batch.channel, batch.last_tag);
    within(LONG, "settling", settled).await?;
    let mut state = subscription.status();
    within(LONG, "noticing", state.wait_for(|s| !s.is_connected())).await??;

    let (_node, ()) = on_node(node, |node| node.thaw()).await?;
    within(LONG, "coming back", state.wait_for(|s| s.is_connected())).await??;
    let mut state = publisher.status();
    within(LONG, "coming back", state.wait_for(|s| s.is_connected())).await??;
    publish(&publisher, [event("1", 3)]).await;
    let closing = async {
        publisher.close(LONG).await;
        subscription.close(LONG).await;
    };
    within(LONG, "closing", closing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_frozen_broker_respects_the_timeout() -> Result<()> {
    let node = private_node("messaging-close").await?;
    let mut settings = settings(&node.amqp_url())?;
    // No other timeout may end it first.
    settings.heartbeat = LONG * 10;
    settings.confirm_timeout = LONG * 10;
    settings.ack_write_timeout = LONG * 10;
    let publisher = publisher(&settings, "close publish").await?;
    let subscription = subscription(&settings, "close consume").await?;
    let (node, ()) = on_node(node, |node| node.freeze()).await?;
    let waiting = publisher.clone();
    let call = tokio::spawn(async move { waiting.publish(Message::event(&event("1", 1))).await });
    let grace = Duration::from_secs(2);
    let closing = async { tokio::join!(publisher.close(grace), subscription.close(grace)) };
    within(LONG, "closing", closing).await?;
    assert_eq!(call.await?, PublishOutcome::Disconnected);
    let (_node, ()) = on_node(node, |node| node.thaw()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_blocks_only_publishing() -> Result<()> {
    let node = private_node("messaging-blocked").await?;
    let mut settings = settings(&node.amqp_url())?;
    settings.outage_timeout = Duration::from_secs(10);
    let publisher = publisher(&settings, "blocked publish").await?;
    let subscription = subscription(&settings, "blocked consume").await?;
    publish(&publisher, (1..=3).map(|n| event("1", n))).await;
    let (node, ()) = on_node(node, |node| node.block_publishers()).await?;

    // The broker reports the alarm when it sees the next publish.
    let publishing = publisher.publish(Message::event(&event("1", 4)));
    let outcome = within(LONG, "the outcome", publishing).await?;
    assert_eq!(outcome, PublishOutcome::Blocked);
    assert!(matches!(
        publisher.status().borrow().phase,
        ConnectionPhase::Blocked(_)
    ));
    // Later publishes do not wait as long as that one did, or a hundred of them would take a quarter of an hour.
    let at_once = async {
        for n in 5..105 {
            let outcome = publisher.publish(Message::event(&event("1", n))).await;
            assert_eq!(outcome, PublishOutcome::Blocked);
        }
    };
    within(LONG, "a hundred outcomes", at_once).await?;
    take(&subscription, 3, async |batch| {
        let settled = subscription.ack_up_to(batch.channel, batch.last_tag).await;
        assert_eq!(settled, AckOutcome::Acked);
    })
    .await?;

    let (node, ()) = on_node(node, |node| node.unblock_publishers()).await?;
    let mut state = publisher.status();
    within(LONG, "unblocking", state.wait_for(|s| s.is_connected())).await??;
    publish(&publisher, [event("1", 6)]).await;

    // Blocked again, and closed all the same.
    let (_node, ()) = on_node(node, |node| node.block_publishers()).await?;
    let waiting = publisher.clone();
    let call = tokio::spawn(async move { waiting.publish(Message::event(&event("1", 7))).await });
    within(LONG, "blocking", state.wait_for(|s| !s.is_connected())).await??;
    let closing = publisher.close(Duration::from_secs(1));
    within(LONG, "closing", closing).await?;
    assert_ne!(
        within(LONG, "the call", call).await??,
        PublishOutcome::Confirmed
    );
    Ok(())
}
