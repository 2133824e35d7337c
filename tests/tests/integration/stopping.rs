//! How running roles end: at once when asked twice, in time when the broker hangs, and not before what they owe has gone out.

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

/// How many copies of dead letters a role owes.
const OWED: u64 = 20;
/// A start of a broker takes its time on a busy machine.
const LONG: Duration = Duration::from_secs(240);

impl Office {
    fn inventory(&self, grace: &str) -> RunningProgram {
        self.consumers(&["run", "inventory", "--grace", grace])
            .start(&self.scratch)
    }

    /// How many rows the role's outbox has.
    async fn owed(&self) -> u64 {
        let stores = self.scratch.join("stores");
        match SqliteStore::open_read_only(&stores, "inventory", &Options::default()) {
            Ok(store) => summary(&store).await.usage.outbox.rows,
            Err(_) => 0,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_signal_ends_at_once_and_after_one_alone_all_that_is_owed_goes_out() {
    const HINDERED: &str = "the outbox keeps what could not be sent";
    // Two signals that arrive together count as one.
    const ASKED: &str = "a second signal ends at once";
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("stopping")));
    let node = node.await.unwrap().unwrap();
    let office = Office {
        world: TestEnv::on(&node.broker(), "stopping", &ROLES).await,
        scratch: TempDir::new("stopping"),
    };
    // Each is refused for good, so that the role owes a copy of it, which a broker without memory does not take.
    let refused: Vec<Event> = (1..=OWED)
        .map(|n| Event {
            event_type: EventType::new("stock.adjusted.v9").unwrap(),
            ..moved(&n.to_string(), 1, -1)
        })
        .collect();
    office.world.publish(&refused).await;
    block_in_place(|| node.block_publishers()).unwrap();

    // Asked once, it would wait for the broker for as long as its grace is; asked twice, it does not.
    let run = office.inventory("10m");
    run.says(HINDERED, LONG).await;
    wait_until("all copies are owed", SOON, async || {
        office.owed().await == OWED
    })
    .await;
    run.terminate();
    run.says(ASKED, LONG).await;
    run.terminate();
    let ended = run.ended(SOON).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    let at_once = "ended at once";
    assert!(ended.stderr.contains(at_once), "{}", ended.stderr);
    assert_eq!(office.owed().await, OWED);

    // A broker that hangs keeps each part of the role for as long as it may, and all of them together for no longer: else the program would
    // call that a mistake of its own.
    let run = office.inventory("5s");
    run.says(HINDERED, LONG).await;
    block_in_place(|| node.freeze()).unwrap();
    run.terminate();
    let ended = run.ended(LONG).await;
    block_in_place(|| node.thaw()).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(office.owed().await, OWED);

    // Asked while the broker takes nothing, it sends all of it once the broker takes it again.
    let run = office.inventory("10m");
    run.says(HINDERED, LONG).await;
    run.terminate();
    run.says(ASKED, LONG).await;
    block_in_place(|| node.unblock_publishers()).unwrap();
    let ended = run.ended(LONG).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(office.owed().await, 0);
    // Once each, and again what had been handed over to the broker that hung.
    let copies = office.world.namespace().dead_queue("inventory");
    wait_for("all copies are there", LONG, async || {
        match office.world.try_depth(&copies).await {
            Ok(depth) if depth.ready >= OWED => Ok(()),
            other => Err(other),
        }
    })
    .await;
    block_in_place(|| drop(node));
}
