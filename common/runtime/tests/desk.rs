//! A role without a queue, asked in its own process while there is no broker.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Refused, RequestContract, Sender, Timestamp};
use doorstep_messaging::{BrokerSettings, Topology};
use doorstep_runtime::{
    Engine, Incoming, Limits, SharedProcess,
    runner::{self, Desk, DeskError, Phase, RunSettings, RunningRole},
};
use doorstep_store::{Changes, HeldReason, MemoryStore, NewHeld, Store, UsageOf};
use futures_util::FutureExt;
use ledger::{Ask, Bid, Ledger, Move, Standing, event, order, request};
use tokio::time::{sleep, timeout};

/// Enough for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);

fn start(store: &MemoryStore, limits: Limits) -> RunningRole {
    // Nobody listens there.
    let broker = BrokerSettings::new("amqp://127.0.0.1:1", "doorstep").unwrap();
    let settings = RunSettings {
        topology: Topology::of(&broker.namespace, &[]),
        broker,
        limits,
        process: SharedProcess::default(),
        grace: Duration::from_millis(100),
        requires_owner_record: true,
    };
    runner::start_without_queue(Ledger, store.clone(), settings)
}

fn deposit(id: &str, amount: i64) -> doorstep_event::Request {
    order(id, Timestamp::now(), "account/a", Bid::Deposit(amount))
}

async fn obey(desk: &Desk, order: doorstep_event::Request) -> Result<Standing, String> {
    let answer = desk.ask(order).await.map_err(|error| error.to_string())?;
    let reply = answer.map_err(|refused| refused.code)?;
    Ok(serde_json::from_slice(&reply).unwrap())
}

async fn ask(desk: &Desk) -> Result<Standing, String> {
    let account = "account/a".to_owned();
    let query = request("gateway/1", "q", Timestamp::now(), &Ask { account });
    obey(desk, query).await
}

