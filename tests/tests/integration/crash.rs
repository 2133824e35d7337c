//! Crashes between the commit and what should follow it.

use std::collections::BTreeMap;

use doorstep_event::Timestamp;
use doorstep_runtime::operate;
use doorstep_store::Store;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER, RoleProcess, TestEnv,
    ledger::{Ledger, Move, accounts, event},
    wait_until,
};
use lapin::types::FieldTable;

use crate::{
    SOON,
    roles::{dead, dead_letters, entries_are, summary},
    shelf::on_every_store,
};

/// Runs the ledger until its first batch is written, and ends it before that can be acknowledged: all of these messages come again.
async fn crash_after_the_commit<S: Store>(world: &TestEnv, store: S, messages: u64) {
    let store = FaultyStore::new(store);
    store.set(Fault::HangsAfterCommit);
    let role: RoleProcess = world.start(Ledger, store.clone());
    wait_until("a batch is written", SOON, async || store.hung() == 1).await;
    role.crash();
    let queue = world.namespace().role_queue("ledger", 0);
    world.depth_is(&queue, messages, 0, SOON).await;
}

/// Stops the role, and sees that nothing is left to be done anywhere.
async fn all_is_settled(world: &TestEnv, role: RoleProcess) {
    world.all_is_settled(&role, "ledger", SOON).await;
    role.stop().await.unwrap();
    for queue in [
        world.namespace().role_queue("ledger", 0),
        world.namespace().net_queue("ledger"),
    ] {
        world.depth_is(&queue, 0, 0, SOON).await;
    }
}

on_every_store! {
    async fn a_crash_between_commit_and_ack_changes_nothing_twice(shelf) {
        let world = TestEnv::new("crash", &[LEDGER]).await;
        let wire = world.wire().await;
        wire.declare("told", FieldTable::default()).await;
        wire.bind("told", &world.namespace().events_exchange(), "told.#").await;
        let mut events = Vec::new();
        for n in 1..=30 {
            let fact = match n % 3 {
                0 => Move::Tell,
                1 => Move::Add(7),
                _ => Move::MoveTo("account/b".to_owned(), 2),
            };
            events.push(event("shop", "account/a", n, &fact));
        }
        world.publish(&events).await;

        crash_after_the_commit(&world, shelf.open(), 30).await;
        let store = shelf.open();
        let first = summary(&store).await.tally;
        assert!(first.applied > 0, "the crash came before the commit: {first:?}");

        let role = world.start(Ledger, shelf.open());
        wait_until("every message was worked", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.applied + tally.duplicates == 30 + first.applied
        })
        .await;
        all_is_settled(&world, role).await;

        let tally = summary(&store).await.tally;
        assert_eq!((tally.applied, tally.duplicates), (30, first.applied));
        let accounts: BTreeMap<_, _> = accounts(&store).await.into_iter().collect();
        let in_order: Vec<_> = (1..=30).map(|n| format!("shop {n}")).collect();
        assert_eq!(accounts["account/a"].entries, in_order);
        assert_eq!(accounts["account/a"].balance, 10 * 7 + 10 * 2);
        assert_eq!(accounts["account/b"].balance, -10 * 2);
        // What was emitted has its number and id from the commit, so that a message sent again is no other event.
        let mut told = BTreeMap::new();
        while let Some(message) = wire.take("told").await {
            let id = message.header("cloudEvents:id").to_owned();
            told.insert(id, String::from_utf8(message.body).unwrap());
        }
        let bodies: Vec<_> = told.values().collect();
        assert_eq!(told.len(), 10, "{bodies:?}");
        for (n, body) in (3..=30).step_by(3).map(|n| (n, format!(r#"{{"of":"shop {n}"}}"#))) {
            let id = format!("told/account/a#{}", n / 3);
            assert_eq!(told[&id], body);
        }
    }
}

on_every_store! {
    async fn a_poisoned_original_that_comes_again_after_a_crash_stays_one_dead_letter(shelf) {
        let world = TestEnv::new("crash", &[LEDGER]).await;
        world.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&world, shelf.open(), 3).await;

        let store = shelf.open();
        // It is a dead letter by now, and its message is still in the queue.
        let id = poison_of(&world, &shelf.open()).await;
        let duplicates = summary(&store).await.tally.duplicates;
        let role = world.start(Ledger, shelf.open());
        wait_until("the messages came again", SOON, async || {
            summary(&store).await.tally.duplicates >= duplicates + 2
        })
        .await;
        all_is_settled(&world, role).await;
        let dead = dead_letters(&store, 1).await;
        assert_eq!((&dead[0].id, dead[0].attempts, dead[0].blocks), (&id, 1, true));
        assert_eq!(summary(&store).await.tally.dead, 1);
        assert_eq!(summary(&store).await.usage.held.rows, 1);
        entries_are(&store, "account/a", &["shop 1"]).await;
    }
}

