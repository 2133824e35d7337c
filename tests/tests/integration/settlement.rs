//! Acknowledgements never reach another channel than their own.

use doorstep_event::Timestamp;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, LEDGER_WITH_RPC, TestEnv,
    ledger::{Bid, Ledger, Move, Order, event, order},
    wait_for, wait_until,
};
use futures_util::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

use crate::{SOON, requests::client, roles::entries_are, stores::for_each_store};

/// The way in which the role loses its connection.
#[derive(Clone, Copy)]
enum Loss {
    WireCut,
    ClosedByAdministrator,
}

/// Five deliveries are committed and unacknowledged when their connection is lost. The new connection redelivers them,
/// with five more, under the same delivery tags. The acknowledgement of the first five must not affect them.
async fn no_ack_reaches_the_new_channel<K: crate::stores::TestStorage>(storage: &K, loss: Loss) {
    let env = TestEnv::new("settle", &[LEDGER]).await;
    let queue = env.namespace().role_queue("ledger", 0);
    let first: Vec<_> = (1..=5)
        .map(|n| event("shop", "account/a", n, &Move::Add(1)))
        .collect();
    let more: Vec<_> = (6..=10)
        .map(|n| event("shop", "account/a", n, &Move::Add(1)))
        .collect();
    env.publish(&first).await;

    let proxy = env.proxy().await;
    let mut settings = env.run_settings();
    settings.broker = env.settings_by(&proxy);
    let store = FaultyStore::new(storage.open());
    store.set(Fault::HangsAfterCommit);
    let role = doorstep_tests::RoleProcess::start(Ledger, store.clone(), settings);
    wait_until("a batch is written and unacknowledged", SOON, async || {
        store.hung() == 1
    })
    .await;
    env.depth_is(&queue, 0, 1, SOON).await;

    let consuming = format!("{} ledger: consume", env.namespace());
    let view = env.view();
    let before = wait_for("the role's connection is shown", SOON, async || {
        let shown = view.connections_called(&consuming);
        if shown.len() == 1 {
            Ok(shown)
        } else {
            Err(shown)
        }
    })
    .await;
    match loss {
        Loss::WireCut => proxy.cut(),
        Loss::ClosedByAdministrator => assert_eq!(view.close_connections_called(&consuming), 1),
    }
    wait_until("the role has another connection", SOON, async || {
        let now = view.connections_called(&consuming);
        now.len() == 1 && now != before
    })
    .await;
    env.publish(&more).await;
    // All ten are on the new channel, all unacknowledged.
    env.depth_is(&queue, 0, 1, SOON).await;

    // The first batch continues now with its acknowledgement, and then the next batch, which hangs before its commit.
    store.set(Fault::HangsBeforeCommit);
    wait_until("the next batch is at its commit", SOON, async || {
        store.hung() == 2
    })
    .await;
    role.crash();
    env.depth_is(&queue, 10, 0, SOON).await;

    let role = env.start(Ledger, storage.open());
    let all: Vec<_> = (1..=10).map(|n| format!("shop {n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    entries_are(&storage.open(), "account/a", &all).await;
    role.stop().await.unwrap();
    env.depth_is(&queue, 0, 0, SOON).await;
}

for_each_store! {
    async fn a_cut_connection_discards_its_acks(storage) {
        no_ack_reaches_the_new_channel(&storage, Loss::WireCut).await;
    }
}

for_each_store! {
    async fn a_closed_connection_discards_its_acks(storage) {
        no_ack_reaches_the_new_channel(&storage, Loss::ClosedByAdministrator).await;
    }
}

for_each_store! {
    async fn nothing_is_acknowledged_before_its_own_commit(storage) {
        let env = TestEnv::new("settle", &[LEDGER_WITH_RPC]).await;
        let queue = env.namespace().role_queue("ledger", 0);
        let client = client(&env).await;
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        // Another consumer has three deliveries when the role starts, which consumes only after that one is gone.
        let channel = env.channel().await;
        let channel = channel.channel();
        channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = channel
            .basic_consume(queue.as_str().into(), "before".into(), options, none)
            .await
            .unwrap();
        let store = FaultyStore::new(storage.open());
        let role = env.start(Ledger, store.clone());
        role.consuming(SOON).await;
        // A command delays the role, so that all deliveries arrive before it takes any: they are one batch.
        store.set(Fault::HangsBeforeCommit);
        let mut command = order("1", Timestamp::now(), "account/b", Bid::Deposit(1));
        command.deadline = Timestamp::now() + SOON;
        let asked = tokio::spawn(async move { client.call::<Order>(command).await });
        wait_until("the command is at its commit", SOON, async || store.hung() == 1).await;
        env.publish(&(1..=5).map(e).collect::<Vec<_>>()).await;
        for _ in 0..3 {
            consumer.next().await.unwrap().unwrap();
        }
        channel.close(200, "OK".into()).await.unwrap();
        wait_until("the role has all five", SOON, async || {
            let vitals = role.vitals();
            let consumed = vitals.links().and_then(|links| links.consumed.as_ref());
            consumed.is_some_and(|meter| meter.read().delivered == 5)
        })
        .await;
        // A process may have crashed on the first three, so they are handled apart from the others: two commits.
        for written in 1..=2 {
            store.set(Fault::HangsAfterCommit);
            wait_until("it is written", SOON, async || store.hung() == 2 * written).await;
            store.set(Fault::HangsBeforeCommit);
            wait_until("the next is at its commit", SOON, async || store.hung() == 2 * written + 1).await;
        }
        assert!(asked.await.unwrap().is_ok());
        role.crash();
        env.depth_is(&queue, 2, 0, SOON).await;

        let role = env.start(Ledger, storage.open());
        let all = ["shop 1", "shop 2", "shop 3", "shop 4", "shop 5"];
        entries_are(&storage.open(), "account/a", &all).await;
        role.stop().await.unwrap();
    }
}
