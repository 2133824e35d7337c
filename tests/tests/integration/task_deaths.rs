//! A thousand tasks in three processes, which are killed at random moments, or by the tasks themselves.

use std::{collections::BTreeMap, time::Duration};

use doorstep_event::{Event, Sequence, Source, Subject, Timestamp};
use doorstep_store::{SqliteStore, Store, sqlite::Options};
use doorstep_tests::{
    Program, RunningProgram, TempDir, TestEnv, WORKS, random_moment, wait_for,
    works::{LogLine, Outside, Work, WorkAsked, WorkJob, quick_limits},
};

use crate::{
    SOON,
    roles::{dead, summary},
};

const WORKERS: usize = 3;
const ROUNDS: usize = 10;
const TASKS_A_ROUND: usize = 100;
/// High enough that random kills make no task poison that crashes nothing by itself.
const MAX_CRASHES: usize = 5;

/// Returns the behaviour of a task: most end at once, and two crash their process.
fn job(number: usize) -> WorkJob {
    match number {
        111 | 555 => WorkJob::Aborts,
        // Longer than the interval of heartbeats.
        _ if number % 50 == 8 => WorkJob::Sleeps { pause: 700 },
        _ => match number % 20 {
            0 => WorkJob::Panics,
            1..=3 => WorkJob::Retried { times: 2 },
            4..=7 => WorkJob::Steps {
                steps: 4,
                pause: 50,
            },
            _ => WorkJob::Quick,
        },
    }
}

fn name(number: usize) -> String {
    format!("work/{number:04}")
}

fn asked(number: usize) -> Event {
    Event::from_contract(
        &Source::new("shop").unwrap(),
        &Subject::new(name(number)).unwrap(),
        Sequence::new(1).unwrap(),
        Timestamp::now(),
        &WorkAsked { job: job(number) },
    )
    .unwrap()
}

/// Processes that are started again when they end.
struct Workers {
    program: Program,
    scratch: TempDir,
    running: Vec<RunningProgram>,
    aborted: usize,
}

impl Workers {
    fn start(program: Program, scratch: TempDir) -> Self {
        let running = (0..WORKERS).map(|_| program.start(&scratch)).collect();
        Self {
            program,
            scratch,
            running,
            aborted: 0,
        }
    }

    fn keep_running(&mut self) {
        for running in &mut self.running {
            if !running.is_running() {
                self.aborted += 1;
                *running = self.program.start(&self.scratch);
            }
        }
    }

    fn kill(&mut self, victim: usize) {
        let started = self.program.start(&self.scratch);
        std::mem::replace(&mut self.running[victim], started).kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_has_one_end_through_deaths() {
    let scratch = TempDir::new("task-deaths");
    let outside = Outside::new(scratch.path());
    let store = SqliteStore::open(scratch.path(), WORKS.role, &Options::default()).unwrap();
    let env = TestEnv::new("task-deaths", &[WORKS]).await;
    let program = Program::works()
        .arg(MAX_CRASHES.to_string())
        .broker(&env.amqp_url())
        .store(scratch.path());
    let mut workers = Workers::start(program, scratch);
    for round in 0..ROUNDS {
        let tasks = round * TASKS_A_ROUND..(round + 1) * TASKS_A_ROUND;
        let events: Vec<_> = tasks.clone().map(asked).collect();
        env.publish(&events).await;
        let what = format!("some tasks of round {round} have begun");
        wait_for(what, SOON, async || {
            workers.keep_running();
            let mut begun = outside.lines().into_iter().map(|line| line.work);
            begun
                .any(|work| tasks.clone().any(|number| name(number) == work))
                .then_some(())
                .ok_or(())
        })
        .await;
        random_moment(Duration::from_millis(rand::random_range(0..400))).await;
        workers.kill(rand::random_range(0..WORKERS));
    }
    let ended = wait_for("every task has ended", SOON * 3, async || {
        workers.keep_running();
        let ended = works(&store).await;
        let live = store.tasks(Default::default(), None, 3).await.unwrap();
        if ended.len() == ROUNDS * TASKS_A_ROUND && live.is_empty() {
            Ok(ended)
        } else {
            Err((ended.len(), live))
        }
    })
    .await;
    check_outside(&outside.lines());
    check_ends(&store, &ended).await;
    // Each of the two tasks has crashed as many processes as it may.
    assert!(
        workers.aborted > 2 * (MAX_CRASHES - 1),
        "{}",
        workers.aborted
    );
}

/// Returns all works.
async fn works(store: &SqliteStore) -> BTreeMap<String, Work> {
    let rows = store
        .entities(None, 2 * ROUNDS * TASKS_A_ROUND)
        .await
        .unwrap();
    let read = |state: &bytes::Bytes| serde_json::from_slice(state).unwrap();
    rows.iter()
        .filter_map(|row| Some((row.key.to_string(), read(row.state.as_ref()?))))
        .collect()
}

/// Checks that each task has one result, or is a dead letter that the role has heard of once.
async fn check_ends(store: &SqliteStore, ended: &BTreeMap<String, Work>) {
    let (mut dead_by_task, mut done) = (BTreeMap::new(), 0);
    for dead in dead(store).await {
        let task = dead.task.expect("the dead letter of a task").to_string();
        dead_by_task.insert(task, dead.reason);
    }
    for number in 0..ROUNDS * TASKS_A_ROUND {
        let (name, job) = (name(number), job(number));
        let work = &ended[&name];
        let reason = match &job {
            WorkJob::Aborts => Some("poison"),
            WorkJob::Panics => Some("task panicked"),
            _ => None,
        };
        let ends = (work.results.len(), work.endings.len());
        let expected = if reason.is_some() { (0, 1) } else { (1, 0) };
        assert_eq!(ends, expected, "{name} {job:?}: {work:?}");
        assert_eq!(
            dead_by_task.remove(&name).as_deref(),
            reason,
            "{name} {job:?}"
        );
        done += ends.0 as u64;
    }
    assert!(dead_by_task.is_empty(), "{dead_by_task:?}");
    assert_eq!(summary(store).await.tally.tasks_done, done);
}

/// Checks that no task has run in two places at once. A process that stands still for longer than a lease cannot stop
/// its tasks in time, and is the only exception.
fn check_outside(lines: &[LogLine]) {
    let mut by_work: BTreeMap<&str, Vec<&LogLine>> = BTreeMap::new();
    for line in lines {
        by_work.entry(&line.work).or_default().push(line);
    }
    let lease = quick_limits().task_lease;
    let taken_over_after = i64::try_from((lease + lease / 4).as_millis()).unwrap();
    let mut repeated = 0;
    for (work, lines) in by_work {
        let begins: Vec<_> = lines.iter().filter(|line| line.what == "begin").collect();
        repeated += usize::from(begins.len() > 1);
        assert!(
            begins.is_sorted_by_key(|line| line.token),
            "{work}: {lines:?}"
        );
        for next in &begins[1..] {
            let began = lines.iter().position(|line| line == *next).unwrap();
            let late = lines[began..].iter().find(|line| line.token < next.token);
            let first = late.and_then(|late| begins.iter().find(|line| line.token == late.token));
            let beside = first.map(|first| next.at - first.at);
            assert!(
                beside.is_none_or(|ms| ms >= taken_over_after),
                "{work}: {lines:?}"
            );
        }
    }
    assert!(repeated > 0, "no task was interrupted");
}
