//! The ends of tasks in the engine, one promise a test, on every store.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod failures;
#[path = "../ledger/mod.rs"]
mod ledger;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use doorstep_event::{ContractError, Epoch, Event, Rejection, Request, Sender, Timestamp};
use doorstep_runtime::engine::tasks::GaveUp;
use doorstep_runtime::{
    CommandOutcome, CommandResult, DeliveryHistory, Effects, Engine, HandlerError, InboundMessage,
    Limits, Reading, Role, States,
    operate::{self, TaskDecision, decide_task},
    task::kind_of,
    task::{FinishedTask, TaskFinish, TaskOutput},
};
use doorstep_store::{
    Candidates, ClaimTasks, DeadLetter, DeadLetterFilter, EntityKey, LeasedTask, OutboxKind,
    SqliteStore, Store, TaskDirective, TaskHolder, TaskProgress, TaskRow, TaskState,
    sqlite::Options,
};
use failures::{
    crashed_task_ends_alone, each_failure_is_a_dead_letter_of_its_own,
    failed_task_is_a_dead_letter_until_its_replay_succeeds,
    outcome_that_the_role_refuses_ends_the_task, outcome_unknown_to_the_role_ends_the_task,
    poison_ends_with_or_without_the_role, rejected_result_is_a_dead_letter_that_the_role_hears_of,
};
use ledger::{
    Account, Bid, Ledger, LedgerWith, Move, QueryAccount, Replace, event,
    labor::{Labor, LaborDone, Twist, Watcher, task_id},
    order,
};

const ACCOUNT: &str = "account/a";

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    start + Duration::from_secs(seconds)
}

fn holder(number: u64) -> TaskHolder {
    TaskHolder(Epoch::new(number, 0).unwrap())
}

fn labor() -> Labor {
    Labor {
        errors: 0,
        twist: Twist::None,
    }
}

/// A store of a test; its files are removed at the end.
struct SqliteFolder(PathBuf);

impl SqliteFolder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tasks-{}-{number}", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }
}

impl Drop for SqliteFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

macro_rules! each_store {
    ($($promise:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(doorstep_store::MemoryStore::new("ledger")).await;
            })*
        }

        mod in_sqlite {
            $(#[tokio::test]
            async fn $promise() {
                let folder = super::SqliteFolder::new();
                let store = super::SqliteStore::open(&folder.0, "ledger", &super::Options::default());
                super::$promise(store.unwrap()).await;
            })*
        }
    };
}

each_store! {
    result_is_applied_once_with_the_end,
    ends_share_a_commit_with_events_and_commands,
    lost_lease_changes_nothing,
    one_lease_ends_once_in_a_batch,
    conflict_reads_the_lease_again,
    two_owners_end_a_task_once,
    failed_task_is_a_dead_letter_until_its_replay_succeeds,
    each_failure_is_a_dead_letter_of_its_own,
    rejected_result_is_a_dead_letter_that_the_role_hears_of,
    outcome_that_the_role_refuses_ends_the_task,
    outcome_unknown_to_the_role_ends_the_task,
    unknown_effect_waits_for_the_operator,
    cancel_and_result_meet_in_both_orders,
    result_may_start_its_task_again,
    rejected_result_starts_nothing,
    crashed_task_ends_alone,
    poison_ends_with_or_without_the_role,
    result_has_no_reply_and_no_deadline,
    query_shows_progress_until_the_end,
}

struct TestEnv<R: Role, S: Store> {
    store: S,
    engine: Engine<R, S>,
}

impl<S: Store> TestEnv<Ledger, S> {
    fn new(store: &S) -> Self {
        Self::with(Ledger, store)
    }
}

impl<R: Role, S: Store> TestEnv<R, S> {
    fn with(role: R, store: &S) -> Self {
        Self {
            engine: Engine::new(role, store.clone(), Limits::default()),
            store: store.clone(),
        }
    }

    /// Starts a task by an event.
    async fn start(&mut self, sequence: u64, id: &str, labor: Labor) {
        self.deliver(sequence, Move::Start(id.to_owned(), labor))
            .await;
    }

