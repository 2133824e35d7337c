//! Trouble inside a role: its store fails, its handler panics, the broker gives up on a message.

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
    shelf::on_every_store,
};

on_every_store! {
    async fn a_store_that_fails_pauses_the_role_which_goes_on_by_itself_and_loses_nothing(shelf) {
        let world = TestEnv::new("trouble", &[LEDGER]).await;
        let store = FaultyStore::new(shelf.open());
        let role = world.start(Ledger, store.clone());
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        world.publish(&[e(1), e(2)]).await;
        entries_are(store.inner(), "account/a", &["shop 1", "shop 2"]).await;

        store.set(Fault::Fails);
        world.publish(&[e(3), e(4), e(6)]).await;
        let reason = wait_for("the role pauses", SOON, async || match role.status().phase {
            Phase::Paused { reason } => Ok(reason),
            other => Err(other),
        })
        .await;
        assert!(reason.contains("it was told to fail"), "{reason}");
        entries_are(store.inner(), "account/a", &["shop 1", "shop 2"]).await;

        store.set(Fault::None);
        role.taking(SOON).await;
        world.publish(&[e(5)]).await;
        let all = ["shop 1", "shop 2", "shop 3", "shop 4", "shop 5", "shop 6"];
        entries_are(store.inner(), "account/a", &all).await;
        assert!(dead(store.inner()).await.is_empty());
        role.stop().await.unwrap();
        let queue = world.namespace().role_queue("ledger", 0);
        world.depth_is(&queue, 0, 0, SOON).await;
    }
}

on_every_store! {
    async fn a_role_that_is_stopped_while_its_store_fails_gives_back_what_it_took(shelf) {
        let world = TestEnv::new("trouble", &[LEDGER]).await;
        let queue = world.namespace().role_queue("ledger", 0);
        let store = FaultyStore::new(shelf.open());
        let role = world.start(Ledger, store.clone());
        role.taking(SOON).await;
        store.set(Fault::Fails);
        let all: Vec<_> = (1..=20).map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
        world.publish(&all).await;
        wait_until("the role pauses", SOON, async || {
            matches!(role.status().phase, Phase::Paused { .. })
        })
        .await;
        role.stop().await.unwrap();
        world.depth_is(&queue, 20, 0, SOON).await;
        let role = world.start(Ledger, shelf.open());
        wait_until("all are applied", SOON, async || summary(store.inner()).await.tally.applied == 20).await;
        role.stop().await.unwrap();
        world.depth_is(&queue, 0, 0, SOON).await;
    }
}

on_every_store! {
    async fn a_role_whose_store_is_away_for_long_gives_back_what_it_took_before_the_broker_takes_it(shelf) {
        let world = TestEnv::with("away-for-long", &[LEDGER], |topology| {
            for queue in &mut topology.queues {
                // Brokers before 3.12 do not know it.
                queue.arguments.insert("x-consumer-timeout", Argument::Number(60_000));
            }
        })
        .await;
        let queue = world.namespace().role_queue("ledger", 0);
        let store = FaultyStore::new(shelf.open());
        let mut settings = world.run_settings();
        settings.broker.ack_timeout = Duration::from_secs(1);
        let role = RoleProcess::start(Ledger, store.clone(), settings);
        role.taking(SOON).await;
        store.set(Fault::Fails);
        let all: Vec<_> = (1..=20).map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
        world.publish(&all).await;
        // As long as the store is away nobody consumes, and nothing is unacknowledged.
        world.depth_is(&queue, 20, 0, SOON).await;
        let vitals = role.vitals();
        let links = vitals.links().unwrap();
        let consume = links.consume.as_ref().unwrap();
        assert!(matches!(consume.borrow().phase, LinkPhase::Suspended { .. }));
        assert!(matches!(role.status().phase, Phase::Paused { .. }));
        world.depth_is(&queue, 20, 0, SOON).await;

        store.set(Fault::None);
        wait_until("all are applied", SOON, async || summary(store.inner()).await.tally.applied == 20).await;
        world.all_is_settled(&role, "ledger", SOON).await;
        wait_until("it consumes", SOON, async || consume.borrow().is_connected()).await;
        let counts = links.consumed.as_ref().unwrap().read();
        assert_eq!((counts.channels_ended, counts.consumers_cancelled), (0, 0));
        assert_eq!(consume.borrow().last_loss, None);
        assert!(dead(store.inner()).await.is_empty());
        role.stop().await.unwrap();
    }
}

