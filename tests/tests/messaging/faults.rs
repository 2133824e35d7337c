//! Every connection fault at every AMQP method: the reports of publisher and subscription, and that no message is lost.

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

use crate::support::{LONG, TestEnv, consume, event, publish, until, within};

/// The number of messages during a fault.
const COUNT: u64 = 20;

/// The visible effect of a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Only a delay.
    Nothing,
    /// The connection is lost and opened again.
    Reconnect,
}

fn seen(fault: WireFault) -> Effect {
    match fault {
        WireFault::Slow(_) => Effect::Nothing,
        _ => Effect::Reconnect,
    }
}

/// Returns the possible outcomes of messages in flight during the fault.
fn outcomes(point: Point, fault: WireFault) -> &'static [PublishOutcome] {
    match (point, fault) {
        (_, WireFault::Slow(_)) => &[PublishOutcome::Confirmed],
        // The method itself and later ones still arrive, until the broker hangs up in turn.
        (Point::Confirm, WireFault::HalfClose(Direction::ToBroker)) => {
            &[PublishOutcome::Confirmed, PublishOutcome::Disconnected]
        }
        // Noticed by the missing heartbeat or the missing confirm, whichever is first.
        (_, WireFault::Stall) => &[PublishOutcome::Disconnected, PublishOutcome::TimedOut],
        _ => &[PublishOutcome::Disconnected],
    }
}

/// Returns settings with timeouts that end each fault within seconds.
fn hasty(mut settings: BrokerSettings) -> BrokerSettings {
    settings.heartbeat = Duration::from_secs(4);
    settings.connect_timeout = Duration::from_secs(3);
    settings.ack_write_timeout = Duration::from_secs(2);
    settings.confirm_timeout = Duration::from_secs(5);
    settings.outage_timeout = LONG;
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
    settings.backoff = backoff.expect("these bounds make sense");
    settings
}

