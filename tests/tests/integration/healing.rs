//! A role whose connection is closed, whose queue is deleted, or whose broker crashes or runs short of memory. It
//! resumes consuming by itself and reports possible losses. `cargo xtask test` measures and prints the time, and never
//! asserts it.

use std::time::{Duration, Instant};

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_event::{Event, Timestamp};
use doorstep_messaging::{ConnectionPhase, Message, PublishOutcome, Publisher, Topology};
use doorstep_store::{MemoryStore, Store};
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_for, wait_until,
};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    roles::{LISTENER, Listener, summary},
    stores::for_each_store,
};

/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);

fn added(stream: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    let account = format!("account/{stream}");
    numbers
        .map(|n| event("shop", &account, n, &Move::Add(1)))
        .collect()
}

fn shown(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|n| format!("shop {n}")).collect()
}

async fn applied<S: Store>(store: &S, stream: &str, upto: u64) {
    let account = format!("account/{stream}");
    wait_for(format!("{account} is at {upto}"), LONG, async || {
        let entries = entries(store, &account).await;
        if entries == shown(1..=upto) {
            Ok(())
        } else {
            Err(entries)
        }
    })
    .await;
}

/// Waits until a reason for the degraded state contains this text.
async fn degraded(role: &RoleProcess, what: &str) {
    wait_for(format!("degraded: {what}"), SOON, async || {
        let degraded = role.status().degraded;
        if degraded.iter().any(|line| line.message.contains(what)) {
            Ok(())
        } else {
            Err(degraded)
        }
    })
    .await;
}

