//! Tasks: their ends, their leases, and the processes that run them. Most tests need no broker.

use std::time::Duration;

use doorstep_event::{Event, RequestResult, Sequence, Source, Subject, Timestamp};
use doorstep_runtime::{
    HandlerLock, Limits,
    operate::{TaskDecision, decide_task, replay},
    runner::{RunError, RunSettings},
    task::{TaskEnding, TaskPolicy, TaskSet, kind_of},
};
use doorstep_store::{
    Candidates, ClaimTasks, CrashCountChange, DeferReason, EntityKey, IfLive, MemoryStore,
    NewDeferred, NewTask, SqliteStore, Store, TaskChange, TaskFilter, TaskHolder, TaskRow,
    TaskState, WriteSet, begin_epoch, sqlite::Options,
};
use doorstep_tests::{
    Fault, FaultyStore, Program, RoleProcess, TempDir, TestEnv, WORKS,
    ledger::{Ledger, Move, event, request},
    run_settings, wait_for, wait_until,
    works::{
        DoWork, OrderWork, Outside, Work, WorkAsked, WorkJob, Works, quick_limits, quick_policy,
        task_id,
    },
};

use crate::{
    SOON,
    roles::{dead, summary},
    stores::for_each_store,
};

/// A lease that no test waits for.
const LONG: Duration = Duration::from_hours(1);

fn settings(limits: Limits) -> RunSettings {
    // An address without a listener.
    let mut settings = run_settings("amqp://127.0.0.1:1", &[]);
    settings.limits = limits;
    settings
}

fn with_policy(outside: &Outside, policy: TaskPolicy) -> TaskSet {
    TaskSet::new().with_policy::<DoWork>(outside.clone(), policy)
}

fn start<S: Store>(outside: &Outside, store: &S) -> RoleProcess {
    start_with(outside, store, quick_policy(), quick_limits())
}

fn start_with<S: Store>(
    outside: &Outside,
    store: &S,
    policy: TaskPolicy,
    limits: Limits,
) -> RoleProcess {
    let tasks = with_policy(outside, policy);
    RoleProcess::start_local(Works, tasks, store.clone(), settings(limits))
}

async fn order(role: &RoleProcess, work: &str, job: Option<WorkJob>) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let id = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let work = work.to_owned();
    let order = OrderWork { work, job };
    let request = request("tests/1", &format!("order-{id}"), Timestamp::now(), &order);
    let answer: RequestResult = role.client().call(request).await.unwrap();
    answer.unwrap();
}

async fn work<S: Store>(store: &S, work: &str) -> Work {
    let rows = store
        .read_entities(vec![EntityKey::new(work)])
        .await
        .unwrap();
    let state = rows[0].state.as_ref();
    state.map_or_else(Work::default, |state| {
        serde_json::from_slice(state).unwrap()
    })
}

async fn task<S: Store>(store: &S, work: &str) -> Option<TaskRow> {
    store
        .read_tasks(vec![task_id(work)])
        .await
        .unwrap()
        .remove(0)
}

/// Waits until the work has this many results and these other ends.
async fn ends<S: Store>(store: &S, name: &str, results: usize, endings: &[TaskEnding]) -> Work {
    let what = format!("{name} has {results} results and {endings:?}");
    wait_for(what, SOON, async || {
        let work = work(store, name).await;
        if work.results.len() == results && work.endings == endings {
            Ok(work)
        } else {
            Err((work, task(store, name).await))
        }
    })
    .await
}

/// Waits until the outside's log has this many of these lines about the work.
async fn logged(outside: &Outside, what: &str, work: &str, times: usize) {
    let wanted = format!("{work} has {times} lines {what}");
    wait_for(wanted, SOON, async || {
        if outside.count(what, work) == times {
            Ok(())
        } else {
            Err(outside.lines())
        }
    })
    .await;
}

async fn no_tasks<S: Store>(store: &S) {
    wait_until("no task is live", SOON, async || {
        store
            .tasks(Default::default(), None, 1)
            .await
            .unwrap()
            .is_empty()
    })
    .await;
}

/// Returns a folder of its own, with the outside in it.
fn outside(hint: &str) -> (TempDir, Outside) {
    let scratch = TempDir::new(hint);
    let outside = Outside::new(scratch.path());
    (scratch, outside)
}