/// Runs a publisher on a connection of its own, which fails once it publishes.
async fn publisher_meets(
    env: &TestEnv,
    number: usize,
    point: Point,
    fault: WireFault,
) -> Result<()> {
    let name = format!("{point:?} {fault:?}");
    let proxy = env.proxy().await;
    let settings = hasty(env.settings_by(&proxy)?);
    let publisher = Publisher::start(&settings, &name, env.topology());
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

    let mut state = publisher.status();
    match seen(fault) {
        Effect::Nothing => ensure!(state.borrow().connections == 1, "{name}"),
        Effect::Reconnect => {
            // On a busy machine the next connection may be late as well, and be opened once more.
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
    let counts = publisher.stats().read();
    ensure!(counts.confirmed == COUNT, "{name}: {counts:?}");
    ensure!(
        counts.disconnected + counts.timed_out == left.len() as u64,
        "{name}: {counts:?}"
    );
    // Recorded a moment after the last call is answered.
    until("nothing is outstanding", async || {
        let counts = publisher.stats().read();
        Ok((counts.unconfirmed, counts.oldest_unconfirmed) == (0, None))
    })
    .await?;
    publisher.close(Duration::from_secs(5)).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_reports_each_fault_by_type() -> Result<()> {
    let env = TestEnv::new("faults").await?;
    let subscription = env.subscription("faults").await?;
    let mut rows = Vec::new();
    for point in [Point::Publish, Point::Confirm] {
        for fault in WireFault::ALL {
            rows.push(publisher_meets(&env, rows.len(), point, fault));
        }
    }
    let count = rows.len();
    try_join_all(rows).await?;
    let everything = (0..count).flat_map(|row| (1..=COUNT).map(move |n| (row.to_string(), n)));
    let mut missing: BTreeSet<_> = everything.collect();
    until("everything has arrived", async || {
        if let Some(batch) = subscription.next_batch(1000, usize::MAX).await {
            for delivery in &batch.deliveries {
                missing.remove(&stream(&delivery.decoded)?);
            }
            subscription.ack_up_to(batch.channel, batch.last_tag).await;
        }
        Ok(missing.is_empty())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_while_connecting_costs_only_an_attempt() -> Result<()> {
    let env = TestEnv::new("begin").await?;
    env.publisher("topology").await?;
    let meets = async |point: Point, fault: WireFault| {
        let name = format!("{point:?} {fault:?}");
        let proxy = env.proxy().await;
        proxy.at(point, fault);
        let settings = hasty(env.settings_by(&proxy)?);
        let publisher = Publisher::start(&settings, &name, env.topology());
        let outcome = within(
            LONG,
            &name,
            publisher.publish(Message::event(&event("1", 1))),
        )
        .await?;
        ensure!(outcome == PublishOutcome::Confirmed, "{name}: {outcome:?}");
        ensure!(*proxy.triggered().borrow() == 1, "{name} did not happen");
        let attempts = match seen(fault) {
            Effect::Nothing => 1,
            Effect::Reconnect => 2,
        };
        // An attempt may also time out because the machine is busy.
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
async fn a_confirm_timeout_reveals_a_stalled_connection() -> Result<()> {
    let env = TestEnv::new("late").await?;
    let proxy = env.proxy().await;
    let mut settings = env.settings_by(&proxy)?;
    settings.heartbeat = Duration::from_secs(60);
    settings.confirm_timeout = Duration::from_secs(3);
    let publisher = Publisher::start(&settings, "late", env.topology());
    publisher.ready(LONG).await?;
    proxy.at(Point::Confirm, WireFault::Stall);
    let outcome = publisher.publish(Message::event(&event("1", 1))).await;
    assert_eq!(outcome, PublishOutcome::TimedOut);
    let mut state = publisher.status();
    within(LONG, "coming back", state.wait_for(|s| s.connections >= 2)).await??;
    publish(&publisher, [event("1", 1)]).await;
    assert_eq!(publisher.stats().read().timed_out, 1);
    Ok(())
}

/// The deliveries of one stream: the number of deliveries of each event.
type Given = BTreeMap<u64, u32>;

/// Takes and acknowledges deliveries until every event of this order has arrived and none is unacknowledged on a
/// connection at least this new.
async fn take_all(subscription: &Subscription, order: &str, connections: u64) -> Result<Given> {
    let mut given = Given::new();
    let state = subscription.status();
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
            // Polls, since a new connection may have no deliveries.
            let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), next).await else {
                continue;
            };
            let batch = batch.expect("the subscription continues");
            for delivery in &batch.deliveries {
                let (of, n) = stream(&delivery.decoded)?;
                if of == order {
                    let times = given.entry(n).or_default();
                    *times += 1;
                    ensure!(*times == 1 || delivery.redelivered, "{n} is not marked");
                }
            }
            // It may arrive or not: both are tested.
            let _ = subscription.ack_up_to(batch.channel, batch.last_tag).await;
        }
    })
    .await??;
    Ok(given)
}

async fn subscription_meets_all(point: Point) -> Result<()> {
    let env = TestEnv::new("consumer-faults").await?;
    let publisher = env.publisher("direct").await?;
    let proxy: ChaosProxy = env.proxy().await;
    let settings = hasty(env.settings_by(&proxy)?);
    let queues = vec![consume(env.queue(), 100)];
    let subscription = Subscription::start(&settings, "consumer", env.topology(), queues, None);
    subscription.ready(LONG).await?;
    for (number, fault) in WireFault::ALL.into_iter().enumerate() {
        let order = number.to_string();
        let name = format!("{point:?} {fault:?}");
        let before = subscription.status().borrow().connections;
        proxy.at(point, fault);
        if point == Point::ConsumeOk {
            proxy.cut();
        }
        publish(&publisher, (1..=COUNT).map(|n| event(&order, n))).await;
        let connections = match seen(fault) {
            // A fault at the start of consuming is another failed attempt of the same connection.
            _ if point == Point::ConsumeOk => before + 1,
            Effect::Nothing => before,
            Effect::Reconnect => before + 1,
        };
        let mut triggered = proxy.triggered();
        let happened = async {
            triggered
                .wait_for(|times| *times == number as u64 + 1)
                .await?;
            anyhow::Ok(())
        };
        let (given, happened) = tokio::join!(
            take_all(&subscription, &order, connections),
            within(LONG, &name, happened)
        );
        given?;
        happened??;
        let state = subscription.status();
        let made = state.borrow().connections;
        let is_right = match seen(fault) {
            Effect::Nothing => made == connections,
            // On a busy machine one may be late as well, and be opened once more.
            Effect::Reconnect => made >= connections,
        };
        ensure!(is_right, "{name}: {state:?}");
    }
    // Deliveries whose acknowledgement was lost are redelivered, perhaps only now, and before all newer ones.
    publish(&publisher, (1..=COUNT).map(|n| event("last", n))).await;
    take_all(&subscription, "last", 1).await?;
    let counts = subscription.stats().read();
    ensure!(
        counts.delivered >= COUNT * WireFault::ALL.len() as u64,
        "{counts:?}"
    );
    ensure!(
        (counts.unacked, counts.oldest_unacked) == (0, None),
        "{counts:?}"
    );
    ensure!(
        counts.last_delivery.is_some() && counts.last_ack.is_some(),
        "{counts:?}"
    );
    subscription.close(LONG).await;
    until("the queue is empty", async || {
        let queue = env.manage(|broker, vhost| {
            let path = format!("/api/queues/{}/test.orders.0", percent_encoded(vhost));
            broker.management()?.get(&path)
        });
        let queue: serde_json::Value = serde_json::from_str(&queue.await?)?;
        Ok(queue["messages"] == 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_faults_before_acks() -> Result<()> {
    subscription_meets_all(Point::Ack).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_faults_before_deliveries() -> Result<()> {
    subscription_meets_all(Point::Deliver).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_faults_at_consume() -> Result<()> {
    subscription_meets_all(Point::ConsumeOk).await
}

/// Returns the order of an event, and its sequence.
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
