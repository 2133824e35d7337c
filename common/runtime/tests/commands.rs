//! The engine on the store in memory: commands, queries and scheduled events, one promise a test.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Idempotency, Rejection, Request, Sender, Timestamp};
use doorstep_runtime::{
    BatchReport, CommandResult, DeliveryHistory, Engine, InboundMessage, Limits,
};
use doorstep_store::{
    CrashCountChange, DeadLetterFilter, EntityKey, MemoryStore, ReadSet as Load, Store, StoreUsage,
    WriteSet,
};
use ledger::{AccountStatus, Bid, Ledger, Move, QueryAccount, event, order, request};

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn after(seconds: u64) -> Timestamp {
    now() + Duration::from_secs(seconds)
}

struct TestEnv {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
}

impl TestEnv {
    fn new() -> Self {
        Self::on(MemoryStore::new("ledger"))
    }

    /// Creates another process on the same store.
    fn on(store: MemoryStore) -> Self {
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
        }
    }

    async fn decide(
        &mut self,
        at: Timestamp,
        commands: Vec<(Request, DeliveryHistory)>,
    ) -> Vec<CommandResult> {
        let mut decided: Vec<_> = commands.iter().map(|_| None).collect();
        let mut commands = self.engine.read_commands(commands);
        while !commands.is_done() {
            self.engine.execute(&mut commands, at, 0.5).await.unwrap();
            for (place, one) in commands.take_decided() {
                assert!(decided[place].replace(one).is_none(), "decided twice");
            }
        }
        decided.into_iter().map(Option::unwrap).collect()
    }

    async fn execute_all(&mut self, commands: Vec<Request>) -> Vec<Result<AccountStatus, String>> {
        let commands = commands
            .into_iter()
            .map(|c| (c, DeliveryHistory::First))
            .collect();
        let decided = self.decide(now(), commands).await;
        decided.into_iter().map(answer).collect()
    }

    async fn execute(&mut self, command: Request) -> Result<AccountStatus, String> {
        self.execute_all(vec![command]).await.remove(0)
    }

    async fn deliver(&mut self, events: Vec<doorstep_event::Event>) -> BatchReport {
        let batch = events
            .into_iter()
            .map(|event| InboundMessage::event(event, Sender::Anonymous));
        let mut batch = self.engine.read_batch(batch.collect());
        self.engine.process(&mut batch, now(), 0.5).await.unwrap()
    }

    async fn work_due(&mut self, at: Timestamp) {
        while self.engine.process_due(at, 0.5).await.unwrap().is_some() {}
    }

    async fn entries(&self, account: &str) -> Vec<String> {
        ledger::entries(&self.store, account).await
    }

    async fn usage(&self) -> StoreUsage {
        self.store.summary(now()).await.unwrap().usage
    }

    async fn query(&self, account: &str) -> Result<AccountStatus, String> {
        let account = account.to_owned();
        let query = request("gateway/1", "q", now(), &QueryAccount { account });
        let answer = self.engine.queries().answer(&query, now()).await.unwrap();
        read(answer)
    }
}

/// Returns the reply, or the code of the rejection.
fn answer(decided: CommandResult) -> Result<AccountStatus, String> {
    match decided {
        CommandResult::Answer(answer) => read(answer),
        CommandResult::Expired => Err("expired".to_owned()),
        CommandResult::Ended | CommandResult::LeaseLost => panic!("it is no task"),
    }
}

fn read(answer: doorstep_event::RequestResult) -> Result<AccountStatus, String> {
    let reply = answer.map_err(|rejected| rejected.code)?;
    Ok(serde_json::from_slice(&reply).unwrap())
}

fn standing(balance: i64, entries: usize) -> Result<AccountStatus, String> {
    Ok(AccountStatus { balance, entries })
}

fn rejected(code: &str) -> Result<AccountStatus, String> {
    Err(code.to_owned())
}

fn deposit(id: &str, amount: i64) -> Request {
    order(id, now(), "account/a", Bid::Deposit(amount))
}