    async fn deliver(&mut self, sequence: u64, fact: Move) {
        let incoming = delivery(sequence, &fact);
        let mut batch = self.engine.read_batch(vec![incoming]);
        self.engine.process(&mut batch, at(0), 0.5).await.unwrap();
    }

    /// Decides ends, as far as that is possible, with the results in their order.
    async fn end(&mut self, ends: Vec<FinishedTask>) -> Vec<CommandResult> {
        self.end_beside(Vec::new(), Vec::new(), ends).await
    }

    async fn end_beside(
        &mut self,
        events: Vec<InboundMessage>,
        commands: Vec<Request>,
        ends: Vec<FinishedTask>,
    ) -> Vec<CommandResult> {
        let count = commands.len() + ends.len();
        let mut batch = self.engine.read_batch(events);
        let commands = commands.into_iter().map(|c| (c, DeliveryHistory::First));
        let mut commands = self.engine.read_commands(commands).with_ends(ends);
        let mut decided: Vec<_> = (0..count).map(|_| None).collect();
        while !(batch.is_done() && commands.is_done()) {
            let worked = self
                .engine
                .process_with_commands(&mut batch, &mut commands, at(9), 0.5);
            worked.await.unwrap();
            for (place, one) in commands.take_decided() {
                assert!(decided[place].replace(one).is_none(), "decided twice");
            }
        }
        decided.into_iter().map(Option::unwrap).collect()
    }

    /// Claims all tasks that are due.
    async fn claim(&self, number: u64) -> Vec<LeasedTask> {
        claim(&self.store, number).await
    }

    async fn claim_one(&self, number: u64) -> LeasedTask {
        let [task] = self.claim(number).await.try_into().unwrap();
        task
    }

    async fn row(&self, id: &str) -> Option<TaskRow> {
        self.store
            .read_tasks(vec![task_id(id)])
            .await
            .unwrap()
            .remove(0)
    }

    /// Returns the ends that the account has heard of.
    async fn heard(&self) -> Vec<String> {
        let mut accounts = ledger::accounts(&self.store).await.into_iter();
        let account = accounts.find(|(key, _)| key == ACCOUNT);
        account.map(|(_, account)| account.ends).unwrap_or_default()
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        let dead = self.store.dead_letters(DeadLetterFilter::All, None, 10);
        dead.await.unwrap()
    }

    async fn commits(&self) -> u64 {
        self.store.summary(at(0)).await.unwrap().commits
    }

    async fn tasks_done(&self) -> u64 {
        self.store.summary(at(0)).await.unwrap().tally.tasks_done
    }
}

async fn claim<S: Store>(store: &S, number: u64) -> Vec<LeasedTask> {
    let ask = ClaimTasks {
        holder: holder(number),
        process: "test".to_owned(),
        now: at(1_000),
        kinds: vec![(kind_of::<Labor>(), 100)],
        room: 100,
        candidates: Candidates::One,
        held: Vec::new(),
    };
    store.claim_tasks(ask).await.unwrap().tasks
}

fn delivery(sequence: u64, fact: &Move) -> InboundMessage {
    InboundMessage::event(event("shop", ACCOUNT, sequence, fact), Sender::Anonymous)
}

fn end(lease: &LeasedTask, finish: TaskFinish) -> FinishedTask {
    FinishedTask {
        lease: lease.clone(),
        finish,
    }
}

/// Returns the end of a task with its result.
fn result(lease: &LeasedTask, by: &str) -> FinishedTask {
    let labor: Labor = serde_json::from_slice(&lease.row.input).unwrap();
    let worked = LaborDone {
        account: lease.row.subject.to_string(),
        task: lease.row.id.to_string(),
        by: by.to_owned(),
        twist: labor.twist,
    };
    let output = TaskOutput {
        kind: <LaborDone as doorstep_event::RequestContract>::request_type(),
        data: serde_json::to_vec(&worked).unwrap().into(),
    };
    end(lease, TaskFinish::Result(output))
}

fn failure(lease: &LeasedTask, detail: &str) -> FinishedTask {
    let detail = detail.to_owned();
    let gave_up = GaveUp::Failed;
    end(lease, TaskFinish::Failed { gave_up, detail })
}

