//! Crashes between the commit and the steps after it.

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
    stores::for_each_store,
};

/// Runs the ledger until its first batch is written, and ends it before it can acknowledge: all of these messages are
/// redelivered.
async fn crash_after_the_commit<S: Store>(env: &TestEnv, store: S, messages: u64) {
    let store = FaultyStore::new(store);
    store.set(Fault::HangsAfterCommit);
    let role: RoleProcess = env.start(Ledger, store.clone());
    wait_until("a batch is written", SOON, async || store.hung() == 1).await;
    role.crash();
    let queue = env.namespace().role_queue("ledger", 0);
    env.depth_is(&queue, messages, 0, SOON).await;
}

/// Stops the role, and checks that no work is left.
async fn all_is_acked(env: &TestEnv, role: RoleProcess) {
    env.all_is_acked(&role, "ledger", SOON).await;
    role.stop().await.unwrap();
    for queue in [
        env.namespace().role_queue("ledger", 0),
        env.namespace().quarantine_queue("ledger"),
    ] {
        env.depth_is(&queue, 0, 0, SOON).await;
    }
}

for_each_store! {
    async fn a_crash_before_the_ack_repeats_nothing(storage) {
        let env = TestEnv::new("crash", &[LEDGER]).await;
        let channel = env.channel().await;
        channel.declare("told", FieldTable::default()).await;
        channel.bind("told", &env.namespace().events_exchange(), "told.#").await;
        let mut events = Vec::new();
        for n in 1..=30 {
            let fact = match n % 3 {
                0 => Move::Tell,
                1 => Move::Add(7),
                _ => Move::MoveTo("account/b".to_owned(), 2),
            };
            events.push(event("shop", "account/a", n, &fact));
        }
        env.publish(&events).await;

        crash_after_the_commit(&env, storage.open(), 30).await;
        let store = storage.open();
        let first = summary(&store).await.tally;
        assert!(first.applied > 0, "the crash came before the commit: {first:?}");

        let role = env.start(Ledger, storage.open());
        wait_until("every message was worked", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.applied + tally.duplicates == 30 + first.applied
        })
        .await;
        all_is_acked(&env, role).await;

        let tally = summary(&store).await.tally;
        assert_eq!((tally.applied, tally.duplicates), (30, first.applied));
        let accounts: BTreeMap<_, _> = accounts(&store).await.into_iter().collect();
        let in_order: Vec<_> = (1..=30).map(|n| format!("shop {n}")).collect();
        assert_eq!(accounts["account/a"].entries, in_order);
        assert_eq!(accounts["account/a"].balance, 10 * 7 + 10 * 2);
        assert_eq!(accounts["account/b"].balance, -10 * 2);
        // An emitted event gets its sequence and id in the commit, so a repeated message is the same event.
        let mut output = BTreeMap::new();
        while let Some(message) = channel.take("told").await {
            let id = message.header("cloudEvents:id").to_owned();
            output.insert(id, String::from_utf8(message.body).unwrap());
        }
        let bodies: Vec<_> = output.values().collect();
        assert_eq!(output.len(), 10, "{bodies:?}");
        for (n, body) in (3..=30).step_by(3).map(|n| (n, format!(r#"{{"of":"shop {n}"}}"#))) {
            let id = format!("told/account/a#{}", n / 3);
            assert_eq!(output[&id], body);
        }
    }
}

for_each_store! {
    async fn a_redelivered_poison_event_stays_one_dead_letter(storage) {
        let env = TestEnv::new("crash", &[LEDGER]).await;
        env.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&env, storage.open(), 3).await;

        let store = storage.open();
        // It is a dead letter by now, and its message is still in the queue.
        let id = poison_of(&env, &storage.open()).await;
        let duplicates = summary(&store).await.tally.duplicates;
        let role = env.start(Ledger, storage.open());
        wait_until("the messages were redelivered", SOON, async || {
            summary(&store).await.tally.duplicates >= duplicates + 2
        })
        .await;
        all_is_acked(&env, role).await;
        let dead = dead_letters(&store, 1).await;
        assert_eq!((&dead[0].id, dead[0].attempts, dead[0].blocks), (&id, 1, true));
        assert_eq!(summary(&store).await.tally.dead_letters, 1);
        assert_eq!(summary(&store).await.usage.deferred.rows, 1);
        entries_are(&store, "account/a", &["shop 1"]).await;
    }
}