#[tokio::test]
async fn command_is_executed_once_and_replied_again() {
    let mut env = TestEnv::new();
    assert_eq!(env.execute(deposit("1", 5)).await, standing(5, 1));
    assert_eq!(env.execute(deposit("2", 2)).await, standing(7, 2));
    let mut again = deposit("1", 5);
    again.deadline = after(60);
    again.traceparent = Some("00-another-attempt-01".into());
    assert_eq!(env.execute(again.clone()).await, standing(5, 1));
    let mut other = TestEnv::on(env.store.clone());
    assert_eq!(other.execute(again).await, standing(5, 1));
    assert_eq!(env.entries("account/a").await.len(), 2);
    let summary = env.store.summary(now()).await.unwrap();
    assert_eq!((summary.tally.executed, summary.usage.replies.rows), (2, 2));
    // Each deposit emits one event.
    assert_eq!(summary.usage.outbox.rows, 2);
}

#[tokio::test]
async fn reply_to_a_one_shot_command_expires_sooner() {
    let mut env = TestEnv::new();
    let once = Request {
        idempotency: Idempotency::OneShot,
        ..deposit("1", 5)
    };
    assert_eq!(env.execute(once.clone()).await, standing(5, 1));
    assert_eq!(env.execute(deposit("2", 2)).await, standing(7, 2));
    // A retry after a commit of unknown outcome finds the reply.
    assert_eq!(env.execute(once).await, standing(5, 1));
    let limits = Limits::default();
    for (hours, kept) in [(1, 2), (2, 1), (24, 1), (26, 0)] {
        let oldest = limits.oldest_reply(after(hours * 3600));
        env.store.prune_replies(oldest, 100).await.unwrap();
        let replies = env.usage().await.replies.rows;
        assert_eq!(replies, kept, "after {hours} h");
    }
}

#[tokio::test]
async fn command_twice_in_a_batch_is_executed_once() {
    let mut env = TestEnv::new();
    let commands = vec![deposit("1", 5), deposit("1", 5), deposit("1", 6)];
    let answers = env.execute_all(commands).await;
    assert_eq!(answers[..2], [standing(5, 1), standing(5, 1)]);
    assert_eq!(answers[2], rejected(Rejection::ID_REUSED));
    assert_eq!(env.entries("account/a").await.len(), 1);
}

#[tokio::test]
async fn another_command_under_a_known_id_is_rejected() {
    let mut env = TestEnv::new();
    env.execute(deposit("1", 5)).await.unwrap();
    assert_eq!(
        env.execute(deposit("1", 6)).await,
        rejected(Rejection::ID_REUSED)
    );
    // The same id of another caller is another command.
    let mut another = deposit("1", 6);
    another.caller = doorstep_event::Source::new("gateway/2").unwrap();
    assert_eq!(env.execute(another).await, standing(11, 2));
}

