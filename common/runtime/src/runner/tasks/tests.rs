//! Tests of what the executor claims, and of the heartbeats that it writes, on a store in memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_event::{Epoch, RequestContract, RequestKind, Subject, Timestamp};
use doorstep_store::{
    Candidates, ClaimTasks, IfLive, LeasedTask, MemoryStore, NewTask, Store, TaskChange, TaskFate,
    TaskHolder, TaskId, TaskToken, WriteSet,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    Called,
    attempt::{Attempt, CodeEnd},
    claims::{ClaimBounds, Claims},
    held::{Held, HeldTasks, TaskStage},
    keeper::LeaseKeeper,
};
use crate::{
    HandlerLock, Limits,
    runner::Liveness,
    task::{SaveCheckpoint, Task, TaskContext, TaskError, TaskSet, kind_of},
};

/// A task that never ends.
#[derive(Serialize, Deserialize)]
struct Waits;

#[derive(Serialize, Deserialize)]
struct Waited;

impl RequestContract for Waited {
    const TYPE: &'static str = "test.waited.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}

impl Task for Waits {
    const TYPE: &'static str = "test.wait.v1";
    type Resources = ();
    type Output = Waited;

    async fn run(self, _: TaskContext, (): ()) -> Result<Waited, TaskError> {
        std::future::pending().await
    }
}

fn holder() -> TaskHolder {
    TaskHolder(Epoch::new(1, 0).unwrap())
}

/// Returns this many tasks that are leased to the holder.
async fn leased(store: &MemoryStore, count: usize) -> Vec<LeasedTask> {
    let mut changes = WriteSet::at(Timestamp::now());
    changes.tasks = (0..count)
        .map(|number| {
            TaskChange::Start(NewTask {
                id: TaskId::new(format!("wait/{number}")).unwrap(),
                kind: kind_of::<Waits>(),
                subject: Subject::new("wait/1").unwrap(),
                traceparent: None,
                input: serde_json::to_vec(&Waits).unwrap().into(),
                dead: 0,
                if_live: IfLive::Conflict,
            })
        })
        .collect();
    store.commit(changes).await.unwrap();
    let ask = ClaimTasks {
        holder: holder(),
        process: String::new(),
        now: Timestamp::now(),
        kinds: vec![(kind_of::<Waits>(), u32::MAX)],
        room: count,
        candidates: Candidates::None,
        held: Vec::new(),
    };
    let claimed = store.claim_tasks(ask).await.unwrap().tasks;
    assert_eq!(claimed.len(), count);
    claimed
}

/// Returns the tasks with their code running.
fn run(spawner: &mut JoinSet<CodeEnd>, store: &MemoryStore, tasks: Vec<LeasedTask>) -> HeldTasks {
    let set = Arc::new(TaskSet::new().with::<Waits>(()));
    let (checkpoints, _) = tokio::sync::mpsc::channel(1);
    let mut held = HeldTasks::default();
    for mut lease in tasks {
        let states = Arc::new(store.clone());
        let context =
            TaskContext::new(lease.clone(), "key".to_owned(), checkpoints.clone(), states);
        let timeout = Duration::from_hours(1);
        let attempt = Attempt::start(spawner, &set, &mut lease, context, timeout, "test");
        let stage = TaskStage::Running(attempt);
        let token = lease.token;
        let outcome = None;
        held.0.insert(
            token,
            Held {
                lease,
                stage,
                outcome,
            },
        );
    }
    held
}

fn save(token: TaskToken, text: &'static str) -> (SaveCheckpoint, oneshot::Receiver<()>) {
    let (saved, durable) = oneshot::channel();
    let checkpoint = text.as_bytes().into();
    let ask = SaveCheckpoint {
        token,
        checkpoint,
        saved,
    };
    (ask, durable)
}

#[tokio::test]
async fn checkpoints_share_a_heartbeat() {
    let (store, limits, liveness) = (
        MemoryStore::new("test"),
        Limits::default(),
        Arc::new(Liveness::new()),
    );
    let mut spawner = JoinSet::new();
    let tasks = leased(&store, 3).await;
    let [a, b, _] = [0, 1, 2].map(|index: usize| tasks[index].token);
    let mut held = run(&mut spawner, &store, tasks);
    let (mut keeper, now) = (LeaseKeeper::new(&limits), Instant::now());
    keeper.own.renew(now);
    let regular = Some(now + limits.task_lease / 4);
    assert_eq!(keeper.next(&mut held, &limits, now), regular);

    let (first, saved_first) = save(a, "1");
    let (second, saved_second) = save(a, "2");
    let (other, saved_other) = save(b, "3");
    for ask in [first, second, other] {
        keeper.save(ask, &mut held);
    }
    let (stale, refused) = save(TaskToken(99), "4");
    keeper.save(stale, &mut held);
    assert!(refused.await.is_err());
    assert_eq!(keeper.next(&mut held, &limits, now), Some(now));
    let beat = keeper.beat(&store, holder(), &mut held, &liveness);
    // The next ones wait for the next heartbeat, which does not begin before this one has ended.
    let (third, saved_third) = save(b, "5");
    keeper.save(third, &mut held);
    assert_eq!(keeper.next(&mut held, &limits, now), None);
    end_beat(&mut keeper, beat.await, &mut held);
    for saved in [saved_first, saved_second, saved_other] {
        saved.await.unwrap();
    }
    assert_eq!(checkpoints(&store).await, ["2", "3", ""]);
    assert_eq!(keeper.next(&mut held, &limits, now), Some(now));
    let beat = keeper.beat(&store, holder(), &mut held, &liveness);
    end_beat(&mut keeper, beat.await, &mut held);
    saved_third.await.unwrap();
    assert_eq!(checkpoints(&store).await, ["2", "5", ""]);

    // A taken-over process saves nothing, and stops its attempts.
    let (last, refused) = save(a, "6");
    keeper.save(last, &mut held);
    let beat = store.task_holders().await.unwrap()[0].beat;
    store
        .take_over_tasks(holder(), beat, Timestamp::now())
        .await
        .unwrap();
    let beat = keeper.beat(&store, holder(), &mut held, &liveness);
    end_beat(&mut keeper, beat.await, &mut held);
    assert!(refused.await.is_err());
    assert_eq!((held.working(), keeper.own.end()), (0, None));
    assert_eq!(checkpoints(&store).await, ["2", "5", ""]);
    for _ in 0..3 {
        spawner.join_next().await.unwrap().unwrap();
    }
}

fn end_beat(keeper: &mut LeaseKeeper, called: Called, held: &mut HeldTasks) {
    let Called::Beaten {
        began,
        saves,
        result,
    } = called
    else {
        panic!("not a heartbeat");
    };
    keeper.beaten(began, saves, &result, held, &Limits::default());
}

async fn checkpoints(store: &MemoryStore) -> Vec<String> {
    let rows = store.tasks(Default::default(), None, 9).await.unwrap();
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let texts = rows.into_iter().map(|row| row.checkpoint.map(text));
    texts.map(Option::unwrap_or_default).collect()
}

#[tokio::test]
async fn candidates_run_alone() {
    let (store, limits, process) = (
        MemoryStore::new("test"),
        Limits::default(),
        HandlerLock::default(),
    );
    let mut tasks = leased(&store, 2).await;
    let now = Instant::now();
    let most = limits.running_tasks;
    let bounds = |room, candidates| ClaimBounds { room, candidates };
    let alone = |room| bounds(room, Candidates::One);
    let fresh = |room| bounds(room, Candidates::None);
    let (mut claims, mut other) = (Claims::new(now), Claims::new(now));
    let mut held = HeldTasks::default();

    // An idle process takes a candidate, and only one of its roles does.
    assert_eq!(claims.bounds(&held, &process, &limits, now), alone(most));
    assert_eq!(other.bounds(&held, &process, &limits, now), fresh(most));
    let mut candidate = tasks.remove(0);
    candidate.row.crashes = 1;
    let token = candidate.token;
    let candidate = Held::returning(candidate, TaskFate::Release);
    held.0.insert(token, candidate);
    claims.begin(now);
    claims.ended(3);
    claims.release_permit(&held);
    assert_eq!(claims.bounds(&held, &process, &limits, now), fresh(0));
    let nothing = HeldTasks::default();
    assert_eq!(other.bounds(&nothing, &process, &limits, now), fresh(most));
    held.0.clear();
    claims.ended(0);
    claims.release_permit(&held);
    assert_eq!(other.bounds(&nothing, &process, &limits, now), alone(most));
    other.release_permit(&nothing);

    // While fresh ones run, a candidate waits, and keeps further fresh ones from being claimed, for a time.
    let running = Held::returning(tasks.remove(0), TaskFate::Release);
    held.0.insert(running.lease.token, running);
    assert_eq!(
        claims.bounds(&held, &process, &limits, now),
        fresh(most - 1)
    );
    claims.ended(1);
    assert_eq!(claims.bounds(&held, &process, &limits, now), fresh(0));
    claims.release_permit(&held);
    let later = now + limits.task_alone_wait;
    assert_eq!(
        claims.bounds(&held, &process, &limits, later),
        alone(most - 1)
    );
    // Another process has taken it.
    claims.ended(0);
    claims.release_permit(&held);
    assert_eq!(
        claims.bounds(&held, &process, &limits, later),
        fresh(most - 1)
    );
}