async fn stop(role: RunningRole) {
    role.stop();
    timeout(SOON, role.join()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_role_without_a_queue_obeys_and_answers_while_there_is_no_broker() {
    let store = MemoryStore::new("ledger");
    let role = start(&store, Limits::default());
    let desk = role.desk();
    let first = Standing {
        balance: 5,
        entries: 1,
    };
    assert_eq!(obey(&desk, deposit("1", 5)).await, Ok(first.clone()));
    assert_eq!(obey(&desk, deposit("2", 6)).await.unwrap().balance, 11);
    assert_eq!(obey(&desk, deposit("1", 5)).await, Ok(first));
    assert_eq!(ask(&desk).await.unwrap().balance, 11);
    let withdraw = order("3", Timestamp::now(), "account/a", Bid::Withdraw(99));
    assert_eq!(obey(&desk, withdraw).await, Err("short".to_owned()));
    let mut spoiled = deposit("4", 1);
    spoiled.kind = Ask::request_type();
    let refused = obey(&desk, spoiled).await;
    assert_eq!(refused, Err(Refused::BAD_REQUEST.to_owned()));

    let later = Bid::Later(0, Move::Add(100));
    let later = order("5", Timestamp::now(), "account/a", later);
    obey(&desk, later).await.unwrap();
    let fired = async {
        while ask(&desk).await.unwrap().balance < 111 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, fired).await.unwrap();
    assert_eq!(role.status().phase, Phase::Taking);
    // What it owes is kept until there is a broker.
    let summary = store.summary(Timestamp::now()).await.unwrap();
    assert_eq!(summary.usage.outbox.rows, 2);
    stop(role).await;
    assert_eq!(
        desk.obey(deposit("6", 1)).await,
        Err(DeskError::Closed),
        "after its end"
    );
}

#[tokio::test]
async fn whoever_is_one_too_many_hears_so_and_what_is_expired_is_not_begun() {
    let store = MemoryStore::new("ledger");
    let limits = Limits {
        waiting_commands: 2,
        queries: 0,
        retry_after: Duration::from_secs(7),
        ..Limits::default()
    };
    let role = start(&store, limits);
    let desk = role.desk();
    let retry_after = Duration::from_secs(7);
    // The loop has had no chance to take any of them yet.
    let all = ["1", "2", "3"].map(|id| desk.obey(deposit(id, 1)));
    let [one, two, three] = all;
    let (one, two, three) = tokio::join!(one, two, three);
    assert!(one.unwrap().is_ok() && two.unwrap().is_ok());
    assert_eq!(three, Err(DeskError::Overloaded { retry_after }));
    let query = Ask {
        account: "account/a".to_owned(),
    };
    let query = request("gateway/1", "q", Timestamp::now(), &query);
    let refused = desk.query(query).await;
    assert_eq!(refused, Err(DeskError::Overloaded { retry_after }));

    let mut late = deposit("4", 1);
    late.deadline = Timestamp::now();
    assert_eq!(desk.obey(late).await, Err(DeskError::TimedOut));
    // Whoever goes away before a command was begun has it not begun.
    let mut gone = Box::pin(desk.obey(deposit("5", 1)));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    assert_eq!(obey(&desk, deposit("6", 1)).await.unwrap().balance, 3);
    let entries = ledger::entries(&store, "account/a").await;
    assert_eq!(entries.len(), 3, "{entries:?}");
    stop(role).await;
}

#[tokio::test]
async fn what_was_taken_before_a_stop_is_answered() {
    let store = MemoryStore::new("ledger");
    let role = start(&store, Limits::default());
    let desk = role.desk();
    obey(&desk, deposit("0", 1)).await.unwrap();
    let mut asked: Vec<_> = (1..50)
        .map(|n| Box::pin(desk.obey(deposit(&n.to_string(), 1))))
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

/// Nothing but the net under the store finds it.
#[tokio::test]
async fn a_role_applies_what_it_held_and_was_never_made_due() {
    let store = MemoryStore::new("ledger");
    let mut engine = Engine::new(Ledger, store.clone(), Limits::default());
    let next = |sequence| event("shop", "account/a", sequence, &Move::Add(1));
    let first = Incoming::Event {
        event: next(1),
        defect: None,
        sender: Sender::Anonymous,
    };
    let mut batch = engine.read_batch(vec![first]);
    engine
        .work(&mut batch, Timestamp::now(), 0.5)
        .await
        .unwrap();
    let mut changes = Changes::at(Timestamp::now());
    changes.hold = vec![NewHeld {
        event: next(2),
        defect: None,
        reason: HeldReason::Behind,
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

#[tokio::test]
async fn where_a_table_is_full_commands_are_shed_and_queries_answered() {
    let store = MemoryStore::new("ledger");
    let limits = Limits {
        outbox: UsageOf {
            rows: 2,
            bytes: 1_000_000,
        },
        ..Limits::default()
    };
    let role = start(&store, limits);
    let desk = role.desk();
    obey(&desk, deposit("1", 1)).await.unwrap();
    obey(&desk, deposit("2", 1)).await.unwrap();
    let shed = desk.obey(deposit("3", 1)).await;
    assert!(
        matches!(shed, Err(DeskError::Overloaded { .. })),
        "{shed:?}"
    );
    assert_eq!(ask(&desk).await.unwrap().balance, 2);
    assert_eq!(role.status().phase, Phase::Full { table: "outbox" });

    // What others have sent makes room, and the status says so although nothing is worked.
    let now = Timestamp::now();
    // Also what the role has put off meanwhile, there being no broker.
    let owed = store.outbox(Timestamp::MAX, 10).await.unwrap();
    let paid = owed.into_iter().map(|row| row.id).collect();
    let changes = Changes {
        paid,
        ..Changes::at(now)
    };
    store.commit(changes).await.unwrap();
    let room = async {
        while role.status().usage.outbox.rows > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, room).await.unwrap();
    assert_eq!(role.status().phase, Phase::Taking);
    stop(role).await;
}
