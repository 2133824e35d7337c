//! Every connection fault at every AMQP method of a role: no event is lost or applied twice, and all are in order.

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
    stores::{InSqlite, TestStorage},
};

/// The number of events of a stream during a fault; every fourth makes the role publish an event.
const COUNT: u64 = 40;
const TELLS: u64 = COUNT / 4;

/// Runs a role that publishes to another one, over a connection with each fault once, always at the same method.
async fn role_meets_all(point: Point) {
    let env = TestEnv::new("faults", &[LEDGER, LISTENER]).await;
    let proxy = env.proxy().await;
    let mut settings = env.run_settings();
    settings.broker = env.settings_by(&proxy);
    // So that silence is noticed within seconds.
    settings.broker.heartbeat = Duration::from_secs(1);
    settings.broker.connect_timeout = Duration::from_secs(3);
    settings.broker.ack_write_timeout = Duration::from_secs(2);
    settings.broker.confirm_timeout = Duration::from_secs(3);
    let storage = InSqlite::new("ledger");
    let store = storage.open();
    let role = RoleProcess::start(Ledger, storage.open(), settings);
    let heard = MemoryStore::new("listener");
    let listener = env.start(Listener, heard.clone());
    role.consuming(SOON).await;
    let mut triggered = proxy.triggered();
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
        env.publish(before).await;
        let happened = triggered.wait_for(|times| *times == number as u64 + 1);
        tokio::time::timeout(SOON, happened)
            .await
            .unwrap_or_else(|_| panic!("{name} did not happen"))
            .unwrap();
        env.publish(after).await;
        let all: Vec<_> = (1..=COUNT).map(|n| format!("shop {n}")).collect();
        let output: Vec<_> = (1..=TELLS).map(|n| format!("shop {}", 4 * n)).collect();
        wait_for(format!("all is applied after {name}"), SOON, async || {
            let applied = entries(&store, &account).await;
            let heard = heard_of(&heard, &account).await;
            if applied == all && heard == output {
                Ok(())
            } else {
                Err((applied, heard))
            }
        })
        .await;
    }
    env.all_is_acked(&role, "ledger", SOON).await;
    wait_until("the role is ready", SOON, async || {
        role.status().degraded.is_empty()
    })
    .await;
    // A row whose confirm was lost is published again a moment later.
    wait_until("the outbox is empty", SOON, async || {
        summary(&store).await.usage.outbox.rows == 0
    })
    .await;
    role.stop().await.unwrap();
    listener.stop().await.unwrap();
    let after = summary(&store).await;
    let rounds = WireFault::ALL.len() as u64;
    assert_eq!(after.tally.applied, rounds * COUNT);
    assert_eq!((after.usage.deferred.rows, after.usage.outbox.rows), (0, 0));
    assert_eq!(summary(&heard).await.tally.applied, rounds * TELLS);
    assert!(dead(&store).await.is_empty());
    env.depth_is(&env.namespace().role_queue("ledger", 0), 0, 0, SOON)
        .await;
}

/// Returns the listener's events about an account, in order.
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
async fn a_role_survives_every_fault_before_confirms() {
    role_meets_all(Point::Confirm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_survives_every_fault_while_it_declares() {
    role_meets_all(Point::DeclareOk).await;
}
