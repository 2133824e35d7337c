//! Real processes that are killed while they are busy.

use std::{ops::RangeInclusive, time::Duration};

use doorstep_broker::{Signal, send_signal};
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{Program, RunningProgram, random_moment, retail::Stock, wait_for, wait_until};

use crate::{
    SOON,
    operator::{Office, moved},
    roles::summary,
};

const CODES: u64 = 20;
const MOVEMENTS: u64 = 140;
/// The number of kills.
const KILLS: u64 = 6;
/// The number of restarts of a role under load.
const ROUNDS: u64 = 5;

/// The movements published between two kills; the last part is left to the surviving processes.
fn part(kill: u64) -> RangeInclusive<u64> {
    const PART: u64 = MOVEMENTS / (KILLS + 1);
    (kill - 1) * PART + 1..=kill * PART
}

/// Returns the number of events published up to and including that part.
fn upto(kill: u64) -> u64 {
    part(kill).end() * CODES
}

/// Returns the number of events applied at the kill: the first few of the part.
fn amid(kill: u64) -> u64 {
    (part(kill).start() - 1) * CODES + 10
}

impl Office {
    /// Returns the number of events that the role's store has applied.
    async fn applied(&self) -> u64 {
        let stores = self.scratch.join("stores");
        match SqliteStore::open_read_only(&stores, "inventory", &Options::default()) {
            Ok(store) => summary(&store).await.tally.applied,
            Err(_) => 0,
        }
    }