on_every_store! {
    async fn a_poisoned_original_that_comes_again_after_it_was_skipped_is_not_applied(shelf) {
        let world = TestEnv::new("crash", &[LEDGER]).await;
        world.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&world, shelf.open(), 3).await;

        let store = shelf.open();
        // Whatever was not in the first batch is still in the queue, but the poison was: it is the second of three.
        let id = poison_of(&world, &shelf.open()).await;
        operate::skip(&store, &id, Timestamp::now()).await.unwrap();
        let role = world.start(Ledger, shelf.open());
        entries_are(&store, "account/a", &["shop 1", "shop 3"]).await;
        all_is_settled(&world, role).await;
        entries_are(&store, "account/a", &["shop 1", "shop 3"]).await;
        assert!(dead(&store).await.is_empty());
        assert_eq!(summary(&store).await.usage.held.rows, 0);
    }
}

on_every_store! {
    async fn a_poisoned_original_that_comes_again_after_its_replay_is_applied_once(shelf) {
        let world = TestEnv::new("crash", &[LEDGER]).await;
        world.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&world, shelf.open(), 3).await;

        let store = shelf.open();
        let id = poison_of(&world, &shelf.open()).await;
        // Mended, replayed, and all of it before the original comes again, or after: here it waits in the queue all the time.
        world.publish(&[event("fix", "account/a", 1, &Move::Fix)]).await;
        operate::replay(&store, &id, Timestamp::now()).await.unwrap();
        let role = world.start(Ledger, shelf.open());
        // The replay may be worked before the mending has come, and is then refused anew.
        wait_until("it was replayed or refused anew", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.replayed == 1 || tally.dead == 2
        })
        .await;
        if summary(&store).await.tally.replayed == 0 {
            wait_until("the mending has come", SOON, async || {
                accounts(&store).await.iter().any(|(_, account)| account.fixed)
            })
            .await;
            let again = dead_letters(&store, 1).await;
            assert_eq!(again[0].attempts, 2);
            operate::replay(&store, &again[0].id, Timestamp::now()).await.unwrap();
        }
        wait_until("all was applied", SOON, async || summary(&store).await.tally.applied == 4).await;
        all_is_settled(&world, role).await;
        let entries = doorstep_tests::ledger::entries(&store, "account/a").await;
        let of_the_shop: Vec<_> = entries.iter().filter(|e| e.starts_with("shop")).collect();
        assert_eq!(of_the_shop, ["shop 1", "shop 2", "shop 3"]);
        assert!(dead(&store).await.is_empty());
        assert_eq!(summary(&store).await.usage.held.rows, 0);
    }
}

/// A stream whose second event is refused until the account is mended.
fn poisoned(account: &str) -> Vec<doorstep_event::Event> {
    vec![
        event("shop", account, 1, &Move::Add(1)),
        event("shop", account, 2, &Move::PoisonUntilFixed),
        event("shop", account, 3, &Move::Add(1)),
    ]
}

/// The poison's dead letter. If the first batch ended before the poison, crashes go on until a batch has it.
async fn poison_of<S: Store>(world: &TestEnv, store: &S) -> doorstep_store::DeadLetterId {
    for _ in 0..3 {
        if let Some(dead) = dead(store).await.first() {
            return dead.id.clone();
        }
        crash_after_the_commit(world, store.clone(), 3).await;
    }
    panic!("three batches, and none had the poison")
}