async fn result_is_applied_once_with_the_end(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    let commits = env.commits().await;
    assert_eq!(
        env.end(vec![result(&lease, "first")]).await,
        [CommandResult::Ended]
    );
    assert_eq!(env.commits().await, commits + 1);
    assert_eq!((env.row("work").await, env.tasks_done().await), (None, 1));
    assert_eq!(env.heard().await, ["work first"]);
    // The answer was lost: the executor repeats the end, here or after a restart.
    for env in [&mut env, &mut TestEnv::new(&store)] {
        assert_eq!(
            env.end(vec![result(&lease, "first")]).await,
            [CommandResult::LeaseLost]
        );
        assert_eq!(env.heard().await, ["work first"]);
    }
}

async fn ends_share_a_commit_with_events_and_commands(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "a", labor()).await;
    env.start(2, "b", labor()).await;
    let leases = env.claim(1).await;
    let commits = env.commits().await;
    let deposit = order("1", at(9), ACCOUNT, Bid::Deposit(5));
    let ends = leases.iter().map(|lease| result(lease, "done")).collect();
    let decided = env
        .end_beside(vec![delivery(3, &Move::Add(1))], vec![deposit], ends)
        .await;
    assert!(matches!(decided[0], CommandResult::Answer(Ok(_))));
    assert_eq!(decided[1..], [CommandResult::Ended, CommandResult::Ended]);
    assert_eq!(env.commits().await, commits + 1);
    assert_eq!(env.heard().await, ["a done", "b done"]);
    let accounts = ledger::accounts(&store).await;
    assert_eq!(accounts[0].1.balance, 6);
}

async fn lost_lease_changes_nothing(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "work", labor()).await;
    let former = env.claim_one(1).await;
    let beat = store.task_holders().await.unwrap()[0].beat;
    store
        .take_over_tasks(holder(1), beat, at(50))
        .await
        .unwrap()
        .unwrap();
    let present = env.claim_one(2).await;
    let commits = env.commits().await;
    for finish in [
        result(&former, "former").finish,
        failure(&former, "text").finish,
        TaskFinish::Unknown {
            error: "text".to_owned(),
        },
        TaskFinish::Directed(TaskDirective::Cancel),
    ] {
        assert_eq!(
            env.end(vec![end(&former, finish)]).await,
            [CommandResult::LeaseLost]
        );
    }
    assert_eq!(env.commits().await, commits);
    assert_eq!(env.row("work").await, Some(present.row.clone()));
    assert_eq!((env.heard().await.len(), env.dead().await.len()), (0, 0));
    assert_eq!(
        env.end(vec![result(&present, "present")]).await,
        [CommandResult::Ended]
    );
    assert_eq!(env.heard().await, ["work present"]);
}

async fn one_lease_ends_once_in_a_batch(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    let decided = env
        .end(vec![result(&lease, "one"), result(&lease, "two")])
        .await;
    assert_eq!(decided, [CommandResult::Ended, CommandResult::LeaseLost]);
    assert_eq!(env.heard().await, ["work one"]);
}

/// Changes the store while a handler runs, once.
struct Meanwhile<S>(S, std::sync::Mutex<bool>);

impl<S: Store> Replace for Meanwhile<S> {
    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        Ledger.handle(states, event, fact, now)
    }

    fn execute(
        &self,
        states: &mut States<Account>,
        request: &Request,
        command: &ledger::LedgerCommand,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        if std::mem::take(&mut *self.1.lock().unwrap()) {
            let store = self.0.clone();
            // The store's own threads do the work, so this thread may wait.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let beat = store.task_holders().await.unwrap()[0].beat;
                    let taken = store.take_over_tasks(holder(1), beat, at(50)).await;
                    assert_eq!(taken.unwrap(), Some(1));
                });
            })
            .join()
            .unwrap();
        }
        Ledger.execute(states, request, command, now)
    }
}

async fn conflict_reads_the_lease_again(store: impl Store) {
    let meanwhile = Meanwhile(store.clone(), std::sync::Mutex::new(true));
    let mut env = TestEnv::with(LedgerWith(meanwhile), &store);
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    // It was held when it was read, and is lost when the result is committed.
    assert_eq!(
        env.end(vec![result(&lease, "late")]).await,
        [CommandResult::LeaseLost]
    );
    assert_eq!(env.heard().await, [""; 0]);
    let row = env.row("work").await.unwrap();
    assert_eq!((row.state, row.crashes), (TaskState::Ready, 1));
}

