//! A store whose files are moved away or deleted under a running role.

use std::{fs, path::Path};

use doorstep_event::Event;
use doorstep_runtime::runner::{Phase, RunError};
use doorstep_store::{SqliteStore, StoreError, sqlite::Options};
use doorstep_tests::{
    LEDGER, RoleProcess, TempDir, TestEnv,
    ledger::{Ledger, Move, entries, event},
    wait_for,
};

use crate::{SOON, roles::summary};

/// The events of each half.
const HALF: u64 = 30;

fn half(number: u64) -> Vec<Event> {
    (number * HALF + 1..=(number + 1) * HALF)
        .map(|n| event("shop", "account/a", n, &Move::Add(1)))
        .collect()
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, "ledger", &Options::default()).unwrap()
}

async fn is_paused(role: &RoleProcess, says: &str) {
    wait_for("the role is paused", SOON, async || {
        match role.status().phase {
            Phase::Paused { reason } if reason.contains(says) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_displaced_store_acknowledges_nothing() {
    let env = TestEnv::new("displaced", &[LEDGER]).await;
    let queue = env.namespace().role_queue("ledger", 0);
    let scratch = TempDir::new("displaced");
    let (place, away) = (scratch.join("place"), scratch.join("away"));
    let store = open(&place);
    let role = env.start(Ledger, store.clone());
    env.publish(&half(0)).await;
    env.all_is_acked(&role, "ledger", SOON).await;

    fs::rename(&place, &away).unwrap();
    // An idle role becomes unready, too.
    is_paused(&role, "moved away or deleted").await;
    env.publish(&half(1)).await;
    wait_for("all of them are delivered", SOON, async || {
        match role.status().unacked as u64 {
            HALF => Ok(()),
            other => Err(other),
        }
    })
    .await;
    is_paused(&role, "moved away or deleted").await;
    fs::rename(&away, &place).unwrap();
    role.consuming(SOON).await;
    env.all_is_acked(&role, "ledger", SOON).await;

    // If the store is deleted, deliveries are redelivered to the next store's role.
    let backup = scratch.join("backup");
    role.stop().await.unwrap();
    // Closing checkpoints its log into the file.
    store.close().await;
    fs::create_dir(&backup).unwrap();
    fs::copy(place.join("ledger.sqlite3"), backup.join("ledger.sqlite3")).unwrap();
    let role = env.start(Ledger, open(&place));
    role.consuming(SOON).await;
    fs::remove_dir_all(&place).unwrap();
    env.publish(&half(2)).await;
    is_paused(&role, "moved away or deleted").await;
    // Waiting does not help once there is another file.
    fs::rename(&backup, &place).unwrap();
    match role.ended(SOON).await {
        Err(RunError::Store(StoreError::Unusable { detail, .. })) => {
            assert!(detail.contains("start again"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    env.depth_is(&queue, HALF, 0, SOON).await;

    let store = open(&place);
    let role = env.start(Ledger, store.clone());
    env.all_is_acked(&role, "ledger", SOON).await;
    role.stop().await.unwrap();
    let all: Vec<_> = (1..=3 * HALF).map(|n| format!("shop {n}")).collect();
    assert_eq!(entries(&store, "account/a").await, all);
    assert_eq!(summary(&store).await.tally.applied, 3 * HALF);
}
