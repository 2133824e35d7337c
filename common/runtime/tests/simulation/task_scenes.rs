//! Scenes in which the end of a task meets a take-over, a cancellation, an operator and a query, in every order of their
//! steps.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use doorstep_event::{Epoch, RequestContract, Sender, Source};
use doorstep_runtime::{
    Engine, InboundMessage, Limits,
    engine::tasks::{TaskStep, first_step},
    operate::{TaskDecision, decide_task},
    task::{FinishedTask, TaskFinish, TaskOutput, kind_of},
};
use doorstep_store::{Candidates, ClaimTasks, LeasedTask, MemoryStore, Store, TaskHolder};

use super::{
    executor::finish,
    ledger::{
        self, Ledger, Move, QueryAccount, event,
        labor::{Labor, LaborDone, Twist, Watcher, task_id},
        request,
    },
    scenes::{Ending, Role, Scene, Setting, at},
    yielding_store::{Bug, Steps},
};

fn limits() -> Limits {
    Limits {
        remembered_rows: 16,
        ..Limits::default()
    }
}

fn holder(number: u64) -> TaskHolder {
    TaskHolder(Epoch::new(number, 0).unwrap())
}

async fn claim<S: Store>(store: &S, number: u64) -> Vec<LeasedTask> {
    let ask = ClaimTasks {
        holder: holder(number),
        process: "scene".to_owned(),
        now: at(),
        kinds: vec![(kind_of::<Labor>(), 9)],
        room: 9,
        candidates: Candidates::One,
        held: Vec::new(),
    };
    store.claim_tasks(ask).await.unwrap().tasks
}

fn delivery(sequence: u64, fact: &Move) -> InboundMessage {
    InboundMessage::event(
        event("shop", "account/a", sequence, fact),
        Sender::Anonymous,
    )
}

/// Starts the task `work`, which the first process claims. Returns the lease and the number of its heartbeat: the same
/// in each play.
fn set_the_scene(store: &MemoryStore) -> (LeasedTask, u64) {
    let labor = Labor {
        errors: 0,
        twist: Twist::None,
    };
    let start = Move::Start("work".to_owned(), labor);
    let mut engine = Engine::new(Ledger, store.clone(), limits());
    let mut batch = engine.read_batch(vec![delivery(1, &start)]);
    finish(engine.process(&mut batch, at(), 0.5)).unwrap();
    let lease = finish(claim(store, 1)).remove(0);
    let beat = finish(store.task_holders()).unwrap()[0].beat;
    (lease, beat)
}

fn first_lease() -> (LeasedTask, u64) {
    let source = Source::new("ledger/scene").unwrap();
    set_the_scene(&MemoryStore::with_source(source))
}

fn a_claimed_task() -> Setting {
    Box::new(|play| drop(set_the_scene(&play.memory)))
}

fn result(lease: &LeasedTask, by: &str) -> FinishedTask {
    let done = LaborDone {
        account: lease.row.subject.to_string(),
        task: lease.row.id.to_string(),
        by: by.to_owned(),
        twist: Twist::None,
    };
    FinishedTask {
        lease: lease.clone(),
        finish: TaskFinish::Result(TaskOutput {
            kind: LaborDone::request_type(),
            data: serde_json::to_vec(&done).unwrap().into(),
        }),
    }
}

/// Decides ends with a new engine.
async fn end<S: Store>(store: &S, ends: Vec<FinishedTask>) {
    let mut engine = Engine::new(Ledger, store.clone(), limits());
    let mut commands = engine.read_commands([]).with_ends(ends);
    while !commands.is_done() {
        engine.execute(&mut commands, at(), 0.5).await.unwrap();
    }
}

/// The first process, which ends the task with its result.
fn ends_first() -> Role {
    Box::new(|play| {
        let store = play.store.clone();
        let (lease, _) = first_lease();
        Box::pin(async move { end(&store, vec![result(&lease, "first")]).await })
    })
}

/// Another process, which finds the first one silent, takes the task over and ends it.
fn takes_over_and_ends() -> Role {
    Box::new(|play| {
        let store = play.store.clone();
        let (_, beat) = first_lease();
        Box::pin(async move {
            let taken = store.take_over_tasks(holder(1), beat, at());
            let _ = taken.await.unwrap();
            end_second(&store).await;
        })
    })
}

/// Another process, which takes the task over. It ends the task once the scene is over.
fn takes_over() -> Role {
    Box::new(|play| {
        let store = play.store.clone();
        let (_, beat) = first_lease();
        Box::pin(async move {
            let taken = store.take_over_tasks(holder(1), beat, at());
            let _ = taken.await.unwrap();
        })
    })
}

/// Claims the task, if it is there, and ends it.
async fn end_second<S: Store>(store: &S) {
    let claimed = claim(store, 2).await;
    let ends = claimed.iter().map(|lease| match first_step(&lease.row, 3) {
        TaskStep::Run => result(lease, "second"),
        TaskStep::Direct(directive) => FinishedTask {
            lease: lease.clone(),
            finish: TaskFinish::Directed(directive),
        },
        step => panic!("{step:?}"),
    });
    let ends: Vec<_> = ends.collect();
    end(store, ends).await;
}