on_every_store! {
    async fn a_full_role_holds_no_delivery_for_long_either(shelf) {
        let world = TestEnv::new("full-for-long", &[LEDGER]).await;
        let queue = world.namespace().role_queue("ledger", 0);
        let store = shelf.open();
        let mut settings = world.run_settings();
        settings.broker.ack_timeout = Duration::from_secs(1);
        settings.limits.held.rows = 1;
        let role = RoleProcess::start(Ledger, shelf.open(), settings);
        role.taking(SOON).await;
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        world.publish(&[e(2)]).await;
        wait_until("it is full", SOON, async || {
            matches!(role.status().phase, Phase::Full { .. })
        })
        .await;
        world.publish(&[e(3), e(4)]).await;
        world.depth_is(&queue, 2, 0, SOON).await;
        doorstep_runtime::operate::skip_gap(&store, &e(1).stream(), 1, 1, doorstep_event::Timestamp::now())
            .await
            .unwrap();
        entries_are(&store, "account/a", &["shop 2", "shop 3", "shop 4"]).await;
        role.stop().await.unwrap();
    }
}

on_every_store! {
    async fn a_handler_that_panics_does_not_stop_its_role(shelf) {
        let world = TestEnv::new("trouble", &[LEDGER]).await;
        let store = shelf.open();
        let role = world.start(Ledger, shelf.open());
        world
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
        world.publish(&[event("shop", "account/b", 2, &Move::Add(1))]).await;
        entries_are(&store, "account/b", &["shop 1", "shop 2"]).await;
        assert_eq!(role.status().phase, Phase::Consuming);
        role.stop().await.unwrap();
    }
}

on_every_store! {
    async fn a_message_that_the_broker_gave_up_on_is_worked_from_the_net(shelf) {
        let world = TestEnv::new("trouble", &[LEDGER]).await;
        let (queue, net) = (world.namespace().role_queue("ledger", 0), world.namespace().net_queue("ledger"));
        world.publish(&[event("shop", "account/a", 1, &Move::Add(1))]).await;
        // As by a process that dies of it again and again, until the broker takes it out of the queue.
        let wire = world.wire().await;
        let times = wire.give_back_until_given_up(queue.as_str(), net.as_str(), SOON).await;
        world.depth_is(&net, 1, 0, SOON).await;
        assert!(times >= 100, "given up after {times} times");
        world.publish(&[event("shop", "account/a", 2, &Move::Add(1))]).await;

        let store = FaultyStore::new(shelf.open());
        let role = world.start(Ledger, store.clone());
        entries_are(&store, "account/a", &["shop 1", "shop 2"]).await;
        role.stop().await.unwrap();
        // Processes may have died of it, although the net delivers it for the first time: this one would have been counted.
        let given_up = event("shop", "account/a", 1, &Move::Add(1)).id;
        assert!(store.tried().contains(&given_up), "{:?}", store.tried());
        world.depth_is(&net, 0, 0, SOON).await;
        world.depth_is(&queue, 0, 0, SOON).await;
        assert!(dead(&store).await.is_empty());
    }
}

on_every_store! {
    async fn a_write_ahead_log_that_a_reader_keeps_degrades_its_role(shelf) {
        let world = TestEnv::new("kept-log", &[LEDGER]).await;
        let store = FaultyStore::new(shelf.open());
        let kept = KeptLog {
            file: "ledger.sqlite3".into(),
            bytes: 200 << 20,
            max_bytes: 128 << 20,
        };
        store.keep_log(kept.clone());
        let role = world.start(Ledger, store);
        wait_for("the role is degraded", SOON, async || {
            let degraded = role.status().degraded;
            if degraded.contains(&kept.to_string()) { Ok(()) } else { Err(degraded) }
        })
        .await;
        role.stop().await.unwrap();
    }
}