async fn well(role: &RoleProcess) {
    wait_for("the role is ready", SOON, async || {
        match role.status().degraded {
            lines if lines.is_empty() => Ok(()),
            lines => Err(lines),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_connections_are_reopened() {
    let env = TestEnv::new("closed", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let role = env.start(Ledger, store.clone());
    role.consuming(SOON).await;
    let view = env.view();
    let mut upto = 0;
    for name in [
        "doorstep ledger: consume",
        "doorstep ledger: quarantine",
        "doorstep ledger: publish",
    ] {
        env.publish(&added("a", upto + 1..=upto + 10)).await;
        // The API learns of a connection some seconds after it was opened.
        wait_until(format!("{name} is closed"), SOON, async || {
            block_in_place(|| view.close_connections_called(name)) > 0
        })
        .await;
        let closed = Instant::now();
        env.publish(&added("a", upto + 11..=upto + 20)).await;
        upto += 20;
        applied(&store, "a", upto).await;
        println!(
            "measured: {name} closed: all is applied after {:?}",
            closed.elapsed()
        );
        well(&role).await;
    }
    env.all_is_acked(&role, "ledger", SOON).await;
    role.stop().await.unwrap();
    assert_eq!(summary(&store).await.tally.applied, upto);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_resumes_after_a_broker_kill() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("healing")));
    let mut node = node.await.unwrap().unwrap();
    let env = TestEnv::on(&node.broker(), "healing", &[LEDGER]).await;
    let store = MemoryStore::new("ledger");
    let role = env.start(Ledger, store.clone());
    role.consuming(LONG).await;
    env.publish(&added("a", 1..=100)).await;
    node.sync_declarations().unwrap();
    let mut node = spawn_blocking(move || {
        node.kill().unwrap();
        node
    })
    .await
    .unwrap();
    degraded(&role, "no connection to consume").await;
    degraded(&role, "no connection to publish").await;
    let node = spawn_blocking(move || {
        node.start_again().unwrap();
        node
    })
    .await
    .unwrap();
    let returned = Instant::now();
    well(&role).await;
    println!(
        "measured: connected again {:?} after the broker's return",
        returned.elapsed()
    );
    env.publish_at_last(&added("a", 101..=101), LONG).await;
    applied(&store, "a", 101).await;
    println!(
        "measured: consuming again {:?} after the broker's return",
        returned.elapsed()
    );
    env.all_is_acked(&role, "ledger", LONG).await;
    role.stop().await.unwrap();
    assert_eq!(summary(&store).await.tally.applied, 101);
    block_in_place(|| drop(node));
}

for_each_store! {
    async fn a_deleted_queue_leaves_listed_gaps(storage) {
        const STREAMS: [&str; 4] = ["a", "b", "c", "d"];
        let env = TestEnv::new("deleted", &[LEDGER]).await;
        let store = FaultyStore::new(storage.open());
        let mut settings = env.run_settings();
        settings.limits.gap_age = Duration::from_millis(100);
        // So that most messages published while the role is paused wait in the queue.
        settings.broker.prefetch = 3;
        let role = RoleProcess::start(Ledger, store.clone(), settings);
        role.consuming(SOON).await;
        let each = |numbers: std::ops::RangeInclusive<u64>| -> Vec<Event> {
            numbers.flat_map(|n| STREAMS.map(|s| added(s, n..=n)).concat()).collect()
        };
        env.publish(&each(1..=3)).await;
        for stream in STREAMS {
            applied(store.inner(), stream, 3).await;
        }
        assert_eq!(role.status().degraded, [], "the queue is reported as replaced once");

        store.set(Fault::Fails);
        env.publish(&each(4..=6)).await;
        wait_until("the role has deferred what fits", SOON, async || role.status().phase != doorstep_runtime::runner::Phase::Consuming).await;
        let view = env.view();
        let queue = env.namespace().role_queue("ledger", 0);
        view.delete_queue(queue.as_str());
        let deleted = Instant::now();
        store.set(Fault::None);
        degraded(&role, "queue doorstep.ledger.0 was recreated").await;
        println!("measured: consuming again {:?} after the queue was deleted", deleted.elapsed());

        // The next event of each stream reveals the missing ones before it.
        env.publish(&each(7..=7)).await;
        wait_until("all are deferred", SOON, async || summary(store.inner()).await.usage.deferred.rows == 4).await;
        let gaps = wait_for("gaps", SOON, async || {
            let gaps = store.inner().gaps(Timestamp::MAX, Timestamp::MAX, 100).await.unwrap();
            if gaps.len() == STREAMS.len() { Ok(gaps) } else { Err(gaps) }
        }).await;
        for (gap, stream) in gaps.iter().zip(STREAMS) {
            let account = format!("account/{stream}");
            let cursor = entries(store.inner(), &account).await.len() as u64;
            assert_eq!(gap.stream.subject.as_str(), account);
            assert_eq!((gap.from, gap.to, gap.deferred), (cursor + 1, 6, 1));
        }
        degraded(&role, "missing ").await;

        env.publish(&each(1..=7)).await;
        for stream in STREAMS {
            applied(store.inner(), stream, 7).await;
        }
        env.all_is_acked(&role, "ledger", SOON).await;
        assert!(store.inner().gaps(Timestamp::MAX, Timestamp::MAX, 100).await.unwrap().is_empty());
        role.stop().await.unwrap();
        let after = summary(store.inner()).await;
        assert_eq!((after.tally.applied, after.usage.deferred.rows), (4 * 7, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_outbox_drains_after_a_memory_alarm() {
    const COUNT: u64 = 50;
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("alarm")));
    let node = node.await.unwrap().unwrap();
    let env = TestEnv::on(&node.broker(), "alarm", &[LEDGER, LISTENER]).await;
    let store = FaultyStore::new(MemoryStore::new("ledger"));
    let role = env.start(Ledger, store.clone());
    let heard = MemoryStore::new("listener");
    let listener = env.start(Listener, heard.clone());
    role.consuming(LONG).await;
    let publisher = Publisher::start(env.settings(), "another publishes", Topology::none());
    publisher.ready(LONG).await.unwrap();

    // The role has work in its queue when the alarm is raised, and an event to publish for each.
    store.set(Fault::Fails);
    let tells: Vec<_> = (1..=COUNT)
        .map(|n| event("shop", "account/a", n, &Move::Tell))
        .collect();
    env.publish(&tells).await;
    block_in_place(|| node.block_publishers()).unwrap();
    store.set(Fault::None);
    applied(store.inner(), "a", COUNT).await;
    degraded(&role, "the broker blocks publishing").await;
    let outcome = publisher.publish(Message::event(&tells[0])).await;
    assert_eq!(outcome, PublishOutcome::Blocked);
    assert!(matches!(
        publisher.status().borrow().phase,
        ConnectionPhase::Blocked(_)
    ));
    assert_eq!(publisher.stats().read().blocked, 1);
    // Consuming continues, and the outbox is kept.
    env.all_is_acked(&role, "ledger", SOON).await;
    assert_eq!(summary(store.inner()).await.usage.outbox.rows, COUNT);
    assert_eq!(summary(&heard).await.tally.applied, 0);

    let lifted = Instant::now();
    block_in_place(|| node.unblock_publishers()).unwrap();
    wait_for(
        "all emitted events have arrived",
        SOON,
        async || match summary(&heard).await.tally.applied {
            COUNT => Ok(()),
            other => Err(other),
        },
    )
    .await;
    println!(
        "measured: all emitted events have arrived {:?} after rabbitmqctl was told to lift the alarm",
        lifted.elapsed()
    );
    well(&role).await;
    wait_until("the outbox is empty", SOON, async || {
        summary(store.inner()).await.usage.outbox.rows == 0
    })
    .await;
    assert_eq!(
        publisher.publish(Message::event(&tells[0])).await,
        PublishOutcome::Confirmed
    );
    publisher.close(Duration::from_secs(5)).await;
    role.stop().await.unwrap();
    listener.stop().await.unwrap();
    assert_eq!(summary(store.inner()).await.tally.applied, COUNT);
    block_in_place(|| drop(node));
}
