//! The order of a stream, and independent streams.

use doorstep_event::{Event, Sequence, Timestamp};
use doorstep_messaging::{OwnerRecord, take_over};
use doorstep_store::{Store, begin_epoch};
use doorstep_tests::{
    LEDGER, TestEnv,
    ledger::{Ledger, Move, event},
    wait_for, wait_until,
};

use crate::{
    SOON,
    roles::{LISTENER, Listener, dead, entries_are, summary},
    stores::for_each_store,
};

for_each_store! {
    async fn an_early_event_waits_for_its_predecessor(storage) {
        let env = TestEnv::new("stream", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        role.consuming(SOON).await;
        env.publish(&[event("shop", "account/a", 2, &Move::Add(1))]).await;
        wait_until("the early event is deferred", SOON, async || {
            summary(&store).await.usage.deferred.rows == 1
        })
        .await;
        entries_are(&store, "account/a", &[]).await;
        env.publish(&[event("shop", "account/a", 1, &Move::Add(1))]).await;
        entries_are(&store, "account/a", &["shop 1", "shop 2"]).await;

        // A longer case: a hundred events, the last one first.
        let backwards: Vec<_> =
            (3..=102).rev().map(|n| event("shop", "account/a", n, &Move::Add(1))).collect();
        for part in backwards.chunks(17) {
            env.publish(part).await;
        }
        let all: Vec<_> = (1..=102).map(|n| format!("shop {n}")).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        entries_are(&store, "account/a", &all).await;
        assert_eq!(summary(&store).await.usage.deferred.rows, 0);
        role.stop().await.unwrap();
        let queue = env.namespace().role_queue("ledger", 0);
        env.depth_is(&queue, 0, 0, SOON).await;
    }
}

for_each_store! {
    async fn an_event_waits_for_another_stream(storage) {
        let env = TestEnv::new("stream", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        env
            .publish(&[
                event("web", "account/a", 1, &Move::AfterOpen),
                event("web", "account/a", 2, &Move::Add(1)),
            ])
            .await;
        wait_until("both are deferred", SOON, async || summary(&store).await.usage.deferred.rows == 2).await;
        env.publish(&[event("shop", "account/a", 1, &Move::Open)]).await;
        entries_are(&store, "account/a", &["shop 1", "web 1", "web 2"]).await;
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_second_source_causes_no_duplicates(storage) {
        let env = TestEnv::new("stream", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let of = |source, n| event(source, "account/a", n, &Move::Add(1));
        env.publish(&[of("shop/1", 1), of("shop/1", 2), of("shop/2", 1), of("shop/2", 2)]).await;
        wait_until("four were worked", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.applied + tally.duplicates == 4
        })
        .await;
        let entries = doorstep_tests::ledger::entries(&store, "account/a").await;
        for source in ["shop/1", "shop/2"] {
            let own: Vec<_> = entries.iter().filter(|e| e.starts_with(source)).collect();
            assert_eq!(own, [&format!("{source} 1"), &format!("{source} 2")]);
        }
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_lost_store_causes_no_duplicates(storage) {
        let env = TestEnv::new("stream", &[LEDGER, LISTENER]).await;
        let heard = storage.open();
        let listener = env.start(Listener, storage.open());
        // Two ledgers in turn, each with a store of its own: both number `told/account/a` from 1.
        for source in ["shop/1", "shop/2"] {
            let lost = K::new("ledger");
            // The queue is transferred to the store that replaces the lost one.
            let (store, since) = (lost.open(), Timestamp::now());
            let record = OwnerRecord {
                store: store.source().clone(),
                epoch: begin_epoch(&store, since).await.unwrap(),
                since,
            };
            wait_for("no consumer is left", SOON, async || {
                take_over(env.settings(), "ledger", &record).await.map(drop)
            })
            .await;
            let ledger = env.start(Ledger, lost.open());
            env.publish(&[event(source, "account/a", 1, &Move::Tell)]).await;
            entries_are(&lost.open(), "account/a", &[&format!("{source} 1")]).await;
            ledger.stop().await.unwrap();
        }
        wait_for("the listener has received both", SOON, async || {
            let rows = heard.entities(None, 10).await.unwrap();
            let said: Vec<_> = rows
                .into_iter()
                .map(|row| String::from_utf8(row.state.unwrap().to_vec()).unwrap())
                .collect();
            if said == [r#"["shop/1 1","shop/2 1"]"#] { Ok(()) } else { Err(said) }
        })
        .await;
        assert!(dead(&heard).await.is_empty());
        listener.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_reused_sequence_is_a_numbering_conflict(storage) {
        let env = TestEnv::new("stream", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let first = event("shop", "account/a", 1, &Move::Add(1));
        let other = Event {
            id: "somebody-else-s-1".parse().unwrap(),
            sequence: Sequence::new(1),
            ..first.clone()
        };
        env.publish(&[first.clone(), other, first, event("shop", "account/a", 2, &Move::Add(1))]).await;
        entries_are(&store, "account/a", &["shop 1", "shop 2"]).await;
        let dead = crate::roles::dead_letters(&store, 1).await;
        assert_eq!((dead[0].reason.as_str(), dead[0].blocks), ("numbering conflict", false));
        role.stop().await.unwrap();
    }
}
