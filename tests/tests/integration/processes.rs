//! Real processes that are killed while they are busy.

use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{Program, RunningProgram, retail::Stock, wait_for, wait_until};

use crate::{
    SOON,
    operator::{Office, moved},
    roles::summary,
};

const CODES: u64 = 20;
const MOVEMENTS: u64 = 150;

impl Office {
    /// How many events the role's store has applied.
    async fn applied(&self) -> u64 {
        let stores = self.scratch.join("stores");
        match SqliteStore::open_read_only(&stores, "inventory", &Options::default()) {
            Ok(store) => summary(&store).await.tally.applied,
            Err(_) => 0,
        }
    }

    async fn has_applied(&self, count: u64) {
        wait_for(format!("{count} events are applied"), SOON, async || {
            let applied = self.applied().await;
            if applied >= count {
                Ok(())
            } else {
                Err(applied)
            }
        })
        .await;
    }

    /// Publishes all movements of all codes, turn and turn about.
    async fn publish_movements(&self) {
        let events: Vec<_> = (1..=MOVEMENTS)
            .flat_map(|n| (0..CODES).map(move |code| moved(&format!("{code:02}"), n, -1)))
            .collect();
        self.world.publish(&events).await;
    }

    /// In small bites, so that there is time to be killed in between.
    fn slow_inventory(&self) -> Program {
        self.consumers(&["run", "inventory", "--batch", "5", "--prefetch", "40"])
    }

    /// Everything was applied once, and nothing is left.
    async fn all_is_right(&self) {
        self.told(&["run", "inventory", "--until-idle", "1s"]).await;
        let all = Stock::read_all(&self.told(&["export", "inventory"]).await);
        assert_eq!(all.len() as u64, CODES);
        for (key, stock) in all {
            assert_eq!(stock.movements, MOVEMENTS as i64, "{key}");
            assert_eq!(stock.on_hand, -(MOVEMENTS as i64), "{key}");
        }
        assert_eq!(self.applied().await, CODES * MOVEMENTS);
        let queue = self.world.namespace().role_queue("inventory", 0);
        self.world.depth_is(&queue, 0, 0, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_are_killed_while_they_are_busy_apply_every_event_once() {
    let office = Office::new("killed").await;
    office.publish_movements().await;
    for kill in 1..=6 {
        let run = office.slow_inventory().start(&office.scratch);
        // Not all of it comes from what was settled before: the next one starts amid what this one has left.
        office.has_applied(kill * CODES * MOVEMENTS / 10).await;
        assert!(run.kill());
    }
    assert!(
        office.applied().await < CODES * MOVEMENTS,
        "they were never busy"
    );
    office.all_is_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_store_and_one_goes_on_when_the_other_is_killed() {
    let office = Office::new("pair").await;
    let mut pair: Vec<RunningProgram> = (0..2)
        .map(|_| office.slow_inventory().start(&office.scratch))
        .collect();
    let queue = office.world.namespace().role_queue("inventory", 0);
    let view = office.world.view();
    wait_until("both consume", SOON, async || {
        view.consumers()
            .iter()
            .filter(|(q, _)| *q == queue.as_str())
            .count()
            == 2
    })
    .await;
    office.publish_movements().await;
    for kill in 1..=4 {
        office.has_applied(kill * CODES * MOVEMENTS / 10).await;
        // Whichever of them is active now, in the end each was among the killed.
        assert!(pair.remove(0).kill());
        pair.push(office.slow_inventory().start(&office.scratch));
    }
    assert!(
        office.applied().await < CODES * MOVEMENTS,
        "they were never busy"
    );
    office.has_applied(CODES * MOVEMENTS).await;
    for run in &mut pair {
        assert!(run.is_running(), "{}", run.stderr());
    }
    drop(pair);
    office.all_is_right().await;
}