#[tokio::test]
async fn rejection_leaves_the_command_executable() {
    let mut env = TestEnv::new();
    let withdraw = order("1", now(), "account/a", Bid::Withdraw(5));
    assert_eq!(env.execute(withdraw.clone()).await, rejected("short"));
    let early = order("2", now(), "account/a", Bid::AfterOpen);
    assert_eq!(env.execute(early).await, rejected(Rejection::NOT_YET));
    let panics = order("3", now(), "account/a", Bid::Panic);
    assert_eq!(env.execute(panics).await, rejected(Rejection::FAILED));
    let mut spoiled = deposit("4", 5);
    spoiled.data = bytes::Bytes::from_static(br#"{"account":"account/a","bid":{"Deposit":-1}}"#);
    assert_eq!(env.execute(spoiled).await, rejected(Rejection::BAD_REQUEST));
    // Nor is a row created: requests for entities that do not exist fill no store.
    let summary = env.store.summary(now()).await.unwrap();
    assert_eq!((summary.usage, summary.commits), (StoreUsage::default(), 0));
    let loaded = env
        .store
        .read_entities(vec![EntityKey::new("account/a")])
        .await;
    assert_eq!(loaded.unwrap()[0].row, None);

    env.execute(deposit("5", 9)).await.unwrap();
    assert_eq!(env.execute(withdraw).await, standing(4, 2));
    let removes = order("6", now(), "account/a", Bid::Remove);
    assert_eq!(env.execute(removes).await, standing(4, 2));
    assert_eq!(env.store.entities(None, 1).await.unwrap(), []);
}

#[tokio::test]
async fn rejection_spares_other_commands() {
    let mut env = TestEnv::new();
    let on = |id, bid| order(id, now(), "account/a", bid);
    let commands = vec![
        on("1", Bid::Withdraw(1)),
        on("2", Bid::Deposit(3)),
        on("3", Bid::Panic),
        on("4", Bid::Withdraw(2)),
    ];
    let expected = [
        rejected("short"),
        standing(3, 1),
        rejected(Rejection::FAILED),
        standing(1, 2),
    ];
    assert_eq!(env.execute_all(commands).await, expected);
}

#[tokio::test]
async fn expired_command_is_not_started() {
    let mut env = TestEnv::new();
    let late = deposit("1", 5);
    let decided = env
        .decide(late.deadline, vec![(late.clone(), DeliveryHistory::First)])
        .await;
    assert_eq!(decided, [CommandResult::Expired]);
    let decided = env
        .decide(late.deadline, vec![(late, DeliveryHistory::Redelivered)])
        .await;
    assert_eq!(decided, [CommandResult::Expired]);
    assert_eq!(env.usage().await, StoreUsage::default());
}

#[tokio::test]
async fn command_expiring_while_it_waits_is_not_started() {
    let mut env = TestEnv::new();
    let mut almost_late = deposit("1", 5);
    // Reaching it takes longer than that.
    almost_late.deadline = now() + Duration::from_nanos(1);
    for past in [DeliveryHistory::First, DeliveryHistory::Redelivered] {
        let decided = env.decide(now(), vec![(almost_late.clone(), past)]).await;
        assert_eq!(decided, [CommandResult::Expired]);
    }
    assert_eq!(env.usage().await, StoreUsage::default());
    // With a frozen clock, it is in time.
    let limits = Limits::default();
    let mut still = Engine::new(Ledger, env.store.clone(), limits).with_frozen_clock();
    let mut commands = still.read_commands([(almost_late, DeliveryHistory::First)]);
    still.execute(&mut commands, now(), 0.5).await.unwrap();
    let decided = commands.take_decided().remove(0).1;
    assert_eq!(answer(decided), standing(5, 1));
}

#[tokio::test]
async fn abandoned_command_is_not_tried_alone() {
    let mut env = TestEnv::new();
    let asked = ["1", "2", "3"].map(|id| (deposit(id, 1), DeliveryHistory::Redelivered));
    let mut commands = env.engine.read_commands(asked);
    env.engine.execute(&mut commands, now(), 0.5).await.unwrap();
    assert_eq!(commands.take_decided().len(), 1);
    assert_eq!(commands.give_up(|place| place < 2), [1]);
    assert!(!commands.is_done());
    env.engine.execute(&mut commands, now(), 0.5).await.unwrap();
    let (place, decided) = commands.take_decided().remove(0);
    assert_eq!((place, answer(decided)), (2, standing(2, 2)));
    assert!(commands.is_done());
}

#[tokio::test]
async fn command_older_than_the_retention_is_rejected() {
    let mut env = TestEnv::new();
    let kept = Limits::default().reply_retention;
    let from = |id, time| {
        let mut command = deposit(id, 5);
        command.time = time;
        command.deadline = after(60);
        command
    };
    let just = now().checked_sub(kept).unwrap();
    assert!(env.execute(from("1", just)).await.is_ok());
    let older = just - Duration::from_secs(1);
    let too_old = env.execute(from("2", older)).await;
    assert_eq!(too_old, rejected(Rejection::TOO_OLD));
    let ahead = env.execute(from("3", after(3_601))).await;
    assert_eq!(ahead, rejected(Rejection::BAD_REQUEST));
    // As long as it is not too old, its reply is kept.
    let limits = Limits::default();
    for command in [from("4", after(3_000)), from("5", now())] {
        env.execute(command.clone()).await.unwrap();
        let last = command.time + kept;
        let oldest = limits.oldest_reply(last);
        env.store.prune_replies(oldest, 100).await.unwrap();
        let mut again = command.clone();
        again.deadline = last + Duration::from_secs(1);
        let before = env.entries("account/a").await;
        let decided = env
            .decide(last, vec![(again, DeliveryHistory::First)])
            .await;
        assert!(answer(decided[0].clone()).is_ok());
        assert_eq!(env.entries("account/a").await, before);
    }
}

#[tokio::test]
async fn commands_and_events_share_one_commit() {
    let mut env = TestEnv::new();
    let opens = event("shop", "account/a", 1, &Move::Open);
    let incoming = InboundMessage::event(opens, Sender::Anonymous);
    let mut batch = env.engine.read_batch(vec![incoming]);
    let command = order("1", now(), "account/a", Bid::AfterOpen);
    let mut commands = env
        .engine
        .read_commands([(command, DeliveryHistory::First)]);
    let worked = env
        .engine
        .process_with_commands(&mut batch, &mut commands, now(), 0.5)
        .await
        .unwrap();
    assert!(batch.is_done() && commands.is_done());
    assert_eq!((worked.tally.applied, worked.tally.executed), (1, 1));
    assert_eq!(env.store.summary(now()).await.unwrap().commits, 1);
    let decided = commands.take_decided().remove(0).1;
    assert_eq!(answer(decided), standing(0, 2));
    // The next event finds the command's state in the cache.
    let worked = env
        .deliver(vec![event("shop", "account/a", 2, &Move::Add(1))])
        .await;
    assert_eq!(worked.conflicts, 0);
    assert_eq!(env.query("account/a").await, standing(1, 3));
}

#[tokio::test]
async fn command_in_two_processes_is_executed_by_one() {
    let mut one = TestEnv::new();
    let mut two = TestEnv::on(one.store.clone());
    // The second one's cache is stale by the time of its command.
    two.execute(order("0", now(), "account/a", Bid::Nothing))
        .await
        .unwrap();
    assert_eq!(one.execute(deposit("1", 5)).await, standing(5, 1));
    assert_eq!(two.execute(deposit("1", 5)).await, standing(5, 1));
    let withdraw = order("2", now(), "account/a", Bid::Withdraw(5));
    assert_eq!(two.execute(withdraw).await, standing(0, 2));
    let refusal = order("3", now(), "account/a", Bid::Withdraw(1));
    assert_eq!(one.execute(refusal).await, rejected("short"));
}

/// A rejected command changes nothing, so only the check of the row that it has read shows that the cache is stale.
#[tokio::test]
async fn stale_cache_rejects_no_command() {
    for past in [DeliveryHistory::First, DeliveryHistory::Redelivered] {
        let mut one = TestEnv::new();
        let mut two = TestEnv::on(one.store.clone());
        assert_eq!(two.execute(deposit("1", 1)).await, standing(1, 1));
        assert_eq!(one.execute(deposit("2", 99)).await, standing(100, 2));
        // The second process has cached an account with 1.
        let withdraw = order("3", now(), "account/a", Bid::Withdraw(50));
        let decided = two.decide(now(), vec![(withdraw, past)]).await;
        let replies: Vec<_> = decided.into_iter().map(answer).collect();
        assert_eq!(replies, [standing(50, 3)], "{past:?}");
    }
}

#[tokio::test]
async fn poison_command_is_rejected_after_max_crashes() {
    let env = TestEnv::new();
    let limit = Limits::default().max_crashes;
    // A crashed process is an engine that is never polled again: it has raised the crash count, and no outcome follows.
    let counted = async |command: &Request| {
        let mut dying = TestEnv::on(env.store.clone());
        let decided = dying
            .decide(now(), vec![(command.clone(), DeliveryHistory::Redelivered)])
            .await;
        decided.into_iter().map(answer).collect::<Vec<_>>()
    };
    let poison = deposit("poison", 5);
    let key = doorstep_runtime::engine::crash_key(&poison);
    let count = async |before, after| {
        let mut changes = WriteSet::at(now());
        let (source, id) = key.clone();
        changes.crash_counts = vec![CrashCountChange {
            source,
            id,
            before,
            after,
        }];
        env.store.commit(changes).await.unwrap();
    };
    count(0, limit).await;
    assert_eq!(counted(&poison).await, [rejected(Rejection::FAILED)]);
    // A repeated request is not tried again either, even as a first delivery, and other commands do not suffer.
    let mut fresh = TestEnv::on(env.store.clone());
    let answers = fresh
        .execute_all(vec![
            deposit("before", 1),
            poison.clone(),
            deposit("behind", 2),
        ])
        .await;
    assert_eq!(answers[0], standing(1, 1));
    assert_eq!(answers[1], rejected(Rejection::FAILED));
    assert_eq!(answers[2], standing(3, 2));
    // With one crash less it is tried, and its result resets the count.
    count(limit, limit - 1).await;
    assert_eq!(counted(&poison).await, [standing(8, 3)]);
    let ask = Load {
        crash_counts: vec![key.clone()],
        ..Load::default()
    };
    assert_eq!(env.store.load(ask).await.unwrap().crash_counts, [0]);
    assert_eq!(counted(&poison).await, [standing(8, 3)]);
}

#[tokio::test]
async fn queries_change_nothing() {
    let mut env = TestEnv::new();
    assert_eq!(env.query("account/a").await, rejected("unknown_account"));
    env.execute(deposit("1", 5)).await.unwrap();
    let before = env.store.summary(now()).await.unwrap();
    assert_eq!(env.query("account/a").await, standing(5, 1));
    let unknown = deposit("2", 5);
    let answered = env.engine.queries().answer(&unknown, now()).await.unwrap();
    assert_eq!(read(answered), rejected(Rejection::BAD_REQUEST));
    for (sequence, fact) in [(1, Move::Open), (2, Move::Fix)] {
        let event = event("shop", "account/b", sequence, &fact);
        env.deliver(vec![event]).await;
    }
    assert_eq!(env.query("account/b").await, rejected(Rejection::FAILED));
    let summary = env.store.summary(now()).await.unwrap();
    assert_eq!(summary.tally.executed, before.tally.executed);
    assert_eq!(summary.usage.replies, before.usage.replies);
}

#[tokio::test]
async fn scheduled_event_is_handled_once_when_due() {
    let mut env = TestEnv::new();
    let later = order("1", now(), "account/a", Bid::Later(30, Move::Add(7)));
    env.execute(later.clone()).await.unwrap();
    env.execute(later).await.unwrap();
    let chained = Move::Later(20, Box::new(Move::Tell));
    env.deliver(vec![event("shop", "account/a", 1, &chained)])
        .await;
    assert_eq!(env.usage().await.timers.rows, 2);
    env.work_due(after(19)).await;
    assert_eq!(env.entries("account/a").await.len(), 2);
    env.work_due(after(30)).await;
    let mut other = TestEnv::on(env.store.clone());
    other.work_due(after(99)).await;
    assert_eq!(env.query("account/a").await, standing(7, 4));
    let entries = env.entries("account/a").await;
    assert!(entries[2..].iter().all(|e| e.starts_with("scheduled-")));
    let usage = env.usage().await;
    assert_eq!((usage.timers.rows, usage.outbox.rows), (0, 1));
}

#[tokio::test]
async fn rejected_scheduled_event_blocks_nothing() {
    let mut env = TestEnv::new();
    let later = |id, fact| order(id, now(), "account/a", Bid::Later(1, fact));
    env.execute(later("1", Move::PoisonUntilFixed))
        .await
        .unwrap();
    env.execute(later("2", Move::AfterOpen)).await.unwrap();
    env.work_due(after(1)).await;
    let dead = env
        .store
        .dead_letters(DeadLetterFilter::All, None, 9)
        .await
        .unwrap();
    assert_eq!((dead.len(), dead[0].blocks), (1, false));
    // The other one waits like any event.
    let usage = env.usage().await;
    assert_eq!((usage.timers.rows, usage.deferred.rows), (0, 1));
    for (sequence, fact) in [(1, Move::Open), (2, Move::Fix)] {
        let event = event("shop", "account/a", sequence, &fact);
        env.deliver(vec![event]).await;
    }
    env.work_due(after(2)).await;
    assert_eq!(env.entries("account/a").await.len(), 5);
    doorstep_runtime::operate::replay(&env.store, &dead[0].id, after(3))
        .await
        .unwrap();
    env.work_due(after(3)).await;
    assert_eq!(env.entries("account/a").await.len(), 6);
    let usage = env.usage().await;
    assert_eq!((usage.dead_letters.rows, usage.deferred.rows), (0, 0));
}
