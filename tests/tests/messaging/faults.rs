//! Every fault of a wire at every word of the conversation: what the publisher and the subscription report, and that nothing is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use doorstep_broker::percent_encoded;
use doorstep_event::headers::Decoded;
use doorstep_messaging::{
    Backoff, BrokerSettings, Message, PublishOutcome, Publisher, Subscription,
};
use doorstep_tests::{ChaosProxy, Direction, Point, WireFault};
use futures_util::future::try_join_all;

use crate::support::{LONG, World, consume, event, publish, until, within};

/// How many messages meet a fault.
const COUNT: u64 = 20;

/// What is to be seen of a fault from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing but the time that it takes.
    Nothing,
    /// The connection is lost and made again.
    Reconnect,
}

fn seen(fault: WireFault) -> Seen {
    match fault {
        WireFault::Slow(_) => Seen::Nothing,
        _ => Seen::Reconnect,
    }
}

/// What may become of messages that are on their way when it happens.
fn outcomes(point: Point, fault: WireFault) -> &'static [PublishOutcome] {
    match (point, fault) {
        (_, WireFault::Slow(_)) => &[PublishOutcome::Confirmed],
        // The word itself and others behind it still arrive, until the broker hangs up in turn.
        (Point::Confirm, WireFault::HalfClose(Direction::ToBroker)) => {
            &[PublishOutcome::Confirmed, PublishOutcome::Disconnected]
        }
        // Noticed by the missing heartbeat or the missing confirm, whichever is first.
        (_, WireFault::Stall) => &[PublishOutcome::Disconnected, PublishOutcome::TimedOut],
        _ => &[PublishOutcome::Disconnected],
    }
}

/// Bounds that let each fault be over within seconds.
fn hasty(mut settings: BrokerSettings) -> BrokerSettings {
    settings.heartbeat = Duration::from_secs(4);
    settings.connect_timeout = Duration::from_secs(3);
    settings.settle_timeout = Duration::from_secs(2);
    settings.confirm_timeout = Duration::from_secs(5);
    settings.outage_timeout = LONG;
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    settings.backoff = backoff.expect("these bounds make sense");
    settings
}

