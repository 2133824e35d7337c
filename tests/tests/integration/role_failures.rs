//! Failures inside a role: its store fails, its handler panics, the broker moves a message to quarantine.

use std::time::Duration;

use doorstep_messaging::{Argument, ConnectionPhase as LinkPhase};
use doorstep_runtime::runner::Phase;
use doorstep_store::KeptLog;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, event},
    wait_for, wait_until,
};

use crate::{
    SOON,
    roles::{dead, dead_letters, entries_are, summary},
    stores::for_each_store,
};

for_each_store! {
    async fn a_failing_store_pauses_the_role(storage) {
        let env = TestEnv::new("trouble", &[LEDGER]).await;
        let store = FaultyStore::new(storage.open());
        let role = env.start(Ledger, store.clone());
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        env.publish(&[e(1), e(2)]).await;
        entries_are(store.inner(), "account/a", &["shop 1", "shop 2"]).await;

        store.set(Fault::Fails);
        env.publish(&[e(3), e(4), e(6)]).await;
        let reason = wait_for("the role pauses", SOON, async || match role.status().phase {
            Phase::Paused { reason } => Ok(reason),
            other => Err(other),
        })
        .await;
        assert!(reason.contains("a fault set by the test"), "{reason}");
        entries_are(store.inner(), "account/a", &["shop 1", "shop 2"]).await;

        store.set(Fault::None);
        role.consuming(SOON).await;
        env.publish(&[e(5)]).await;
        let all = ["shop 1", "shop 2", "shop 3", "shop 4", "shop 5", "shop 6"];
        entries_are(store.inner(), "account/a", &all).await;
        assert!(dead(store.inner()).await.is_empty());
        role.stop().await.unwrap();
        let queue = env.namespace().role_queue("ledger", 0);
        env.depth_is(&queue, 0, 0, SOON).await;
    }
}

for_each_store! {
    async fn stopping_during_an_outage_requeues_deliveries(storage) {
        let env = TestEnv::new("trouble", &[LEDGER]).await;
        let queue = env.namespace().role_queue("ledger", 0);
        let store = FaultyStore::new(storage.open());
        let role = env.start(Ledger, store.clone());
        role.consuming(SOON).await;
        store.set(Fault::Fails);
        let all: Vec<_> = (1..=20).map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
        env.publish(&all).await;
        wait_until("the role pauses", SOON, async || {
            matches!(role.status().phase, Phase::Paused { .. })
        })
        .await;
        role.stop().await.unwrap();
        env.depth_is(&queue, 20, 0, SOON).await;
        let role = env.start(Ledger, storage.open());
        wait_until("all are applied", SOON, async || summary(store.inner()).await.tally.applied == 20).await;
        role.stop().await.unwrap();
        env.depth_is(&queue, 0, 0, SOON).await;
    }
}