/// An owner that applies an event which cancels the task.
fn cancels() -> Role {
    Box::new(|play| {
        let mut engine = Engine::new(Ledger, play.store.clone(), limits());
        let cancel = Move::CancelTask("work".to_owned());
        let mut batch = engine.read_batch(vec![delivery(2, &cancel)]);
        Box::pin(async move {
            engine.process(&mut batch, at(), 0.5).await.unwrap();
        })
    })
}

/// An operator who cancels the task.
fn decides() -> Role {
    Box::new(|play| {
        let store = play.store.clone();
        Box::pin(async move {
            drop(decide_task(&store, &task_id("work"), TaskDecision::Cancel, at()).await);
        })
    })
}

/// The account has heard of one end, and every end comes about in some order. `seen` collects them.
fn one_end(seen: &Arc<Mutex<BTreeSet<String>>>) -> Ending {
    let seen = Arc::clone(seen);
    Box::new(move |play| {
        finish(end_second(&play.memory));
        let accounts = finish(ledger::accounts(&play.memory));
        let [one] = &accounts[0].1.ends[..] else {
            return Err(format!("{:?}", accounts[0].1.ends));
        };
        let summary = finish(play.memory.summary(at())).unwrap();
        let is_done = u64::from(!one.ends_with("Cancelled"));
        if (summary.usage.tasks.rows, summary.tally.tasks_done) != (0, is_done) {
            return Err(format!("{one}, and {summary:?}"));
        }
        seen.lock().unwrap().insert(one.clone());
        Ok(())
    })
}

#[track_caller]
fn play(actors: fn() -> Vec<Role>, crashes: usize, expected: &[&str]) {
    let seen = Arc::default();
    let scene = Scene {
        set: a_claimed_task(),
        actors: actors(),
        end: one_end(&seen),
        crashes,
        steps: Steps::Before,
        bug: Bug::None,
    };
    println!("{} orders", scene.play_all().unwrap());
    let seen = seen.lock().unwrap();
    assert!(seen.iter().eq(expected), "{seen:?}");
}

#[test]
fn take_over_against_result_ends_once() {
    let actors = || vec![ends_first(), takes_over_and_ends()];
    play(actors, 1, &["work first", "work second"]);
}

#[test]
fn take_over_against_result_against_cancel_ends_once() {
    let actors = || vec![ends_first(), takes_over(), cancels()];
    // The other process ends the task once the scene is over, and finds it cancelled.
    play(actors, 0, &["work Cancelled", "work first"]);
}

#[test]
fn operator_against_result_against_take_over_ends_once() {
    let actors = || vec![ends_first(), takes_over(), decides()];
    play(actors, 0, &["work Cancelled", "work first"]);
}

#[test]
fn every_order_finds_a_second_end() {
    let scene = Scene {
        set: a_claimed_task(),
        actors: vec![ends_first(), takes_over_and_ends()],
        end: one_end(&Arc::default()),
        crashes: 0,
        steps: Steps::Around,
        bug: Bug::EndsTwice,
    };
    println!("{}", scene.play_all().unwrap_err());
}

#[test]
fn query_never_misses_an_end() {
    type Answers = Arc<Mutex<Vec<(Option<u64>, Vec<String>)>>>;
    let answers: Answers = Arc::default();
    let (asked, checked) = (Arc::clone(&answers), Arc::clone(&answers));
    let queries: Role = Box::new(move |play| {
        let queries = Engine::new(Watcher, play.store.clone(), limits()).queries();
        let asked = Arc::clone(&asked);
        Box::pin(async move {
            let account = "account/a".to_owned();
            let query = request("gateway/1", "q", at(), &QueryAccount { account });
            let answer = queries.answer(&query, at()).await.unwrap().unwrap();
            let answer = serde_json::from_slice(&answer).unwrap();
            asked.lock().unwrap().push(answer);
        })
    });
    let scene = Scene {
        set: a_claimed_task(),
        actors: vec![ends_first(), queries],
        end: Box::new(move |_| {
            let answer = checked.lock().unwrap().last().cloned();
            match answer {
                Some((None, ends)) if ends.is_empty() => Err("it has missed the end".to_owned()),
                Some(_) => Ok(()),
                None => Err("it has no answer".to_owned()),
            }
        }),
        crashes: 0,
        steps: Steps::Around,
        bug: Bug::None,
    };
    println!("{} orders", scene.play_all().unwrap());
    // The end falls before the query, between its two reads, and after it.
    let end = || vec!["work first".to_owned()];
    for expected in [(None, end()), (Some(0), end()), (Some(0), Vec::new())] {
        assert!(answers.lock().unwrap().contains(&expected), "{expected:?}");
    }
}