    pub(crate) async fn has_applied(&self, count: u64) {
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

    /// Publishes these movements of all codes, in turn.
    async fn publish_movements(&self, numbers: RangeInclusive<u64>) {
        let events: Vec<_> = numbers
            .flat_map(|n| (0..CODES).map(move |code| moved(&format!("{code:02}"), n, -1)))
            .collect();
        self.env.publish(&events).await;
    }

    /// Returns the role with small batches, so that kills strike between them.
    fn slow_inventory(&self) -> Program {
        self.consumers(&["run", "inventory", "--batch-size", "5", "--prefetch", "40"])
    }

    /// Checks that everything was applied once and the queue is empty.
    async fn all_is_right(&self) {
        self.output(&["run", "inventory", "--exit-when-idle", "1s"])
            .await;
        let all = Stock::read_all(&self.output(&["export", "inventory"]).await);
        assert_eq!(all.len() as u64, CODES);
        for (key, stock) in all {
            assert_eq!(stock.movements, MOVEMENTS as i64, "{key}");
            assert_eq!(stock.on_hand, -(MOVEMENTS as i64), "{key}");
        }
        assert_eq!(self.applied().await, CODES * MOVEMENTS);
        let queue = self.env.namespace().role_queue("inventory", 0);
        self.env.depth_is(&queue, 0, 0, SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_consumers_apply_every_event_once() {
    let office = Office::new("killed").await;
    let mut amid_work = 0;
    for kill in 1..=KILLS {
        let run = office.slow_inventory().start(&office.scratch);
        // Later progress is not only from acknowledged deliveries: the next process starts amid the backlog of this
        // one.
        let killed = async {
            office.has_applied(amid(kill)).await;
            assert!(run.kill());
        };
        tokio::join!(office.publish_movements(part(kill)), killed);
        amid_work += u64::from(office.applied().await < upto(kill));
    }
    println!("measured: {amid_work} of {KILLS} were killed amid their work");
    office.publish_movements(part(KILLS + 1)).await;
    office.all_is_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_processes_survives_a_kill() {
    let office = Office::new("pair").await;
    let mut pair: Vec<RunningProgram> = (0..2)
        .map(|_| office.slow_inventory().start(&office.scratch))
        .collect();
    let queue = office.env.namespace().role_queue("inventory", 0);
    let view = office.env.view();
    wait_until("both consume", SOON, async || {
        view.consumers()
            .iter()
            .filter(|(q, _)| *q == queue.as_str())
            .count()
            == 2
    })
    .await;
    let mut amid_work = 0;
    for kill in 1..=KILLS {
        let killed = async {
            office.has_applied(amid(kill)).await;
            // Whichever of them is active, each was killed in the end.
            assert!(pair.remove(0).kill());
        };
        tokio::join!(office.publish_movements(part(kill)), killed);
        amid_work += u64::from(office.applied().await < upto(kill));
        pair.push(office.slow_inventory().start(&office.scratch));
    }
    println!("measured: {amid_work} of {KILLS} kills came amid the work of both");
    office.publish_movements(part(KILLS + 1)).await;
    office.has_applied(CODES * MOVEMENTS).await;
    for run in &mut pair {
        assert!(run.is_running(), "{}", run.stderr());
    }
    drop(pair);
    office.all_is_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_process_keeps_until_idle_running() {
    let office = Office::new("frozen").await;
    let queue = office.env.namespace().role_queue("inventory", 0);
    let frozen = office
        .consumers(&["run", "inventory"])
        .start(&office.scratch);
    office.env.depth_is(&queue, 0, 1, SOON).await;
    send_signal(frozen.id(), Signal::Freeze).unwrap();
    let events: Vec<_> = (1..=10).map(|n| moved("85123A", n, -1)).collect();
    office.env.publish(&events).await;
    // All deliveries are in flight to the frozen process.
    office.env.depth_is(&queue, 0, 1, SOON).await;

    let mut run = office
        .consumers(&["run", "inventory", "--exit-when-idle", "1s"])
        .start(&office.scratch);
    wait_for("it sees that it is not alone", SOON, async || {
        let log = run.stderr();
        let sees = log.contains("another process works these queues, too");
        if sees { Ok(()) } else { Err(log) }
    })
    .await;
    // Several times the window, in which unacknowledged deliveries are invisible.
    random_moment(Duration::from_secs(4)).await;
    assert!(run.is_running(), "{}", run.stderr());
    assert!(frozen.kill());
    office.has_applied(10).await;
    // It keeps waiting; the results are there.
    drop(run);
    office
        .output(&["run", "inventory", "--exit-when-idle", "1s"])
        .await;
    let all = Stock::read_all(&office.output(&["export", "inventory"]).await);
    assert_eq!(all["stock/85123A"].movements, 10);
}

/// Parses the numbers of events that a process reports at its end.
fn said_at_its_end(stderr: &str) -> (u64, u64) {
    let lines = stderr
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let ends = lines
        .filter_map(Result::ok)
        .filter(|line| line["message"] == "ended");
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends.len(), 1, "{stderr}");
    let count = |name: &str| ends[0][name].as_u64().unwrap();
    (count("applied"), count("duplicates"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_applies_every_event_once() {
    let office = Office::new("rolling").await;
    let queue = office.env.namespace().role_queue("inventory", 0);
    let view = office.env.view();
    let consuming = async |count: usize| {
        wait_until("so many consume", SOON, async || {
            let consumers = view.consumers();
            consumers
                .iter()
                .filter(|(q, _)| *q == queue.as_str())
                .count()
                == count
        })
        .await;
    };
    let start = || {
        let run = [
            "run",
            "inventory",
            "--batch-size",
            "20",
            "--prefetch",
            "200",
        ];
        let run = office
            .consumers(&run)
            .variable("DOORSTEP_LOG_FORMAT", "json");
        run.start(&office.scratch)
    };
    let mut running = start();
    consuming(1).await;
    let (mut applied, mut duplicates) = (0, 0);
    for round in 0..ROUNDS {
        let part = round * MOVEMENTS / ROUNDS + 1..=(round + 1) * MOVEMENTS / ROUNDS;
        let events: Vec<_> = part
            .flat_map(|n| (0..CODES).map(move |code| moved(&format!("{code:02}"), n, -1)))
            .collect();
        let next = start();
        consuming(2).await;
        let stopped = async {
            // Amid its work: most of the events published now are still to come.
            office
                .has_applied(round * CODES * MOVEMENTS / ROUNDS + 50)
                .await;
            running.terminate();
            std::mem::replace(&mut running, next).ended(SOON).await
        };
        let ((), ended) = tokio::join!(office.env.publish(&events), stopped);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let said = said_at_its_end(&ended.stderr);
        assert!(said.0 > 0, "{}", ended.stderr);
        applied += said.0;
        duplicates += said.1;
        consuming(1).await;
    }
    office.has_applied(CODES * MOVEMENTS).await;
    office.env.depth_is(&queue, 0, 1, SOON).await;
    running.terminate();
    let ended = running.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = said_at_its_end(&ended.stderr);
    let seen = (applied + said.0, duplicates + said.1);
    assert_eq!(seen, (CODES * MOVEMENTS, 0), "applied and duplicates");
    office.all_is_right().await;
}