for_each_store! {
    async fn a_skipped_poison_event_is_not_applied(storage) {
        let env = TestEnv::new("crash", &[LEDGER]).await;
        env.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&env, storage.open(), 3).await;

        let store = storage.open();
        // The queue still has all messages after the first batch, but the poison event was in it: it is the second of
        // three.
        let id = poison_of(&env, &storage.open()).await;
        operate::skip(&store, &id, Timestamp::now()).await.unwrap();
        let role = env.start(Ledger, storage.open());
        entries_are(&store, "account/a", &["shop 1", "shop 3"]).await;
        all_is_acked(&env, role).await;
        entries_are(&store, "account/a", &["shop 1", "shop 3"]).await;
        assert!(dead(&store).await.is_empty());
        assert_eq!(summary(&store).await.usage.deferred.rows, 0);
    }
}

for_each_store! {
    async fn a_replayed_poison_event_is_applied_once(storage) {
        let env = TestEnv::new("crash", &[LEDGER]).await;
        env.publish(&poisoned("account/a")).await;
        crash_after_the_commit(&env, storage.open(), 3).await;

        let store = storage.open();
        let id = poison_of(&env, &storage.open()).await;
        // Fixed and replayed before the redelivered original arrives, or after it: here it waits in the queue all the
        // time.
        env.publish(&[event("fix", "account/a", 1, &Move::Fix)]).await;
        operate::replay(&store, &id, Timestamp::now()).await.unwrap();
        let role = env.start(Ledger, storage.open());
        // The replay may run before the fix has arrived, and is rejected again then.
        wait_until("it was replayed or refused anew", SOON, async || {
            let tally = summary(&store).await.tally;
            tally.replayed == 1 || tally.dead_letters == 2
        })
        .await;
        if summary(&store).await.tally.replayed == 0 {
            wait_until("the fix has arrived", SOON, async || {
                accounts(&store).await.iter().any(|(_, account)| account.fixed)
            })
            .await;
            let again = dead_letters(&store, 1).await;
            assert_eq!(again[0].attempts, 2);
            operate::replay(&store, &again[0].id, Timestamp::now()).await.unwrap();
        }
        wait_until("all was applied", SOON, async || summary(&store).await.tally.applied == 4).await;
        all_is_acked(&env, role).await;
        let entries = doorstep_tests::ledger::entries(&store, "account/a").await;
        let of_the_shop: Vec<_> = entries.iter().filter(|e| e.starts_with("shop")).collect();
        assert_eq!(of_the_shop, ["shop 1", "shop 2", "shop 3"]);
        assert!(dead(&store).await.is_empty());
        assert_eq!(summary(&store).await.usage.deferred.rows, 0);
    }
}

/// Returns a stream whose second event is rejected until the account is fixed.
fn poisoned(account: &str) -> Vec<doorstep_event::Event> {
    vec![
        event("shop", account, 1, &Move::Add(1)),
        event("shop", account, 2, &Move::PoisonUntilFixed),
        event("shop", account, 3, &Move::Add(1)),
    ]
}

/// Returns the poison event's dead letter. If the first batch ended before the poison event, repeats the crash until a
/// batch contains it.
async fn poison_of<S: Store>(env: &TestEnv, store: &S) -> doorstep_store::DeadLetterId {
    for _ in 0..3 {
        if let Some(dead) = dead(store).await.first() {
            return dead.id.clone();
        }
        crash_after_the_commit(env, store.clone(), 3).await;
    }
    panic!("three batches, and none had the poison")
}
