//! Actions of an operator on dead letters, on the store in memory: dry runs, edits, replays, skips, audit records.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, reason = "the role is shared with other tests")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Event, Sender, Timestamp};
use doorstep_runtime::{
    BatchReport, DryRun, Engine, InboundMessage, Limits,
    operate::{self, Attribution, Edit, OperateError, Operator},
};
use doorstep_store::{
    AuditAction, AuditFilter, AuditRow, DeadLetter, DeadLetterFilter, DeadLetterStatus,
    MemoryStore, Store,
};
use ledger::{Ledger, Move, event};

struct TestEnv {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
    now: Timestamp,
}

impl TestEnv {
    fn new() -> Self {
        let store = MemoryStore::new("ledger");
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
        }
    }

    async fn deliver(&mut self, events: &[Event]) -> BatchReport {
        let incoming = events
            .iter()
            .map(|event| InboundMessage::event(event.clone(), Sender::Anonymous));
        let mut batch = self.engine.read_batch(incoming.collect());
        self.engine
            .process(&mut batch, self.now, 0.5)
            .await
            .unwrap()
    }

    async fn work_due(&mut self) {
        while self
            .engine
            .process_due(self.now, 0.5)
            .await
            .unwrap()
            .is_some()
        {}
    }

    fn later(&mut self, hours: u64) {
        self.now = self.now.checked_add(Duration::from_hours(hours)).unwrap();
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        self.store
            .dead_letters(DeadLetterFilter::All, None, 100)
            .await
            .unwrap()
    }

    async fn only_dead(&self) -> DeadLetter {
        let mut dead = self.dead().await;
        assert_eq!(dead.len(), 1);
        dead.remove(0)
    }

    async fn rehearsed(&mut self, dead: &DeadLetter, fact: &Move) -> DryRun {
        let event = Event {
            data: data(fact),
            ..dead.event.clone().unwrap()
        };
        self.engine.dry_run(dead, event, self.now).await.unwrap()
    }

    async fn entries(&self, account: &str) -> Vec<String> {
        ledger::entries(&self.store, account).await
    }

    async fn records(&self) -> Vec<AuditRow> {
        let page = self.store.audit(AuditFilter::All, None, 100).await.unwrap();
        page.rows.into_iter().rev().collect()
    }

    fn by(&self, why: &str) -> Attribution {
        let ada = Operator::new("ada@env").unwrap();
        Attribution::new(ada, self.now).with_reason(why).unwrap()
    }
}

fn data(fact: &Move) -> bytes::Bytes {
    serde_json::to_vec(fact).unwrap().into()
}

fn e(sequence: u64, fact: Move) -> Event {
    event("shop", "account/a", sequence, &fact)
}

/// Returns a dead letter whose wait for an open account has expired.
async fn awaited_in_vain() -> (TestEnv, DeadLetter) {
    let mut env = TestEnv::new();
    env.deliver(&[
        e(1, Move::Add(1)),
        e(2, Move::AfterOpen),
        e(3, Move::Add(1)),
    ])
    .await;
    env.later(25);
    env.work_due().await;
    let dead = env.only_dead().await;
    assert_eq!(dead.reason, "awaited in vain");
    (env, dead)
}

#[tokio::test]
async fn deferred_replay_continues_when_its_entity_changes() {
    let (mut env, dead) = awaited_in_vain().await;
    operate::replay(&env.store, &dead.id, env.now)
        .await
        .unwrap();
    env.work_due().await;
    assert_eq!(env.only_dead().await.status, DeadLetterStatus::Awaiting);
    assert_eq!(
        env.deliver(&[e(2, Move::AfterOpen)]).await.tally.duplicates,
        1
    );
    env.deliver(&[event("web", "account/a", 1, &Move::Open)])
        .await;
    // Before its backoff has run out.
    env.work_due().await;
    assert_eq!(
        env.entries("account/a").await,
        ["shop 1", "web 1", "shop 2", "shop 3"]
    );
    assert_eq!(env.dead().await, []);
    assert_eq!(
        env.store
            .summary(env.now)
            .await
            .unwrap()
            .usage
            .deferred
            .rows,
        0
    );
}

#[tokio::test]
async fn deferred_replay_can_be_skipped() {
    let (mut env, dead) = awaited_in_vain().await;
    operate::replay(&env.store, &dead.id, env.now)
        .await
        .unwrap();
    let early = operate::skip(&env.store, &dead.id, env.now).await;
    assert!(matches!(early, Err(OperateError::AlreadySettled(_))));
    env.work_due().await;
    operate::skip(&env.store, &dead.id, env.by("never opened"))
        .await
        .unwrap();
    env.work_due().await;
    assert_eq!(env.entries("account/a").await, ["shop 1", "shop 3"]);
    assert_eq!(env.dead().await, []);
    let skipped = env.records().await.remove(1);
    assert_eq!(skipped.entry.action, AuditAction::Skip);
    assert_eq!(skipped.entry.operator, "ada@env");
    assert_eq!(skipped.entry.reason.as_deref(), Some("never opened"));
    assert_eq!(skipped.entry.before, Some(data(&Move::AfterOpen)));
}

#[tokio::test]
async fn expired_replay_is_a_new_dead_letter() {
    let (mut env, dead) = awaited_in_vain().await;
    operate::replay(&env.store, &dead.id, env.now)
        .await
        .unwrap();
    // Its wait starts with its first attempt, however late the role gets to that.
    env.later(25);
    env.work_due().await;
    env.later(23);
    env.work_due().await;
    assert_eq!(env.only_dead().await.status, DeadLetterStatus::Awaiting);
    env.later(2);
    env.work_due().await;
    let again = env.only_dead().await;
    assert_eq!(
        (again.status, &again.reason[..]),
        (DeadLetterStatus::Open, "awaited in vain")
    );
    assert_eq!(again.id.event_digest(), dead.id.event_digest());
    assert_ne!(again.id, dead.id);
}