async fn two_owners_end_a_task_once(store: impl Store) {
    let (mut one, mut two) = (TestEnv::new(&store), TestEnv::new(&store));
    for round in 1..=20 {
        one.start(round, "work", labor()).await;
        let lease = one.claim_one(1).await;
        let ends = vec![result(&lease, &round.to_string())];
        let (a, b) = tokio::join!(one.end(ends.clone()), two.end(ends));
        let mut both = [a, b].concat();
        both.sort_by_key(|decided| *decided == CommandResult::LeaseLost);
        assert_eq!(both, [CommandResult::Ended, CommandResult::LeaseLost]);
        assert_eq!(one.heard().await.len() as u64, round);
    }
    assert_eq!(one.tasks_done().await, 20);
}

async fn unknown_effect_waits_for_the_operator(store: impl Store) {
    let mut env = TestEnv::new(&store);
    for (sequence, id) in (1..).zip(["a", "b", "c"]) {
        env.start(sequence, id, labor()).await;
    }
    let unknown = TaskFinish::Unknown {
        error: "no answer".to_owned(),
    };
    let leases = env.claim(1).await;
    let ends = leases
        .iter()
        .map(|lease| end(lease, unknown.clone()))
        .collect();
    assert_eq!(env.end(ends).await, [const { CommandResult::Ended }; 3]);
    assert_eq!(env.heard().await, ["a Unknown", "b Unknown", "c Unknown"]);
    assert_eq!(env.claim(1).await, []);
    // A handler's cancellation decides nothing.
    env.deliver(4, Move::CancelTask("a".to_owned())).await;
    assert_eq!(env.row("a").await.unwrap().state, TaskState::Unknown);
    let decisions = [
        ("a", TaskDecision::ResolveAsDone),
        ("b", TaskDecision::ResolveAsFailed),
        ("c", TaskDecision::Retry),
    ];
    for (id, decision) in decisions {
        decide_task(&store, &task_id(id), decision, at(20))
            .await
            .unwrap();
    }
    let leases = env.claim(2).await;
    let ends = leases.iter().map(|lease| match lease.row.directive {
        Some(directive) => end(lease, TaskFinish::Directed(directive)),
        None => result(lease, "done"),
    });
    assert_eq!(
        env.end(ends.collect()).await,
        [const { CommandResult::Ended }; 3]
    );
    assert_eq!(
        env.heard().await[3..],
        ["a SettledDone", "b SettledFailed", "c done"]
    );
    assert_eq!(store.usage().await.unwrap().tasks.rows, 0);
    // Neither decision is a failure.
    assert_eq!(env.dead().await, []);
}

async fn cancel_and_result_meet_in_both_orders(store: impl Store) {
    let mut env = TestEnv::new(&store);
    let cancel = || Move::CancelTask("work".to_owned());
    // The cancellation comes first, and the task has its result all the same.
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    env.deliver(2, cancel()).await;
    let beat = store
        .beat_tasks(holder(1), Vec::new(), at(5))
        .await
        .unwrap();
    assert_eq!(beat.cancelled, [task_id("work")]);
    assert_eq!(
        env.end(vec![result(&lease, "done")]).await,
        [CommandResult::Ended]
    );
    // The result comes first: there is nothing to cancel. Both in one commit are the same.
    env.deliver(3, cancel()).await;
    env.start(4, "work", labor()).await;
    let lease = env.claim_one(1).await;
    let together = vec![delivery(5, &cancel())];
    let decided = env
        .end_beside(together, Vec::new(), vec![result(&lease, "again")])
        .await;
    assert_eq!(decided, [CommandResult::Ended]);
    // It is cancelled before it runs.
    env.start(6, "work", labor()).await;
    env.deliver(7, cancel()).await;
    let lease = env.claim_one(1).await;
    let directive = lease.row.directive.unwrap();
    let cancelled = end(&lease, TaskFinish::Directed(directive));
    let late = result(&lease, "late");
    let decided = env.end(vec![cancelled, late]).await;
    assert_eq!(decided, [CommandResult::Ended, CommandResult::LeaseLost]);
    assert_eq!(
        env.heard().await,
        ["work done", "work again", "work Cancelled"]
    );
    assert_eq!(env.row("work").await, None);
}

