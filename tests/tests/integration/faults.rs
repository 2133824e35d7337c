//! Every fault of a wire at every word of a role's conversation: nothing is lost, nothing applied twice, all in order.

use std::time::Duration;

use doorstep_store::{MemoryStore, Store};
use doorstep_tests::{
    LEDGER, Point, RoleProcess, TestEnv, WireFault,
    ledger::{Ledger, Move, entries, event},
    wait_for, wait_until,
};

use crate::{
    SOON,
    roles::{Heard, LISTENER, Listener, dead, summary},
    shelf::{InSqlite, Shelf},
};

/// How many events of a stream meet a fault; each fourth makes the role publish something.
const COUNT: u64 = 40;
const TELLS: u64 = COUNT / 4;

/// A role that tells another what it does, over a wire that has each fault once, always at the same word.
async fn role_meets_all(point: Point) {
    let world = TestEnv::new("faults", &[LEDGER, LISTENER]).await;
    let proxy = world.proxy().await;
    let mut settings = world.run_settings();
    settings.broker = world.settings_by(&proxy);
    // So that silence is noticed within seconds.
    settings.broker.heartbeat = Duration::from_secs(1);
    settings.broker.connect_timeout = Duration::from_secs(3);
    settings.broker.settle_timeout = Duration::from_secs(2);
    settings.broker.confirm_timeout = Duration::from_secs(3);
    let shelf = InSqlite::new("ledger");
    let store = shelf.open();
    let role = RoleProcess::start(Ledger, shelf.open(), settings);
    let heard = MemoryStore::new("listener");
    let listener = world.start(Listener, heard.clone());
    role.taking(SOON).await;
    let mut sprung = proxy.triggered();
    for (number, fault) in WireFault::ALL.into_iter().enumerate() {
        let name = format!("{point:?} {fault:?}");
        let account = format!("account/{number}");
        let events: Vec<_> = (1..=COUNT)
            .map(|n| match n % 4 {
                0 => event("shop", &account, n, &Move::Tell),
                _ => event("shop", &account, n, &Move::Add(1)),
            })
            .collect();
        proxy.at(point, fault);
        if point == Point::DeclareOk {
            proxy.cut();
        }
        let (before, after) = events.split_at(events.len() / 2);
        world.publish(before).await;
        let happened = sprung.wait_for(|times| *times == number as u64 + 1);
        tokio::time::timeout(SOON, happened)
            .await
            .unwrap_or_else(|_| panic!("{name} did not happen"))
            .unwrap();
        world.publish(after).await;
        let all: Vec<_> = (1..=COUNT).map(|n| format!("shop {n}")).collect();
        let told: Vec<_> = (1..=TELLS).map(|n| format!("shop {}", 4 * n)).collect();
        wait_for(format!("all is applied after {name}"), SOON, async || {
            let applied = entries(&store, &account).await;
            let heard = heard_of(&heard, &account).await;
            if applied == all && heard == told {
                Ok(())
            } else {
                Err((applied, heard))
            }
        })
        .await;
    }
    world.all_is_settled(&role, "ledger", SOON).await;
    wait_until("the role is well", SOON, async || {
        role.status().degraded.is_empty()
    })
    .await;
    // A row whose confirm was lost is sent once more, a moment later.
    wait_until("nothing is owed", SOON, async || {
        summary(&store).await.usage.outbox.rows == 0
    })
    .await;
    role.stop().await.unwrap();
    listener.stop().await.unwrap();
    let after = summary(&store).await;
    let rounds = WireFault::ALL.len() as u64;
    assert_eq!(after.tally.applied, rounds * COUNT);
    assert_eq!((after.usage.held.rows, after.usage.outbox.rows), (0, 0));
    assert_eq!(summary(&heard).await.tally.applied, rounds * TELLS);
    assert!(dead(&store).await.is_empty());
    world
        .depth_is(&world.namespace().role_queue("ledger", 0), 0, 0, SOON)
        .await;
}

/// What the listener was told about an account, in order.
async fn heard_of(store: &MemoryStore, account: &str) -> Vec<String> {
    let key = format!("told/{account}");
    let rows = store.entities(None, 1000).await.unwrap();
    let row = rows.into_iter().find(|row| row.key.as_str() == key);
    let state = row.and_then(|row| row.state);
    state.map_or_else(Vec::new, |json| {
        serde_json::from_slice::<Heard>(&json).unwrap().0
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_survives_every_fault_before_a_delivery() {
    role_meets_all(Point::Deliver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_survives_every_fault_before_an_acknowledgement() {
    role_meets_all(Point::Ack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_survives_every_fault_before_its_outbox_is_confirmed() {
    role_meets_all(Point::Confirm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_survives_every_fault_while_it_declares() {
    role_meets_all(Point::DeclareOk).await;
}