for_each_store! {
    async fn a_result_is_applied_once(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let role = start(&outside, &store);
        let name = "work/1";
        order(&role, name, Some(WorkJob::Quick)).await;
        let done = ends(&store, name, 1, &[]).await;
        assert_eq!(done.results[0].key, format!("doorstep.works/{name}"));
        assert_eq!(done.results[0].attempt, 1);
        no_tasks(&store).await;
        // An id may be used again once its task has ended.
        order(&role, name, Some(WorkJob::Quick)).await;
        ends(&store, name, 2, &[]).await;
        assert_eq!(summary(&store).await.tally.tasks_done, 2);
        assert_eq!(outside.count("begin", name), 2);
        role.stop().await.unwrap();
        assert!(store.task_holders().await.unwrap().is_empty());
    }
}

for_each_store! {
    async fn a_cancelled_task_stops_or_is_unknown(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let role = start(&outside, &store);
        order(&role, "work/waits", Some(WorkJob::Waits)).await;
        order(&role, "work/stubborn", Some(WorkJob::Stubborn)).await;
        // Of dropped code nobody can tell how far it came.
        let ending = [("work/waits", TaskEnding::Cancelled), ("work/stubborn", TaskEnding::Unknown)];
        for (name, ending) in ending {
            logged(&outside, "begin", name, 1).await;
            order(&role, name, None).await;
            ends(&store, name, 0, &[ending]).await;
        }
        assert_eq!(outside.count("cancelled", "work/waits"), 1);
        let left = store.tasks(TaskFilter::default(), None, 9).await.unwrap();
        let left: Vec<_> = left.iter().map(|row| (row.id.as_str(), row.state)).collect();
        assert_eq!(left, [("work/stubborn", TaskState::Unknown)]);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn errors_are_retried_and_others_become_dead_letters(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let policy = TaskPolicy { max_attempts: Some(4), ..quick_policy() };
        let role = start_with(&outside, &store, policy, quick_limits());
        order(&role, "work/retried", Some(WorkJob::Retried { times: 3 })).await;
        assert_eq!(ends(&store, "work/retried", 1, &[]).await.results[0].attempt, 4);
        assert_eq!(outside.count("begin", "work/retried"), 4);
        let dying = [
            ("work/exhausted", WorkJob::Retried { times: 4 }, "task gave up"),
            ("work/failing", WorkJob::Fails, "task failed"),
            ("work/panicking", WorkJob::Panics, "task panicked"),
        ];
        for (name, job, reason) in dying {
            order(&role, name, Some(job)).await;
            ends(&store, name, 0, &[TaskEnding::Failed]).await;
            let letters = dead(&store).await;
            let letter = letters.iter().find(|dead| dead.task == Some(task_id(name))).unwrap();
            assert_eq!(letter.reason, reason);
            replay(&store, &letter.id, Timestamp::now()).await.unwrap();
            ends(&store, name, 0, &[TaskEnding::Failed; 2]).await;
        }
        let letters = dead(&store).await;
        assert_eq!(letters.len(), 3, "{letters:?}");
        assert!(letters.iter().all(|dead| dead.attempts == 2), "{letters:?}");
        no_tasks(&store).await;
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_timeout_is_retried(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let policy = TaskPolicy { timeout: Duration::from_millis(200), ..quick_policy() };
        let role = start_with(&outside, &store, policy, quick_limits());
        order(&role, "work/stubborn", Some(WorkJob::Stubborn)).await;
        order(&role, "work/waits", Some(WorkJob::Waits)).await;
        wait_for("both have timed out", SOON, async || {
            let rows = [task(&store, "work/stubborn").await, task(&store, "work/waits").await];
            let errors = rows.iter().flatten().filter_map(|row| row.error.as_deref());
            let timed_out = errors.filter(|e| e.starts_with("the attempt took longer than")).count();
            if timed_out == 2 { Ok(()) } else { Err(rows) }
        })
        .await;
        outside.release();
        for name in ["work/stubborn", "work/waits"] {
            assert!(ends(&store, name, 1, &[]).await.results[0].attempt > 1);
        }
        assert!(outside.count("timed-out", "work/waits") > 0);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn an_operator_decides(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let role = start(&outside, &store);
        let decisions = [
            ("work/1", TaskDecision::ResolveAsDone, TaskEnding::SettledDone),
            ("work/2", TaskDecision::ResolveAsFailed, TaskEnding::SettledFailed),
            ("work/3", TaskDecision::Cancel, TaskEnding::Cancelled),
            ("work/4", TaskDecision::Retry, TaskEnding::Unknown),
        ];
        for (name, decision, ending) in decisions {
            order(&role, name, Some(WorkJob::Unknown)).await;
            ends(&store, name, 0, &[TaskEnding::Unknown]).await;
            assert_eq!(task(&store, name).await.unwrap().state, TaskState::Unknown);
            decide_task(&store, &task_id(name), decision, Timestamp::now()).await.unwrap();
            ends(&store, name, 0, &[TaskEnding::Unknown, ending]).await;
        }
        let runs = |name| outside.count("begin", name);
        assert_eq!(decisions.map(|(name, ..)| runs(name)), [1, 1, 1, 2]);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn a_stop_releases_tasks_to_another_process(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let limits = Limits { task_lease: LONG, ..quick_limits() };
        let first = start_with(&outside, &store, quick_policy(), limits.clone());
        for (name, job) in [("work/1", WorkJob::Waits), ("work/2", WorkJob::Stubborn)] {
            order(&first, name, Some(job)).await;
            logged(&outside, "begin", name, 1).await;
        }
        let second = start_with(&outside, &storage.open(), quick_policy(), limits);
        first.stop().await.unwrap();
        for name in ["work/1", "work/2"] {
            logged(&outside, "begin", name, 2).await;
            let row = task(&store, name).await.unwrap();
            assert_eq!((row.attempts, row.crashes), (0, 0));
        }
        assert_eq!(outside.count("shutdown", "work/1"), 1);
        outside.release();
        for name in ["work/1", "work/2"] {
            ends(&store, name, 1, &[]).await;
        }
        second.stop().await.unwrap();
    }
}

for_each_store! {
    async fn store_outage_stops_attempts_with_their_leases(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = FaultyStore::new(storage.open());
        let role = start(&outside, &store);
        for (name, job) in [("work/1", WorkJob::Waits), ("work/2", WorkJob::Stubborn)] {
            order(&role, name, Some(job)).await;
            logged(&outside, "begin", name, 1).await;
        }
        store.set(Fault::Fails);
        logged(&outside, "lost", "work/1", 1).await;
        store.set(Fault::None);
        for name in ["work/1", "work/2"] {
            logged(&outside, "begin", name, 2).await;
            let row = task(&store, name).await.unwrap();
            assert_eq!((row.attempts, row.crashes), (0, 0));
        }
        outside.release();
        for name in ["work/1", "work/2"] {
            ends(&store, name, 1, &[]).await;
        }
        role.stop().await.unwrap();
    }
}

/// Takes over all tasks of the only process that runs any.
async fn take_over<S: Store>(store: &S) {
    wait_until("the process is taken over", SOON, async || {
        let holders = store.task_holders().await.unwrap();
        assert_eq!(holders.len(), 1, "{holders:?}");
        let (holder, beat) = (holders[0].holder, holders[0].beat);
        let taken = store.take_over_tasks(holder, beat, Timestamp::now()).await;
        taken.unwrap() == Some(1)
    })
    .await;
}

for_each_store! {
    async fn a_lost_lease_stops_the_attempt(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let role = start(&outside, &store);
        order(&role, "work/1", Some(WorkJob::Waits)).await;
        logged(&outside, "begin", "work/1", 1).await;
        take_over(&store).await;
        logged(&outside, "end", "work/1", 1).await;
        // The process registers anew.
        logged(&outside, "begin", "work/1", 2).await;
        assert_eq!(task(&store, "work/1").await.unwrap().crashes, 1);
        outside.release();
        assert_eq!(ends(&store, "work/1", 1, &[]).await.results[0].attempt, 1);
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn an_end_without_a_lease_changes_nothing(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = FaultyStore::new(storage.open());
        let role = start(&outside, &store);
        order(&role, "work/1", Some(WorkJob::Waits)).await;
        logged(&outside, "begin", "work/1", 1).await;
        store.set(Fault::HangsBeforeCommit);
        outside.release();
        wait_until("its end waits for the store", SOON, async || store.hung() > 0).await;
        take_over(store.inner()).await;
        // Another process gets it before the end is written.
        let now = Timestamp::now();
        let holder = TaskHolder(begin_epoch(store.inner(), now).await.unwrap());
        let claimed = store
            .inner()
            .claim_tasks(ClaimTasks {
                holder,
                process: "a test".to_owned(),
                now,
                kinds: vec![(kind_of::<DoWork>(), 1)],
                room: 1,
                candidates: Candidates::One,
                held: Vec::new(),
            })
            .await
            .unwrap();
        // Unless the role has claimed it again first: then its second attempt is the one that counts.
        let token = claimed.tasks.first().map(|task| task.token);
        store.set(Fault::None);
        // The process of the test is silent, so the role takes the task over, and runs it again.
        let done = ends(&store, "work/1", 1, &[]).await;
        assert_eq!(done.results.len(), 1);
        no_tasks(&store).await;
        assert_eq!(outside.count("begin", "work/1"), 2);
        assert_eq!(summary(&store).await.tally.tasks_done, 1);
        assert!(token.is_none_or(|token| token.0 > outside.lines()[0].token));
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn max_running_counts_all_processes(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let policy = TaskPolicy { max_running: 2, ..quick_policy() };
        let roles = [(); 2].map(|()| {
            start_with(&outside, &storage.open(), policy, quick_limits())
        });
        for number in 0..30 {
            let job = WorkJob::Steps { steps: 2, pause: 10 };
            order(&roles[number % 2], &format!("work/{number}"), Some(job)).await;
        }
        for number in 0..30 {
            ends(&store, &format!("work/{number}"), 1, &[]).await;
        }
        let (mut running, mut most) = (0, 0);
        for line in outside.lines() {
            running += i32::from(line.what == "begin") - i32::from(line.what == "end");
            most = most.max(running);
        }
        assert_eq!((running, most), (0, 2));
        for role in roles {
            role.stop().await.unwrap();
        }
    }
}

for_each_store! {
    async fn an_event_is_tried_without_tasks_beside_it(storage) {
        let (_scratch, outside) = outside("tasks");
        let store = storage.open();
        let process = HandlerLock::default();
        let shared = |limits| RunSettings { process: process.clone(), ..settings(limits) };
        let limits = Limits { task_lease: LONG, ..quick_limits() };
        let tasks = with_policy(&outside, quick_policy());
        let role = RoleProcess::start_local(Works, tasks, store.clone(), shared(limits.clone()));
        for (name, job) in [("work/1", WorkJob::Waits), ("work/2", WorkJob::Stubborn)] {
            order(&role, name, Some(job)).await;
            logged(&outside, "begin", name, 1).await;
        }
        // Another role of the process finds an event at its start that has crashed a process once.
        let ledger = MemoryStore::new("ledger");
        let suspect = event("shop", "account/1", 1, &Move::Add(1));
        let now = Timestamp::now();
        let mut changes = WriteSet::at(now);
        changes.crash_counts.push(CrashCountChange {
            source: suspect.source.clone(),
            id: suspect.id.clone(),
            before: 0,
            after: 1,
        });
        changes.defer.push(NewDeferred {
            event: suspect,
            defect: None,
            reason: DeferReason::OutOfOrder,
            due: Some(now),
            attempts: 0,
            since: now,
        });
        ledger.commit(changes).await.unwrap();
        let other =
            RoleProcess::start_local(Ledger, TaskSet::new(), ledger.clone(), shared(limits));
        wait_until("it is applied", SOON, async || summary(&ledger).await.tally.applied == 1).await;
        assert_eq!(outside.count("shutdown", "work/1"), 1);
        for name in ["work/1", "work/2"] {
            logged(&outside, "begin", name, 2).await;
            let row = task(&store, name).await.unwrap();
            assert_eq!((row.attempts, row.crashes), (0, 0));
        }
        outside.release();
        for name in ["work/1", "work/2"] {
            ends(&store, name, 1, &[]).await;
        }
        role.stop().await.unwrap();
        other.stop().await.unwrap();
    }
}

/// Starts a task in the store.
async fn put_task(store: &MemoryStore, work: &str) {
    let mut changes = WriteSet::at(Timestamp::now());
    changes.tasks.push(TaskChange::Start(NewTask {
        id: task_id(work),
        kind: kind_of::<DoWork>(),
        subject: Subject::new(work).unwrap(),
        traceparent: None,
        input: serde_json::to_vec(&DoWork {
            job: WorkJob::Quick,
        })
        .unwrap()
        .into(),
        dead: 0,
        if_live: IfLive::Conflict,
    }));
    store.commit(changes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_of_the_queue_runs_tasks() {
    let (_scratch, outside) = outside("tasks");
    let env = TestEnv::new("tasks", &[WORKS]).await;
    let start = |store: &MemoryStore| {
        let settings = RunSettings {
            limits: quick_limits(),
            ..env.run_settings()
        };
        let tasks = with_policy(&outside, quick_policy());
        RoleProcess::start_with_tasks(Works, tasks, store.clone(), settings)
    };
    let (store, other) = (MemoryStore::new("works"), MemoryStore::new("works"));
    for (store, name) in [(&store, "work/1"), (&other, "work/2")] {
        put_task(store, name).await;
    }
    let owner = start(&store);
    ends(&store, "work/1", 1, &[]).await;
    // A copy of a store, for example, must not repeat the tasks of the original.
    let rejected = start(&other).ended(SOON).await;
    assert!(
        matches!(rejected, Err(RunError::Connect(_))),
        "{rejected:?}"
    );
    assert_eq!(outside.count("begin", "work/2"), 0);
    assert_eq!(
        task(&other, "work/2").await.unwrap().state,
        TaskState::Ready
    );

    // An event's task runs beside the deliveries.
    let asked = Event::from_contract(
        &Source::new("shop").unwrap(),
        &Subject::new("work/3").unwrap(),
        Sequence::new(1).unwrap(),
        Timestamp::now(),
        &WorkAsked {
            job: WorkJob::Quick,
        },
    );
    env.publish(&[asked.unwrap()]).await;
    ends(&store, "work/3", 1, &[]).await;
    owner.stop().await.unwrap();
}

/// A store of the role, which processes share.
fn shared_store(scratch: &TempDir) -> SqliteStore {
    SqliteStore::open(scratch.path(), WORKS.role, &Options::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_over_continues_from_the_checkpoint() {
    let (scratch, outside) = outside("tasks");
    let store = shared_store(&scratch);
    let program = Program::works().store(scratch.path());
    let killed = program.start(&scratch);
    let role = start_with(
        &outside,
        &store,
        TaskPolicy {
            max_running: 0,
            ..quick_policy()
        },
        quick_limits(),
    );
    order(&role, "work/1", Some(WorkJob::WaitsOnce)).await;
    logged(&outside, "step", "work/1", 1).await;
    assert!(killed.kill());
    // This process, which runs none itself, takes the task over.
    wait_for("it is taken over", SOON, async || {
        match task(&store, "work/1").await {
            Some(row) if row.crashes == 1 && row.state == TaskState::Ready => Ok(()),
            row => Err(row),
        }
    })
    .await;
    assert_eq!(outside.count("begin", "work/1"), 1);
    let running = program.start(&scratch);
    let done = ends(&store, "work/1", 1, &[]).await;
    assert_eq!(done.results[0].attempt, 1);
    assert_eq!(outside.count("begin", "work/1"), 2);
    assert_eq!(outside.count("step", "work/1"), 1);
    assert!(running.kill());
    role.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_task_becomes_a_dead_letter() {
    let (scratch, outside) = outside("tasks");
    let store = shared_store(&scratch);
    let role = start_with(
        &outside,
        &store,
        TaskPolicy {
            max_running: 0,
            ..quick_policy()
        },
        quick_limits(),
    );
    order(&role, "work/1", Some(WorkJob::Aborts)).await;
    let long = WorkJob::Steps {
        steps: 50,
        pause: 20,
    };
    order(&role, "work/2", Some(long)).await;
    let program = Program::works().store(scratch.path());
    let mut running = program.start(&scratch);
    wait_for("it is a dead letter", SOON * 2, async || {
        if !running.is_running() {
            running = program.start(&scratch);
        }
        let work = work(&store, "work/1").await;
        if work.endings == [TaskEnding::Failed] {
            Ok(())
        } else {
            Err((work, task(&store, "work/1").await))
        }
    })
    .await;
    let letters = dead(&store).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].reason, "poison");
    assert_eq!(outside.count("begin", "work/1"), 3);
    // The one beside it has crashed no process.
    ends(&store, "work/2", 1, &[]).await;
    role.stop().await.unwrap();
}