async fn result_may_start_its_task_again(store: impl Store) {
    let mut env = TestEnv::new(&store);
    let again = Labor {
        errors: 0,
        twist: Twist::Again,
    };
    env.start(1, "work", again).await;
    // The live one stays.
    env.start(2, "work", labor()).await;
    let first = env.claim_one(1).await;
    assert_eq!(
        env.end(vec![result(&first, "first")]).await,
        [CommandResult::Ended]
    );
    let second = env.claim_one(1).await;
    assert!(second.row.number > first.row.number && second.token > first.token);
    assert_eq!(
        env.end(vec![result(&first, "first")]).await,
        [CommandResult::LeaseLost]
    );
    assert_eq!(
        env.end(vec![result(&second, "second")]).await,
        [CommandResult::Ended]
    );
    assert_eq!(env.heard().await, ["work first", "work second"]);
    assert_eq!((env.row("work").await, env.tasks_done().await), (None, 2));
}

async fn rejected_result_starts_nothing(store: impl Store) {
    let mut env = TestEnv::new(&store);
    let start = order("1", at(9), ACCOUNT, Bid::Start("other".to_owned(), labor()));
    let spoiled = Labor {
        errors: 0,
        twist: Twist::Spoiled,
    };
    env.start(1, "work", spoiled).await;
    let lease = env.claim_one(1).await;
    let decided = env
        .end_beside(Vec::new(), vec![start], vec![result(&lease, "done")])
        .await;
    assert_eq!(decided[1], CommandResult::Ended);
    let live = store.tasks(Default::default(), None, 9).await.unwrap();
    let ids: Vec<_> = live.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["other"]);
    assert_eq!(env.heard().await, ["work Failed"]);
}

async fn result_has_no_reply_and_no_deadline(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    let mut commands = env
        .engine
        .read_commands([])
        .with_ends(vec![result(&lease, "late")]);
    // A year after its start: a client's command would be too old.
    let late = at(365 * 24 * 3_600);
    env.engine.execute(&mut commands, late, 0.5).await.unwrap();
    assert_eq!(commands.take_decided(), [(0, CommandResult::Ended)]);
    assert_eq!(env.heard().await, ["work late"]);
    let summary = store.summary(late).await.unwrap();
    assert_eq!((summary.usage.replies.rows, summary.tally.executed), (0, 0));
}

/// A progress of a running task.
fn progress(lease: &LeasedTask, done: u64) -> TaskProgress {
    TaskProgress {
        id: lease.row.id.clone(),
        token: lease.token,
        done,
        total: 4,
        note: Some("half".to_owned()),
        checkpoint: None,
    }
}

async fn query_shows_progress_until_the_end(store: impl Store) {
    let mut env = TestEnv::with(Watcher, &store);
    env.start(1, "work", labor()).await;
    env.start(2, "other", labor()).await;
    let watch = async |env: &TestEnv<Watcher, _>| {
        let account = ACCOUNT.to_owned();
        let query = ledger::request("gateway/1", "q", at(5), &QueryAccount { account });
        let answer = env.engine.queries().answer(&query, at(5)).await.unwrap();
        serde_json::from_slice::<(Option<u64>, Vec<String>)>(&answer.unwrap()).unwrap()
    };
    assert_eq!(watch(&env).await, (Some(0), Vec::new()));
    let leases = env.claim(1).await;
    let beat = store.beat_tasks(holder(1), vec![progress(&leases[0], 3)], at(6));
    assert_eq!(beat.await.unwrap().lost, []);
    assert_eq!(watch(&env).await, (Some(3), Vec::new()));
    env.end(leases.iter().map(|lease| result(lease, "done")).collect())
        .await;
    let ends = ["work done", "other done"].map(str::to_owned).to_vec();
    assert_eq!(watch(&env).await, (None, ends));
}