#[tokio::test]
async fn repeated_numbering_conflict_counts_and_copies_once() {
    let mut env = TestEnv::new();
    env.deliver(&[e(1, Move::Add(1))]).await;
    let mut other = e(1, Move::Add(5));
    other.id = "another".parse().unwrap();
    let first = env.deliver(std::slice::from_ref(&other)).await.tally;
    let second = env.deliver(&[other]).await.tally;
    assert_eq!((first.dead_letters, first.duplicates), (1, 0));
    assert_eq!((second.dead_letters, second.duplicates), (0, 1));
    let summary = env.store.summary(env.now).await.unwrap();
    assert_eq!(
        (summary.tally.dead_letters, summary.tally.duplicates),
        (1, 1)
    );
    assert_eq!(summary.usage.outbox.rows, 1);
}

#[tokio::test]
async fn dry_run_predicts_a_replay_and_writes_nothing() {
    let mut env = TestEnv::new();
    env.deliver(&[e(1, Move::Poison), e(2, Move::Tell), e(3, Move::Add(1))])
        .await;
    let dead = env.only_dead().await;
    let before = env.store.summary(env.now).await.unwrap();
    let applied = env.rehearsed(&dead, &Move::Add(1)).await;
    assert_eq!(applied, DryRun::Applied { emitted: 0 });
    let telling = env.rehearsed(&dead, &Move::Tell).await;
    assert_eq!(telling, DryRun::Applied { emitted: 1 });
    let rejected = env.rehearsed(&dead, &Move::Poison).await;
    assert!(matches!(rejected, DryRun::Refused { reason, .. } if reason == "breaks a rule"));
    let panicked = env.rehearsed(&dead, &Move::Panic).await;
    assert!(matches!(panicked, DryRun::Refused { reason, .. } if reason == "handler panicked"));
    let waits = env.rehearsed(&dead, &Move::AfterOpen).await;
    assert!(matches!(waits, DryRun::Awaits(entity) if entity.as_str() == "account/a"));
    let unlike = Event {
        data: "{}".into(),
        ..dead.event.clone().unwrap()
    };
    let unlike = env.engine.dry_run(&dead, unlike, env.now).await.unwrap();
    assert!(matches!(unlike, DryRun::Refused { reason, .. } if reason == "breaks its contract"));
    assert_eq!(env.store.summary(env.now).await.unwrap(), before);

    operate::skip(&env.store, &dead.id, env.now).await.unwrap();
    assert_eq!(env.rehearsed(&dead, &Move::Add(1)).await, DryRun::NotNext);
}

#[tokio::test]
async fn edit_is_replayed_once_and_keeps_the_original() {
    let mut env = TestEnv::new();
    env.deliver(&[e(1, Move::Poison), e(2, Move::Add(1))]).await;
    let dead = env.only_dead().await;
    let store = env.store.clone();
    operate::edit(
        &store,
        &dead,
        data(&Move::PoisonUntilFixed),
        Edit::Edit,
        env.by("first"),
    )
    .await
    .unwrap();
    let stale = operate::edit(&store, &dead, data(&Move::Add(9)), Edit::Edit, env.now).await;
    assert!(matches!(stale, Err(OperateError::EditedMeanwhile(_))));

    // Rejected again, it is another dead letter with the same beginning.
    operate::replay(&store, &dead.id, env.now).await.unwrap();
    env.work_due().await;
    let again = env.only_dead().await;
    assert_eq!(again.body, data(&Move::Poison));
    assert_eq!(
        again.event.as_ref().unwrap().data,
        data(&Move::PoisonUntilFixed)
    );
    operate::edit(
        &store,
        &again,
        data(&Move::Add(9)),
        Edit::Import,
        env.by("second"),
    )
    .await
    .unwrap();
    operate::replay(&store, &again.id, env.now).await.unwrap();
    env.work_due().await;
    assert_eq!(env.entries("account/a").await, ["shop 1", "shop 2"]);
    assert_eq!(ledger::accounts(&store).await[0].1.balance, 10);

    let records = env.records().await;
    let recorded: Vec<_> = records
        .iter()
        .map(|row| (row.entry.action, row.entry.about == dead.id.event_digest()))
        .collect();
    use AuditAction::{Import, Replay};
    let expected = [AuditAction::Edit, Replay, Import, Replay].map(|action| (action, true));
    assert_eq!(recorded, expected);
    assert_eq!(records[2].entry.before, Some(data(&Move::PoisonUntilFixed)));
    assert_eq!(records[2].entry.after, Some(data(&Move::Add(9))));
    assert_eq!(records[2].entry.sequences, Some((1, 1)));
}

#[tokio::test]
async fn only_an_unfinished_run_is_resumed() {
    let mut env = TestEnv::new();
    let store = env.store.clone();
    let begun = operate::start_replay(&store, "all", env.now).await.unwrap();
    assert!(!begun.resumed);
    env.later(1);
    let resumed = operate::start_replay(&store, "all", env.now).await.unwrap();
    assert_eq!((resumed.resumed, resumed.started), (true, begun.started));
    let other = operate::start_replay(&store, "group 1", env.now)
        .await
        .unwrap();
    assert_eq!((other.resumed, other.started), (false, env.now));
    operate::end_replay(&store, &resumed, env.now)
        .await
        .unwrap();
    let anew = operate::start_replay(&store, "all", env.now).await.unwrap();
    assert_eq!((anew.resumed, anew.started), (false, env.now));
}
