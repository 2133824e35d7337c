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

struct Desk {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
    now: Timestamp,
}

impl Desk {
    fn new() -> Self {
        let store = MemoryStore::new("ledger");
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
        }
    }

    async fn deliver(&mut self, events: &[Event]) -> BatchReport {
        let incoming = events.iter().map(|event| InboundMessage::Event {
            event: event.clone(),
            defect: None,
            sender: Sender::Anonymous,
        });
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
        let ada = Operator::new("ada@desk").unwrap();
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
async fn awaited_in_vain() -> (Desk, DeadLetter) {
    let mut desk = Desk::new();
    desk.deliver(&[
        e(1, Move::Add(1)),
        e(2, Move::AfterOpen),
        e(3, Move::Add(1)),
    ])
    .await;
    desk.later(25);
    desk.work_due().await;
    let dead = desk.only_dead().await;
    assert_eq!(dead.reason, "awaited in vain");
    (desk, dead)
}

#[tokio::test]
async fn deferred_replay_continues_when_its_entity_changes() {
    let (mut desk, dead) = awaited_in_vain().await;
    operate::replay(&desk.store, &dead.id, desk.now)
        .await
        .unwrap();
    desk.work_due().await;
    assert_eq!(desk.only_dead().await.status, DeadLetterStatus::Awaiting);
    assert_eq!(
        desk.deliver(&[e(2, Move::AfterOpen)])
            .await
            .tally
            .duplicates,
        1
    );
    desk.deliver(&[event("web", "account/a", 1, &Move::Open)])
        .await;
    // Before its backoff has run out.
    desk.work_due().await;
    assert_eq!(
        desk.entries("account/a").await,
        ["shop 1", "web 1", "shop 2", "shop 3"]
    );
    assert_eq!(desk.dead().await, []);
    assert_eq!(
        desk.store.summary(desk.now).await.unwrap().usage.held.rows,
        0
    );
}

#[tokio::test]
async fn deferred_replay_can_be_skipped() {
    let (mut desk, dead) = awaited_in_vain().await;
    operate::replay(&desk.store, &dead.id, desk.now)
        .await
        .unwrap();
    let early = operate::skip(&desk.store, &dead.id, desk.now).await;
    assert!(matches!(early, Err(OperateError::AlreadySettled(_))));
    desk.work_due().await;
    operate::skip(&desk.store, &dead.id, desk.by("never opened"))
        .await
        .unwrap();
    desk.work_due().await;
    assert_eq!(desk.entries("account/a").await, ["shop 1", "shop 3"]);
    assert_eq!(desk.dead().await, []);
    let skipped = desk.records().await.remove(1);
    assert_eq!(skipped.entry.action, AuditAction::Skip);
    assert_eq!(skipped.entry.operator, "ada@desk");
    assert_eq!(skipped.entry.reason.as_deref(), Some("never opened"));
    assert_eq!(skipped.entry.before, Some(data(&Move::AfterOpen)));
}

#[tokio::test]
async fn expired_replay_is_a_new_dead_letter() {
    let (mut desk, dead) = awaited_in_vain().await;
    operate::replay(&desk.store, &dead.id, desk.now)
        .await
        .unwrap();
    // Its wait starts with its first attempt, however late the role gets to that.
    desk.later(25);
    desk.work_due().await;
    desk.later(23);
    desk.work_due().await;
    assert_eq!(desk.only_dead().await.status, DeadLetterStatus::Awaiting);
    desk.later(2);
    desk.work_due().await;
    let again = desk.only_dead().await;
    assert_eq!(
        (again.status, &again.reason[..]),
        (DeadLetterStatus::Open, "awaited in vain")
    );
    assert_eq!(again.id.event_digest(), dead.id.event_digest());
    assert_ne!(again.id, dead.id);
}

#[tokio::test]
async fn repeated_numbering_conflict_counts_and_copies_once() {
    let mut desk = Desk::new();
    desk.deliver(&[e(1, Move::Add(1))]).await;
    let mut other = e(1, Move::Add(5));
    other.id = "another".parse().unwrap();
    let first = desk.deliver(std::slice::from_ref(&other)).await.tally;
    let second = desk.deliver(&[other]).await.tally;
    assert_eq!((first.dead, first.duplicates), (1, 0));
    assert_eq!((second.dead, second.duplicates), (0, 1));
    let summary = desk.store.summary(desk.now).await.unwrap();
    assert_eq!((summary.tally.dead, summary.tally.duplicates), (1, 1));
    assert_eq!(summary.usage.outbox.rows, 1);
}

#[tokio::test]
async fn dry_run_predicts_a_replay_and_writes_nothing() {
    let mut desk = Desk::new();
    desk.deliver(&[e(1, Move::Poison), e(2, Move::Tell), e(3, Move::Add(1))])
        .await;
    let dead = desk.only_dead().await;
    let before = desk.store.summary(desk.now).await.unwrap();
    let applied = desk.rehearsed(&dead, &Move::Add(1)).await;
    assert_eq!(applied, DryRun::Applied { emitted: 0 });
    let telling = desk.rehearsed(&dead, &Move::Tell).await;
    assert_eq!(telling, DryRun::Applied { emitted: 1 });
    let refused = desk.rehearsed(&dead, &Move::Poison).await;
    assert!(matches!(refused, DryRun::Refused { reason, .. } if reason == "breaks a rule"));
    let panicked = desk.rehearsed(&dead, &Move::Panic).await;
    assert!(matches!(panicked, DryRun::Refused { reason, .. } if reason == "handler panicked"));
    let waits = desk.rehearsed(&dead, &Move::AfterOpen).await;
    assert!(matches!(waits, DryRun::Awaits(entity) if entity.as_str() == "account/a"));
    let unlike = Event {
        data: "{}".into(),
        ..dead.event.clone().unwrap()
    };
    let unlike = desk.engine.dry_run(&dead, unlike, desk.now).await.unwrap();
    assert!(matches!(unlike, DryRun::Refused { reason, .. } if reason == "breaks its contract"));
    assert_eq!(desk.store.summary(desk.now).await.unwrap(), before);

    operate::skip(&desk.store, &dead.id, desk.now)
        .await
        .unwrap();
    assert_eq!(desk.rehearsed(&dead, &Move::Add(1)).await, DryRun::NotNext);
}

#[tokio::test]
async fn edit_is_replayed_once_and_keeps_the_original() {
    let mut desk = Desk::new();
    desk.deliver(&[e(1, Move::Poison), e(2, Move::Add(1))])
        .await;
    let dead = desk.only_dead().await;
    let store = desk.store.clone();
    operate::edit(
        &store,
        &dead,
        data(&Move::PoisonUntilFixed),
        Edit::Edit,
        desk.by("first"),
    )
    .await
    .unwrap();
    let stale = operate::edit(&store, &dead, data(&Move::Add(9)), Edit::Edit, desk.now).await;
    assert!(matches!(stale, Err(OperateError::EditedMeanwhile(_))));

    // Rejected again, it is another dead letter with the same beginning.
    operate::replay(&store, &dead.id, desk.now).await.unwrap();
    desk.work_due().await;
    let again = desk.only_dead().await;
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
        desk.by("second"),
    )
    .await
    .unwrap();
    operate::replay(&store, &again.id, desk.now).await.unwrap();
    desk.work_due().await;
    assert_eq!(desk.entries("account/a").await, ["shop 1", "shop 2"]);
    assert_eq!(ledger::accounts(&store).await[0].1.balance, 10);

    let records = desk.records().await;
    let told: Vec<_> = records
        .iter()
        .map(|row| (row.entry.action, row.entry.about == dead.id.event_digest()))
        .collect();
    use AuditAction::{Import, Replay};
    let expected = [AuditAction::Edit, Replay, Import, Replay].map(|action| (action, true));
    assert_eq!(told, expected);
    assert_eq!(records[2].entry.before, Some(data(&Move::PoisonUntilFixed)));
    assert_eq!(records[2].entry.after, Some(data(&Move::Add(9))));
    assert_eq!(records[2].entry.sequences, Some((1, 1)));
}

#[tokio::test]
async fn only_an_unfinished_run_is_resumed() {
    let mut desk = Desk::new();
    let store = desk.store.clone();
    let begun = operate::start_replay(&store, "all", desk.now)
        .await
        .unwrap();
    assert!(!begun.resumed);
    desk.later(1);
    let resumed = operate::start_replay(&store, "all", desk.now)
        .await
        .unwrap();
    assert_eq!((resumed.resumed, resumed.begun), (true, begun.begun));
    let other = operate::start_replay(&store, "group 1", desk.now)
        .await
        .unwrap();
    assert_eq!((other.resumed, other.begun), (false, desk.now));
    operate::end_replay(&store, &resumed, desk.now)
        .await
        .unwrap();
    let anew = operate::start_replay(&store, "all", desk.now)
        .await
        .unwrap();
    assert_eq!((anew.resumed, anew.begun), (false, desk.now));
}
