//! A role without a queue, called in its own process while there is no broker.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use doorstep_event::{Event, Rejection, RequestContract, Sender, Subject, Timestamp};
use doorstep_messaging::{BrokerSettings, Topology};
use doorstep_runtime::{
    Effects, Engine, HandlerError, HandlerLock, InboundMessage, Limits, Role, States, operate,
    runner::{self, LocalCallError, LocalClient, Phase, RunSettings, RunningRole},
    task::{TaskEnding, TaskOutcome, TaskSet, kind_of},
};
use doorstep_store::{
    DeadLetterFilter, DeferReason, MemoryStore, NewDeferred, Store, TableUsage, WriteSet,
};
use futures_util::FutureExt;
use ledger::{
    Account, AccountStatus, Bid, Ledger, LedgerWith, Move, QueryAccount, Replace, event,
    labor::{Labor, LaborDone, Twist},
    order, request,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// Enough for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);

fn start(store: &MemoryStore, limits: Limits) -> RunningRole {
    start_role(Ledger, store, limits)
}

fn start_role<R: Role>(role: R, store: &MemoryStore, limits: Limits) -> RunningRole {
    runner::start_without_queue(role, TaskSet::new(), store.clone(), settings(limits))
}

fn settings(limits: Limits) -> RunSettings {
    // An address without a listener.
    let broker = BrokerSettings::new("amqp://127.0.0.1:1", "doorstep").unwrap();
    RunSettings {
        topology: Topology::for_roles(&broker.namespace, &[]),
        broker,
        limits,
        process: HandlerLock::default(),
        shutdown_timeout: Duration::from_millis(100),
        requires_owner_record: true,
    }
}

fn deposit(id: &str, amount: i64) -> doorstep_event::Request {
    order(id, Timestamp::now(), "account/a", Bid::Deposit(amount))
}

async fn execute(
    client: &LocalClient,
    order: doorstep_event::Request,
) -> Result<AccountStatus, String> {
    let answer = client
        .call(order)
        .await
        .map_err(|error| error.to_string())?;
    let reply = answer.map_err(|rejected| rejected.code)?;
    Ok(serde_json::from_slice(&reply).unwrap())
}

async fn account_status(client: &LocalClient) -> Result<AccountStatus, String> {
    let account = "account/a".to_owned();
    let query = request(
        "gateway/1",
        "q",
        Timestamp::now(),
        &QueryAccount { account },
    );
    execute(client, query).await
}

async fn stop(role: RunningRole) {
    role.stop();
    timeout(SOON, role.join()).await.unwrap().unwrap();
}

#[tokio::test]
async fn role_without_a_queue_serves_without_a_broker() {
    let store = MemoryStore::new("ledger");
    let role = start(&store, Limits::default());
    let client = role.local_client();
    let first = AccountStatus {
        balance: 5,
        entries: 1,
    };
    assert_eq!(execute(&client, deposit("1", 5)).await, Ok(first.clone()));
    assert_eq!(execute(&client, deposit("2", 6)).await.unwrap().balance, 11);
    assert_eq!(execute(&client, deposit("1", 5)).await, Ok(first));
    assert_eq!(account_status(&client).await.unwrap().balance, 11);
    let withdraw = order("3", Timestamp::now(), "account/a", Bid::Withdraw(99));
    assert_eq!(execute(&client, withdraw).await, Err("short".to_owned()));
    let mut spoiled = deposit("4", 1);
    spoiled.kind = QueryAccount::request_type();
    let rejected = execute(&client, spoiled).await;
    assert_eq!(rejected, Err(Rejection::BAD_REQUEST.to_owned()));

    let later = Bid::Later(0, Move::Add(100));
    let later = order("5", Timestamp::now(), "account/a", later);
    execute(&client, later).await.unwrap();
    let fired = async {
        while account_status(&client).await.unwrap().balance < 111 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, fired).await.unwrap();
    assert_eq!(role.status().phase, Phase::Consuming);
    // Its outbox is kept until there is a broker.
    let summary = store.summary(Timestamp::now()).await.unwrap();
    assert_eq!(summary.usage.outbox.rows, 2);
    stop(role).await;
    assert_eq!(
        client.execute(deposit("6", 1)).await,
        Err(LocalCallError::Closed),
        "after its end"
    );
}

#[tokio::test]
async fn only_the_runtime_ends_tasks() {
    let store = MemoryStore::new("ledger");
    let tasks = TaskSet::new().with::<Labor>(());
    let role = runner::start_with_tasks(Ledger, tasks, store.clone(), settings(Limits::default()));
    let without = start(&store, Limits::default());
    let worked = LaborDone {
        account: "account/a".to_owned(),
        task: "work".to_owned(),
        by: "nobody".to_owned(),
        twist: Twist::None,
    };
    let outcome = TaskOutcome {
        task: "work".to_owned(),
        kind: kind_of::<Labor>(),
        subject: Subject::new("account/a").unwrap(),
        ending: TaskEnding::Cancelled,
        detail: String::new(),
    };
    let now = Timestamp::now();
    let caller = store.source().as_str();
    let outcome = request(caller, "2", now, &outcome);
    let forbidden = Err(Rejection::FORBIDDEN.to_owned());
    let client = role.local_client();
    for forged in [request(caller, "1", now, &worked), outcome.clone()] {
        assert_eq!(execute(&client, forged).await, forbidden);
    }
    assert_eq!(execute(&without.local_client(), outcome).await, forbidden);
    let account = ledger::accounts(&store).await;
    assert_eq!(account, []);
    stop(without).await;
    role.stop();
    drop(timeout(SOON, role.join()).await.unwrap());
}

#[tokio::test]
async fn overload_is_reported_and_expired_commands_never_start() {
    let store = MemoryStore::new("ledger");
    let limits = Limits {
        waiting_commands: 2,
        queries: 0,
        retry_after: Duration::from_secs(7),
        ..Limits::default()
    };
    let role = start(&store, limits);
    let client = role.local_client();
    let retry_after = Duration::from_secs(7);
    // The loop has had no chance to take any of them yet.
    let all = ["1", "2", "3"].map(|id| client.execute(deposit(id, 1)));
    let [one, two, three] = all;
    let (one, two, three) = tokio::join!(one, two, three);
    assert!(one.unwrap().is_ok() && two.unwrap().is_ok());
    assert_eq!(three, Err(LocalCallError::Overloaded { retry_after }));
    let query = QueryAccount {
        account: "account/a".to_owned(),
    };
    let query = request("gateway/1", "q", Timestamp::now(), &query);
    let rejected = client.query(query).await;
    assert_eq!(rejected, Err(LocalCallError::Overloaded { retry_after }));

    let mut late = deposit("4", 1);
    late.deadline = Timestamp::now();
    assert_eq!(client.execute(late).await, Err(LocalCallError::TimedOut));
    // A command whose caller goes away before its start is never started.
    let mut gone = Box::pin(client.execute(deposit("5", 1)));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    assert_eq!(execute(&client, deposit("6", 1)).await.unwrap().balance, 3);
    let entries = ledger::entries(&store, "account/a").await;
    assert_eq!(entries.len(), 3, "{entries:?}");
    stop(role).await;
}

#[tokio::test]
async fn command_taken_before_a_stop_is_served() {
    let store = MemoryStore::new("ledger");
    let role = start(&store, Limits::default());
    let client = role.local_client();
    execute(&client, deposit("0", 1)).await.unwrap();
    let mut asked: Vec<_> = (1..50)
        .map(|n| Box::pin(client.execute(deposit(&n.to_string(), 1))))
        .collect();
    for one in &mut asked {
        assert!(one.as_mut().now_or_never().is_none());
    }
    role.stop();
    for one in asked {
        assert!(one.await.unwrap().is_ok());
    }
    timeout(SOON, role.join()).await.unwrap().unwrap();
}

/// Only the store's sweep finds it.
#[tokio::test]
async fn role_applies_a_missed_deferred_event() {
    let store = MemoryStore::new("ledger");
    let mut engine = Engine::new(Ledger, store.clone(), Limits::default());
    let next = |sequence| event("shop", "account/a", sequence, &Move::Add(1));
    let first = InboundMessage::event(next(1), Sender::Anonymous);
    let mut batch = engine.read_batch(vec![first]);
    engine
        .process(&mut batch, Timestamp::now(), 0.5)
        .await
        .unwrap();
    let mut changes = WriteSet::at(Timestamp::now());
    changes.defer = vec![NewDeferred {
        event: next(2),
        defect: None,
        reason: DeferReason::OutOfOrder,
        due: None,
        attempts: 0,
        since: Timestamp::now(),
    }];
    store.commit(changes).await.unwrap();
    let role = start(&store, Limits::default());
    let applied = async {
        while ledger::entries(&store, "account/a").await.len() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, applied).await.unwrap();
    stop(role).await;
}

/// A process that has just started cannot know whether its clock is right.
#[tokio::test]
async fn fresh_start_expires_no_waiting_event() {
    let store = MemoryStore::new("ledger");
    let mut engine = Engine::new(Ledger, store.clone(), Limits::default());
    let long_ago = Timestamp::now() - Limits::default().max_wait * 2;
    let waiting = InboundMessage::event(
        event("shop", "account/a", 1, &Move::AfterOpen),
        Sender::Anonymous,
    );
    let mut batch = engine.read_batch(vec![waiting]);
    engine.process(&mut batch, long_ago, 0.5).await.unwrap();
    let role = start(&store, Limits::default());
    let tried_again = async {
        loop {
            let held = store.due(Timestamp::MAX, 10, u64::MAX).await.unwrap();
            let is_tried = held.first().is_none_or(|held| held.attempts > 1);
            if is_tried {
                return held.len();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(
        timeout(SOON, tried_again).await.unwrap(),
        1,
        "it has expired"
    );
    stop(role).await;
}

#[tokio::test]
async fn full_table_rejects_commands_and_serves_queries() {
    let store = MemoryStore::new("ledger");
    let limits = Limits {
        outbox: TableUsage {
            rows: 2,
            bytes: 1_000_000,
        },
        ..Limits::default()
    };
    let role = start(&store, limits);
    let client = role.local_client();
    execute(&client, deposit("1", 1)).await.unwrap();
    execute(&client, deposit("2", 1)).await.unwrap();
    let shed = client.execute(deposit("3", 1)).await;
    assert!(
        matches!(shed, Err(LocalCallError::Overloaded { .. })),
        "{shed:?}"
    );
    assert_eq!(account_status(&client).await.unwrap().balance, 2);
    assert_eq!(role.status().phase, Phase::Full { table: "outbox" });

    // Rows published by others make room, and the status says so although nothing is processed.
    let now = Timestamp::now();
    // Includes rows that the role has deferred meanwhile, there being no broker.
    let pending = store.outbox(Timestamp::MAX, 10).await.unwrap();
    let published = pending.into_iter().map(|row| row.id).collect();
    let changes = WriteSet {
        published,
        ..WriteSet::at(now)
    };
    store.commit(changes).await.unwrap();
    let room = async {
        while role.status().usage.outbox.rows > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, room).await.unwrap();
    assert_eq!(role.status().phase, Phase::Consuming);
    stop(role).await;
}

/// The ledger, whose first replayed event waits until the gate is opened.
struct Gated(Arc<Gate>);

struct Gate {
    replayed: AtomicUsize,
    has_begun: Notify,
    opened: Mutex<mpsc::Receiver<()>>,
}

impl Replace for Gated {
    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let effects = Ledger.handle(states, event, fact, now)?;
        let gate = &self.0;
        if *fact == Move::PoisonUntilFixed && gate.replayed.fetch_add(1, Ordering::SeqCst) == 0 {
            gate.has_begun.notify_one();
            let _ = gate.opened.lock().unwrap().recv();
        }
        Ok(effects)
    }
}

/// Dead letters to replay: many slices of them.
const LETTERS: usize = 3_000;

fn in_slices() -> Limits {
    Limits {
        due_events: 100,
        batch_commands: 1,
        ..Limits::default()
    }
}

/// Returns a store with a large replay to do.
async fn store_with_replay() -> MemoryStore {
    let store = MemoryStore::new("ledger");
    // Each has a source of its own, so that none waits for another, and all have one account, which records their
    // order.
    let poison = &Move::PoisonUntilFixed;
    let rejected =
        (0..LETTERS).map(|n| ledger::event(&format!("shop/{n}"), "account/a", 1, poison));
    let fixed = ledger::event("fix", "account/a", 1, &Move::Fix);
    let mut engine = Engine::new(Ledger, store.clone(), in_slices());
    for events in [rejected.collect(), vec![fixed]] {
        let incoming = events
            .into_iter()
            .map(|event| InboundMessage::event(event, Sender::Anonymous));
        let mut batch = engine.read_batch(incoming.collect());
        let worked = engine.process(&mut batch, Timestamp::now(), 0.5).await;
        assert!(worked.is_ok() && batch.is_done());
    }
    let dead = store
        .dead_letters(DeadLetterFilter::All, None, LETTERS + 1)
        .await;
    let dead = dead.unwrap();
    assert_eq!(dead.len(), LETTERS);
    for letter in &dead {
        let replayed = operate::replay(&store, &letter.id, Timestamp::now()).await;
        replayed.unwrap();
    }
    store
}

/// Returns a role within the first slice of its replay, which continues once the gate is opened.
async fn amid_replay(store: &MemoryStore) -> (RunningRole, mpsc::Sender<()>) {
    let (open, opened) = mpsc::channel();
    let gate = Arc::new(Gate {
        replayed: AtomicUsize::new(0),
        has_begun: Notify::new(),
        opened: Mutex::new(opened),
    });
    let role = start_role(LedgerWith(Gated(Arc::clone(&gate))), store, in_slices());
    timeout(SOON, gate.has_begun.notified()).await.unwrap();
    (role, open)
}

async fn to_be_replayed(store: &MemoryStore) -> u64 {
    let summary = store.summary(Timestamp::now()).await.unwrap();
    summary.usage.dead_letters.rows
}

fn patient(id: &str) -> doorstep_event::Request {
    let mut order = deposit(id, 1);
    order.deadline = Timestamp::now() + 10 * SOON;
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_served_during_a_large_replay() {
    let store = store_with_replay().await;
    let (role, open) = amid_replay(&store).await;
    let client = role.local_client();
    let mut answer = Box::pin(execute(&client, patient("1")));
    assert!(answer.as_mut().now_or_never().is_none());
    open.send(()).unwrap();
    assert_eq!(answer.await.unwrap().balance, 1);
    let over = async {
        while to_be_replayed(&store).await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(10 * SOON, over).await.unwrap();
    let entries = ledger::entries(&store, "account/a").await;
    assert_eq!(entries.len(), LETTERS + 2);
    let place = entries.iter().position(|entry| entry == "gateway/1 1");
    let replayed_before = place.unwrap() - 1;
    assert!((1..LETTERS).contains(&replayed_before), "{replayed_before}");
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_continues_under_constant_calls() {
    const CALLERS: usize = 4;
    let store = store_with_replay().await;
    let (role, open) = amid_replay(&store).await;
    let client = role.local_client();
    // More wait than a slice takes, so that there is always one.
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut n = 0_u64;
                while execute(&client, patient(&format!("{caller}-{n}")))
                    .await
                    .is_ok()
                {
                    n += 1;
                }
            })
        })
        .collect();
    open.send(()).unwrap();
    let over = async {
        while to_be_replayed(&store).await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(10 * SOON, over).await.unwrap();
    for caller in &callers {
        assert!(!caller.is_finished(), "a caller was not answered");
        caller.abort();
    }
    stop(role).await;
    // A slice of the replay follows each slice of commands, which is one here.
    let entries = ledger::entries(&store, "account/a").await;
    let last = entries.iter().rposition(|entry| entry.starts_with("shop/"));
    let before = entries.iter().take(last.unwrap());
    let commands = before.filter(|entry| entry.starts_with("gateway/")).count();
    let slices = LETTERS / in_slices().due_events;
    assert!(
        commands <= 2 * slices,
        "{commands} commands, {slices} slices"
    );
}