/// One publisher on a wire of its own, which fails once it publishes.
async fn publisher_meets(
    world: &World,
    number: usize,
    point: Point,
    fault: WireFault,
) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let proxy = world.proxy().await;
    let settings = hasty(world.settings_by(&proxy)?);
    let publisher = Publisher::start(&settings, &name, world.topology());
    publisher.ready(LONG).await?;
    proxy.at(point, fault);
    let mut left: Vec<_> = (1..=COUNT).collect();
    let send = async |numbers: &[u64]| {
        let order = number.to_string();
        let messages = numbers.iter().map(|n| Message::event(&event(&order, *n)));
        within(LONG, &name, publisher.publish_all(messages.collect())).await
    };
    let reported = send(&left).await?;
    ensure!(*proxy.triggered().borrow() == 1, "{name} did not happen");
    let allowed = outcomes(point, fault);
    ensure!(
        reported.iter().all(|outcome| allowed.contains(outcome)),
        "{name}: {reported:?}"
    );

    let mut state = publisher.state();
    match seen(fault) {
        Seen::Nothing => ensure!(state.borrow().connections == 1, "{name}"),
        Seen::Reconnect => {
            // On a busy machine the next one may be late as well, and be made once more.
            within(LONG, &name, state.wait_for(|s| s.connections >= 2)).await??;
            let loss = state.borrow().last_loss.clone();
            let loss = loss.map_or_else(String::new, |loss| loss.to_string());
            ensure!(loss.contains("broke"), "{name}: {loss:?}");
        }
    }
    let mut reports = reported.iter();
    left.retain(|_| reports.next() != Some(&PublishOutcome::Confirmed));
    let again = send(&left).await?;
    ensure!(
        again
            .iter()
            .all(|outcome| *outcome == PublishOutcome::Confirmed),
        "{name}: {again:?}"
    );
    let counts = publisher.meter().read();
    ensure!(counts.confirmed == COUNT, "{name}: {counts:?}");
    ensure!(
        counts.disconnected + counts.timed_out == left.len() as u64,
        "{name}: {counts:?}"
    );
    // Written down a moment after the last call is answered.
    until("nothing is outstanding", async || {
        let counts = publisher.meter().read();
        Ok((counts.outstanding, counts.oldest_outstanding) == (0, None))
    })
    .await?;
    publisher.close(Duration::from_secs(5)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_tells_of_each_fault_by_type_and_loses_nothing() -> Result<()> {
    let world = World::new("faults").await?;
    let subscription = world.subscription("faults").await?;
    let mut rows = Vec::new();
    for point in [Point::Publish, Point::Confirm] {
        for fault in WireFault::ALL {
            rows.push(publisher_meets(&world, rows.len(), point, fault));
        }
    }
    let count = rows.len();
    try_join_all(rows).await?;
    let everything = (0..count).flat_map(|row| (1..=COUNT).map(move |n| (row.to_string(), n)));
    let mut missing: BTreeSet<_> = everything.collect();
    until("everything has arrived", async || {
        if let Some(batch) = subscription.next_batch(1000, usize::MAX).await {
            for delivery in &batch.deliveries {
                missing.remove(&stream(&delivery.read)?);
            }
            subscription.ack_up_to(batch.channel, batch.last_tag).await;
        }
        Ok(missing.is_empty())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_while_connecting_or_declaring_costs_another_attempt_and_nothing_else() -> Result<()>
{
    let world = World::new("begin").await?;
    world.publisher("topology").await?;
    let meets = async |point: Point, fault: WireFault| {
        let name = format!("{point:?} {fault:?}");
        let proxy = world.proxy().await;
        proxy.at(point, fault);
        let settings = hasty(world.settings_by(&proxy)?);
        let publisher = Publisher::start(&settings, &name, world.topology());
        let outcome = within(
            LONG,
            &name,
            publisher.publish(Message::event(&event("1", 1))),
        )
        .await?;
        ensure!(outcome == PublishOutcome::Confirmed, "{name}: {outcome:?}");
        ensure!(*proxy.triggered().borrow() == 1, "{name} did not happen");
        let attempts = match seen(fault) {
            Seen::Nothing => 1,
            Seen::Reconnect => 2,
        };
        // An attempt may also be given up on because the machine is busy.
        ensure!(proxy.accepted() >= attempts, "{name}: {}", proxy.accepted());
        publisher.close(Duration::from_secs(5)).await;
        anyhow::Ok(())
    };
    let mut rows = Vec::new();
    for point in [Point::OpenOk, Point::DeclareOk] {
        for fault in WireFault::ALL {
            rows.push(meets(point, fault));
        }
    }
    try_join_all(rows).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_wire_with_a_slow_heart_is_noticed_by_the_time_that_a_confirm_takes() -> Result<()>
{
    let world = World::new("late").await?;
    let proxy = world.proxy().await;
    let mut settings = world.settings_by(&proxy)?;
    settings.heartbeat = Duration::from_secs(60);
    settings.confirm_timeout = Duration::from_secs(3);
    let publisher = Publisher::start(&settings, "late", world.topology());
    publisher.ready(LONG).await?;
    proxy.at(Point::Confirm, WireFault::Stall);
    let outcome = publisher.publish(Message::event(&event("1", 1))).await;
    assert_eq!(outcome, PublishOutcome::TimedOut);
    let mut state = publisher.state();
    within(LONG, "coming back", state.wait_for(|s| s.connections >= 2)).await??;
    publish(&publisher, [event("1", 1)]).await;
    assert_eq!(publisher.meter().read().timed_out, 1);
    Ok(())
}

/// What a subscription was given of one stream: how often each event came.
type Given = BTreeMap<u64, u32>;

/// Takes and settles until everything of this order was given and nothing is unsettled on a connection as young as this.
async fn take_all(subscription: &Subscription, order: &str, connections: u64) -> Result<Given> {
    let mut given = Given::new();
    let state = subscription.state();
    within(LONG, order, async {
        loop {
            let there = given.len() as u64 == COUNT
                && state.borrow().connections >= connections
                && state.borrow().is_connected()
                && subscription.unacked() == 0;
            if there {
                return anyhow::Ok(());
            }
            let next = subscription.next_batch(1000, usize::MAX);
            // Looks again now and then: a connection may come back without bringing anything.
            let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), next).await else {
                continue;
            };
            let batch = batch.expect("the subscription goes on");
            for delivery in &batch.deliveries {
                let (of, n) = stream(&delivery.read)?;
                if of == order {
                    let times = given.entry(n).or_default();
                    *times += 1;
                    ensure!(*times == 1 || delivery.redelivered, "{n} is not marked");
                }
            }
            // Whether it arrives or not is what this is about.
            let _ = subscription.ack_up_to(batch.channel, batch.last_tag).await;
        }
    })
    .await??;
    Ok(given)
}

async fn subscription_meets_all(point: Point) -> Result<()> {
    let world = World::new("consumer-faults").await?;
    let publisher = world.publisher("direct").await?;
    let proxy: ChaosProxy = world.proxy().await;
    let settings = hasty(world.settings_by(&proxy)?);
    let queues = vec![consume(world.queue(), 100)];
    let subscription = Subscription::start(&settings, "consumer", world.topology(), queues);
    subscription.ready(LONG).await?;
    for (number, fault) in WireFault::ALL.into_iter().enumerate() {
        let order = number.to_string();
        let name = format!("{point:?} {fault:?}");
        let before = subscription.state().borrow().connections;
        proxy.at(point, fault);
        if point == Point::ConsumeOk {
            proxy.cut();
        }
        publish(&publisher, (1..=COUNT).map(|n| event(&order, n))).await;
        let connections = match seen(fault) {
            // A fault while consuming begins is another failed attempt of the same connection.
            _ if point == Point::ConsumeOk => before + 1,
            Seen::Nothing => before,
            Seen::Reconnect => before + 1,
        };
        let mut sprung = proxy.triggered();
        let happened = async {
            sprung.wait_for(|times| *times == number as u64 + 1).await?;
            anyhow::Ok(())
        };
        let (given, happened) = tokio::join!(
            take_all(&subscription, &order, connections),
            within(LONG, &name, happened)
        );
        given?;
        happened??;
        let state = subscription.state();
        let made = state.borrow().connections;
        let is_right = match seen(fault) {
            Seen::Nothing => made == connections,
            // On a busy machine one may be late as well, and be made once more.
            Seen::Reconnect => made >= connections,
        };
        ensure!(is_right, "{name}: {state:?}");
    }
    // What was acknowledged in vain comes again, perhaps only now, and before whatever is younger.
    publish(&publisher, (1..=COUNT).map(|n| event("last", n))).await;
    take_all(&subscription, "last", 1).await?;
    let counts = subscription.meter().read();
    ensure!(
        counts.delivered >= COUNT * WireFault::ALL.len() as u64,
        "{counts:?}"
    );
    ensure!(
        (counts.unsettled, counts.oldest_unsettled) == (0, None),
        "{counts:?}"
    );
    ensure!(
        counts.last_delivery.is_some() && counts.last_settle.is_some(),
        "{counts:?}"
    );
    subscription.close(LONG).await;
    until("the queue is empty", async || {
        let queue = world.manage(|broker, vhost| {
            let path = format!("/api/queues/{}/test.orders.0", percent_encoded(vhost));
            broker.management()?.get(&path)
        });
        let queue: serde_json::Value = serde_json::from_str(&queue.await?)?;
        Ok(queue["messages"] == 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_comes_back_from_each_fault_before_an_acknowledgement() -> Result<()> {
    subscription_meets_all(Point::Ack).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_comes_back_from_each_fault_before_a_delivery() -> Result<()> {
    subscription_meets_all(Point::Deliver).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_comes_back_from_each_fault_while_consuming_begins() -> Result<()> {
    subscription_meets_all(Point::ConsumeOk).await
}

/// The order that an event is about, and its number.
fn stream(read: &Decoded) -> Result<(String, u64)> {
    let Decoded::Valid(event) = read else {
        anyhow::bail!("{read:?}");
    };
    let order = event
        .subject
        .as_str()
        .trim_start_matches("order/")
        .to_owned();
    Ok((order, event.sequence.map_or(0, |n| n.get())))
}