for_each_store! {
    async fn a_long_outage_requeues_before_the_brokers_timeout(storage) {
        let env = TestEnv::with("away-for-long", &[LEDGER], |topology| {
            for queue in &mut topology.queues {
                // Brokers before 3.12 do not support it.
                queue.arguments.insert("x-consumer-timeout", Argument::Number(60_000));
            }
        })
        .await;
        let queue = env.namespace().role_queue("ledger", 0);
        let store = FaultyStore::new(storage.open());
        let mut settings = env.run_settings();
        settings.broker.ack_timeout = Duration::from_secs(1);
        let role = RoleProcess::start(Ledger, store.clone(), settings);
        role.consuming(SOON).await;
        store.set(Fault::Fails);
        let all: Vec<_> = (1..=20).map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
        env.publish(&all).await;
        // While the store is unavailable the role does not consume, and no delivery is unacknowledged.
        env.depth_is(&queue, 20, 0, SOON).await;
        let vitals = role.vitals();
        let links = vitals.links().unwrap();
        let consume = links.consume.as_ref().unwrap();
        assert!(matches!(consume.borrow().phase, LinkPhase::Suspended { .. }));
        assert!(matches!(role.status().phase, Phase::Paused { .. }));
        env.depth_is(&queue, 20, 0, SOON).await;

        store.set(Fault::None);
        wait_until("all are applied", SOON, async || summary(store.inner()).await.tally.applied == 20).await;
        env.all_is_acked(&role, "ledger", SOON).await;
        wait_until("it consumes", SOON, async || consume.borrow().is_connected()).await;
        let counts = links.consumed.as_ref().unwrap().read();
        assert_eq!((counts.channels_closed, counts.consumers_cancelled), (0, 0));
        assert_eq!(consume.borrow().last_loss, None);
        assert!(dead(store.inner()).await.is_empty());
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_full_role_requeues_deliveries(storage) {
        let env = TestEnv::new("full-for-long", &[LEDGER]).await;
        let queue = env.namespace().role_queue("ledger", 0);
        let store = storage.open();
        let mut settings = env.run_settings();
        settings.broker.ack_timeout = Duration::from_secs(1);
        settings.limits.deferred.rows = 1;
        let role = RoleProcess::start(Ledger, storage.open(), settings);
        role.consuming(SOON).await;
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        env.publish(&[e(2)]).await;
        wait_until("it is full", SOON, async || {
            matches!(role.status().phase, Phase::Full { .. })
        })
        .await;
        env.publish(&[e(3), e(4)]).await;
        env.depth_is(&queue, 2, 0, SOON).await;
        doorstep_runtime::operate::skip_gap(&store, &e(1).stream(), 1, 1, doorstep_event::Timestamp::now())
            .await
            .unwrap();
        entries_are(&store, "account/a", &["shop 2", "shop 3", "shop 4"]).await;
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_panicking_handler_does_not_stop_its_role(storage) {
        let env = TestEnv::new("trouble", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        env
            .publish(&[
                event("shop", "account/a", 1, &Move::Add(1)),
                event("shop", "account/a", 2, &Move::Panic),
                event("shop", "account/a", 3, &Move::Add(1)),
                event("shop", "account/b", 1, &Move::Add(1)),
            ])
            .await;
        let dead = dead_letters(&store, 1).await;
        assert_eq!(dead[0].reason, "handler panicked");
        assert_eq!(dead[0].detail, "this event makes the handler panic");
        entries_are(&store, "account/a", &["shop 1"]).await;
        entries_are(&store, "account/b", &["shop 1"]).await;
        env.publish(&[event("shop", "account/b", 2, &Move::Add(1))]).await;
        entries_are(&store, "account/b", &["shop 1", "shop 2"]).await;
        assert_eq!(role.status().phase, Phase::Consuming);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_quarantined_message_is_handled(storage) {
        let env = TestEnv::new("trouble", &[LEDGER]).await;
        let (queue, net) = (env.namespace().role_queue("ledger", 0), env.namespace().quarantine_queue("ledger"));
        env.publish(&[event("shop", "account/a", 1, &Move::Add(1))]).await;
        // Like a process that crashes on it repeatedly, until the broker removes it from the queue.
        let channel = env.channel().await;
        let times = channel.give_back_until_given_up(queue.as_str(), net.as_str(), SOON).await;
        env.depth_is(&net, 1, 0, SOON).await;
        assert!(times >= 100, "given up after {times} times");
        env.publish(&[event("shop", "account/a", 2, &Move::Add(1))]).await;

        let store = FaultyStore::new(storage.open());
        let role = env.start(Ledger, store.clone());
        entries_are(&store, "account/a", &["shop 1", "shop 2"]).await;
        role.stop().await.unwrap();
        // Processes may have crashed on it, although the quarantine delivers it for the first time: this crash would
        // have been counted.
        let given_up = event("shop", "account/a", 1, &Move::Add(1)).id;
        assert!(store.tried().contains(&given_up), "{:?}", store.tried());
        env.depth_is(&net, 0, 0, SOON).await;
        env.depth_is(&queue, 0, 0, SOON).await;
        assert!(dead(&store).await.is_empty());
    }
}

for_each_store! {
    async fn a_readers_write_ahead_log_degrades_the_role(storage) {
        let env = TestEnv::new("kept-log", &[LEDGER]).await;
        let store = FaultyStore::new(storage.open());
        let kept = KeptLog {
            file: "ledger.sqlite3".into(),
            bytes: 200 << 20,
            max_bytes: 128 << 20,
        };
        store.keep_log(kept.clone());
        let role = env.start(Ledger, store);
        wait_for("the role is degraded", SOON, async || {
            let degraded = role.status().degraded;
            if degraded.iter().any(|reason| reason.message == kept.to_string()) { Ok(()) } else { Err(degraded) }
        })
        .await;
        role.stop().await.unwrap();
    }
}
