//! Poisoned streams: only they stop, and they continue after a replay or skip.

use std::sync::Arc;

use doorstep_event::Timestamp;
use doorstep_runtime::operate::{self, OperateError};
use doorstep_store::Store;
use doorstep_tests::{
    LEDGER, TestEnv,
    ledger::{Ledger, Move, event},
    wait_until,
};
use tokio::sync::Barrier;

use crate::{
    SOON,
    roles::{dead, dead_letters, entries_are, summary},
    stores::for_each_store,
};

/// The number of dead letters replayed and skipped at once.
const ROUNDS: usize = 40;

for_each_store! {
    async fn replay_unblocks_a_poisoned_stream_in_order(storage) {
        let env = TestEnv::new("poison", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let poisoned = |n, fact: Move| event("shop", "account/a", n, &fact);
        env
            .publish(&[
                poisoned(1, Move::Add(1)),
                poisoned(2, Move::PoisonUntilFixed),
                poisoned(3, Move::Add(1)),
                event("web", "account/a", 1, &Move::Add(1)),
                event("shop", "account/b", 1, &Move::Add(1)),
                poisoned(4, Move::Add(1)),
            ])
            .await;
        let dead_before = dead_letters(&store, 1).await;
        assert!(dead_before[0].blocks);
        assert_eq!(dead_before[0].reason, "breaks a rule");
        assert_eq!(dead_before[0].detail, "not fixed");
        entries_are(&store, "account/a", &["shop 1", "web 1"]).await;
        entries_are(&store, "account/b", &["shop 1"]).await;
        wait_until("two are deferred", SOON, async || summary(&store).await.usage.deferred.rows == 2).await;
        assert_eq!(summary(&store).await.blocked, 1);

        // All other streams continue; a later event of the same stream is deferred.
        env.publish(&[event("shop", "account/b", 2, &Move::Add(1)), poisoned(5, Move::Add(1))]).await;
        entries_are(&store, "account/b", &["shop 1", "shop 2"]).await;
        wait_until("three are deferred", SOON, async || summary(&store).await.usage.deferred.rows == 3).await;

        // Replayed before the fix, it becomes a new dead letter, and the old one is resolved.
        operate::replay(&store, &dead_before[0].id, Timestamp::now()).await.unwrap();
        wait_until("it was refused anew", SOON, async || summary(&store).await.tally.dead_letters == 2).await;
        let again = dead_letters(&store, 1).await;
        assert_eq!(again[0].attempts, 2);
        let settled = operate::replay(&store, &dead_before[0].id, Timestamp::now()).await.unwrap_err();
        let is_reported = matches!(&settled, OperateError::RefusedAnew { now, .. } if *now == again[0].id);
        assert!(is_reported, "{settled}");

        env.publish(&[event("fix", "account/a", 1, &Move::Fix)]).await;
        entries_are(&store, "account/a", &["shop 1", "web 1", "fix 1"]).await;
        operate::replay(&store, &again[0].id, Timestamp::now()).await.unwrap();
        let all = ["shop 1", "web 1", "fix 1", "shop 2", "shop 3", "shop 4", "shop 5"];
        entries_are(&store, "account/a", &all).await;
        assert!(dead(&store).await.is_empty());
        let after = summary(&store).await;
        assert_eq!((after.blocked, after.usage.deferred.rows, after.tally.replayed), (0, 0, 1));
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn skip_unblocks_a_poisoned_stream(storage) {
        let env = TestEnv::new("poison", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        for (n, fact) in [Move::Poison, Move::Add(1), Move::Poison, Move::Add(1)].iter().enumerate() {
            env.publish(&[event("shop", "account/a", n as u64 + 1, fact)]).await;
        }
        let first = dead_letters(&store, 1).await;
        operate::skip(&store, &first[0].id, Timestamp::now()).await.unwrap();
        entries_are(&store, "account/a", &["shop 2"]).await;
        // The second poison event was deferred behind the first, and is rejected now that it is next.
        let second = dead_letters(&store, 1).await;
        assert_ne!(second[0].id, first[0].id);
        operate::skip(&store, &second[0].id, Timestamp::now()).await.unwrap();
        entries_are(&store, "account/a", &["shop 2", "shop 4"]).await;
        let again = operate::skip(&store, &first[0].id, Timestamp::now()).await.unwrap_err();
        assert!(again.to_string().starts_with("already resolved: "), "{again}");
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn concurrent_replay_and_skip_have_one_winner(storage) {
        let env = TestEnv::new("poison", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let account = |round: usize| format!("account/{round:02}");
        let mut events = Vec::new();
        for round in 0..ROUNDS {
            let account = account(round);
            events.push(event("shop", &account, 1, &Move::PoisonUntilFixed));
            events.push(event("shop", &account, 2, &Move::Add(1)));
            events.push(event("fix", &account, 1, &Move::Fix));
        }
        env.publish(&events).await;
        let dead_before = dead_letters(&store, ROUNDS).await;
        for round in 0..ROUNDS {
            entries_are(&store, &account(round), &["fix 1"]).await;
        }

        let (one, other) = (storage.open(), storage.open());
        for (round, letter) in dead_before.iter().enumerate() {
            let line = Arc::new(Barrier::new(2));
            let replay = tokio::spawn({
                let (store, id, line) = (one.clone(), letter.id.clone(), Arc::clone(&line));
                async move {
                    line.wait().await;
                    operate::replay(&store, &id, Timestamp::now()).await
                }
            });
            let skip = tokio::spawn({
                let (store, id) = (other.clone(), letter.id.clone());
                async move {
                    line.wait().await;
                    operate::skip(&store, &id, Timestamp::now()).await
                }
            });
            let (replayed, skipped) = (replay.await.unwrap(), skip.await.unwrap());
            let subject = letter.event.as_ref().unwrap().subject.to_string();
            let (loser, entries): (_, &[&str]) = match (replayed, skipped) {
                (Ok(()), Err(loser)) => (loser, &["fix 1", "shop 1", "shop 2"]),
                (Err(loser), Ok(())) => (loser, &["fix 1", "shop 2"]),
                (Ok(()), Ok(())) => panic!("both have won round {round}"),
                (Err(a), Err(b)) => panic!("no winner in round {round}: {a}; {b}"),
            };
            assert!(matches!(loser, OperateError::AlreadySettled(_)), "{loser}");
            assert!(loser.to_string().starts_with("already resolved: "), "{loser}");
            entries_are(&store, &subject, entries).await;
        }
        assert!(dead(&store).await.is_empty());
        let after = summary(&store).await;
        assert_eq!((after.blocked, after.usage.deferred.rows), (0, 0));
        assert_eq!(after.tally.replayed + after.tally.skipped, ROUNDS as u64);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_skipped_gap_unblocks_its_stream(storage) {
        let env = TestEnv::new("poison", &[LEDGER]).await;
        let store = storage.open();
        let role = env.start(Ledger, storage.open());
        let e = |n| event("shop", "account/a", n, &Move::Add(1));
        env.publish(&[e(1), e(4), e(5)]).await;
        wait_until("two are deferred", SOON, async || summary(&store).await.usage.deferred.rows == 2).await;
        let gaps = store.gaps(Timestamp::MAX, Timestamp::MAX, 10).await.unwrap();
        assert_eq!((gaps.len(), gaps[0].from, gaps[0].to), (1, 2, 3));
        operate::skip_gap(&store, &gaps[0].stream, 2, 3, Timestamp::now()).await.unwrap();
        entries_are(&store, "account/a", &["shop 1", "shop 4", "shop 5"]).await;
        // The missing event arrives after all: it was skipped, and stays skipped.
        env.publish(&[e(2), e(3), e(6)]).await;
        entries_are(&store, "account/a", &["shop 1", "shop 4", "shop 5", "shop 6"]).await;
        role.stop().await.unwrap();
    }
}
