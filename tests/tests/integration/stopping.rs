//! The end of running roles: immediately on the second signal, in time if the broker hangs, and otherwise after the
//! outbox is empty.

use std::time::Duration;

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_event::{Event, EventType};
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{RunningProgram, TempDir, TestEnv, wait_for, wait_until};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    SOON,
    operator::{Office, ROLES, moved},
    roles::summary,
};

/// The number of copies of dead letters in a role's outbox.
const OWED: u64 = 20;
/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);

impl Office {
    fn inventory(&self, shutdown_timeout: &str) -> RunningProgram {
        self.consumers(&["run", "inventory", "--shutdown-timeout", shutdown_timeout])
            .start(&self.scratch)
    }

    /// Returns the number of rows in the role's outbox.
    async fn pending(&self) -> u64 {
        let stores = self.scratch.join("stores");
        match SqliteStore::open_read_only(&stores, "inventory", &Options::default()) {
            Ok(store) => summary(&store).await.usage.outbox.rows,
            Err(_) => 0,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_signal_drains_the_outbox_and_two_exit() {
    const HINDERED: &str = "the outbox keeps the rows that could not be published";
    // Two signals that arrive together count as one.
    const ASKED: &str = "a second signal ends at once";
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("stopping")));
    let node = node.await.unwrap().unwrap();
    let office = Office {
        env: TestEnv::on(&node.broker(), "stopping", &ROLES).await,
        scratch: TempDir::new("stopping"),
    };
    // Each is rejected for good, so that the role has a copy of it to publish, which a broker without memory blocks.
    let rejected: Vec<Event> = (1..=OWED)
        .map(|n| Event {
            event_type: EventType::new("stock.adjusted.v9").unwrap(),
            ..moved(&n.to_string(), 1, -1)
        })
        .collect();
    office.env.publish(&rejected).await;
    block_in_place(|| node.block_publishers()).unwrap();

    // After one signal it would wait for the broker for its whole shutdown timeout; after two it does not.
    let run = office.inventory("10m");
    run.says(HINDERED, LONG).await;
    wait_until("all copies are in the outbox", SOON, async || {
        office.pending().await == OWED
    })
    .await;
    run.terminate();
    run.says(ASKED, LONG).await;
    run.terminate();
    let ended = run.ended(SOON).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    let at_once = "ended at once";
    assert!(ended.stderr.contains(at_once), "{}", ended.stderr);
    assert_eq!(office.pending().await, OWED);

    // A hanging broker delays each part of the role up to its timeout, and all of them together no longer: otherwise
    // the program would report that as a bug of its own.
    let run = office.inventory("5s");
    run.says(HINDERED, LONG).await;
    block_in_place(|| node.freeze()).unwrap();
    run.terminate();
    let ended = run.ended(LONG).await;
    block_in_place(|| node.thaw()).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(office.pending().await, OWED);

    // Stopped while the broker blocks publishing, it publishes everything once the broker continues.
    let run = office.inventory("10m");
    run.says(HINDERED, LONG).await;
    run.terminate();
    run.says(ASKED, LONG).await;
    block_in_place(|| node.unblock_publishers()).unwrap();
    let ended = run.ended(LONG).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(office.pending().await, 0);
    // Each once, and those again that were in flight to the hanging broker.
    let copies = office.env.namespace().dead_letter_queue("inventory");
    wait_for("all copies are there", LONG, async || {
        match office.env.try_depth(&copies).await {
            Ok(depth) if depth.ready >= OWED => Ok(()),
            other => Err(other),
        }
    })
    .await;
    block_in_place(|| drop(node));
}
