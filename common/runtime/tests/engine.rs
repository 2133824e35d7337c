//! The engine on the store in memory: outcomes of events, one promise a test.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Sender, Sequence, Timestamp, headers::Decoded};
use doorstep_runtime::{Engine, InboundMessage, Limits, operate};
use doorstep_store::{DeadLetterFilter, EntityKey, MemoryStore, Store};
use ledger::{Ledger, Move, event, stream};

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

struct TestEnv {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
}

impl TestEnv {
    fn new() -> Self {
        let store = MemoryStore::new("ledger");
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
        }
    }

    async fn deliver(
        &mut self,
        events: Vec<doorstep_event::Event>,
    ) -> doorstep_runtime::BatchReport {
        let batch = events
            .into_iter()
            .map(|event| InboundMessage::event(event, Sender::Anonymous))
            .collect();
        let mut batch = self.engine.read_batch(batch);
        self.engine.process(&mut batch, now(), 0.5).await.unwrap()
    }

    async fn work_due(&mut self, at: Timestamp) {
        while self.engine.process_due(at, 0.5).await.unwrap().is_some() {}
    }

    async fn entries(&self, account: &str) -> Vec<String> {
        ledger::entries(&self.store, account).await
    }

    async fn dead(&self) -> Vec<doorstep_store::DeadLetter> {
        self.store
            .dead_letters(DeadLetterFilter::All, None, 100)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn events_are_applied_in_stream_order() {
    let mut env = TestEnv::new();
    let e = |n| event("shop", "account/a", n, &Move::Add(1));
    env.deliver(vec![e(3), e(1)]).await;
    env.deliver(vec![e(5), e(4)]).await;
    env.deliver(vec![e(2)]).await;
    env.work_due(now()).await;
    assert_eq!(
        env.entries("account/a").await,
        ["shop 1", "shop 2", "shop 3", "shop 4", "shop 5"]
    );
    assert_eq!(
        env.store.summary(now()).await.unwrap().usage.deferred.rows,
        0
    );
}

#[tokio::test]
async fn duplicate_changes_nothing_in_any_state() {
    let mut env = TestEnv::new();
    let e = |n| event("shop", "account/a", n, &Move::Add(1));
    env.deliver(vec![e(1), e(1), e(3), e(3)]).await;
    let worked = env.deliver(vec![e(1), e(3)]).await;
    assert_eq!(worked.tally.duplicates, 2);
    assert_eq!(env.entries("account/a").await, ["shop 1"]);
    let poison = event("shop", "account/b", 1, &Move::Poison);
    env.deliver(vec![poison.clone(), poison.clone()]).await;
    assert_eq!(env.deliver(vec![poison]).await.tally.duplicates, 1);
    assert_eq!(env.dead().await.len(), 1);
}

#[tokio::test]
async fn dead_letter_blocks_one_stream_until_its_replay() {
    let mut env = TestEnv::new();
    let poison = event("shop", "account/a", 2, &Move::PoisonUntilFixed);
    env.deliver(vec![
        event("shop", "account/a", 1, &Move::Add(1)),
        poison.clone(),
        event("shop", "account/a", 3, &Move::Add(1)),
        event("web", "account/a", 1, &Move::Add(1)),
        event("shop", "account/b", 1, &Move::Add(1)),
    ])
    .await;
    assert_eq!(env.entries("account/a").await, ["shop 1", "web 1"]);
    assert_eq!(env.entries("account/b").await, ["shop 1"]);
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].blocks);

    // Replayed before the cause is fixed: each rejection is a new dead letter.
    operate::replay(&env.store, &dead[0].id, now())
        .await
        .unwrap();
    env.work_due(now()).await;
    let again = env.dead().await;
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].id, dead[0].id);
    assert_eq!(again[0].attempts, 2);
    assert!(
        operate::replay(&env.store, &dead[0].id, now())
            .await
            .is_err()
    );

    env.deliver(vec![event("fix", "account/a", 1, &Move::Fix)])
        .await;
    operate::replay(&env.store, &again[0].id, now())
        .await
        .unwrap();
    assert!(
        operate::skip(&env.store, &again[0].id, now())
            .await
            .is_err(),
        "the replay was first"
    );
    env.work_due(now()).await;
    assert_eq!(
        env.entries("account/a").await,
        ["shop 1", "web 1", "fix 1", "shop 2", "shop 3"]
    );
    assert!(env.dead().await.is_empty());
    assert_eq!(
        env.deliver(vec![poison]).await.tally.duplicates,
        1,
        "the original is harmless"
    );
}

#[tokio::test]
async fn skip_lets_blocked_events_continue() {
    let mut env = TestEnv::new();
    env.deliver(vec![
        event("shop", "account/a", 1, &Move::Poison),
        event("shop", "account/a", 2, &Move::Add(1)),
    ])
    .await;
    let dead = env.dead().await;
    operate::skip(&env.store, &dead[0].id, now()).await.unwrap();
    assert!(
        operate::replay(&env.store, &dead[0].id, now())
            .await
            .is_err()
    );
    env.work_due(now()).await;
    assert_eq!(env.entries("account/a").await, ["shop 2"]);
    assert_eq!(
        env.store.summary(now()).await.unwrap().usage.deferred.rows,
        0
    );
}

#[tokio::test]
async fn waiting_event_is_retried_when_its_entity_changes() {
    let mut env = TestEnv::new();
    env.deliver(vec![
        event("pay", "account/a", 1, &Move::AfterOpen),
        event("pay", "account/a", 2, &Move::Add(1)),
    ])
    .await;
    assert!(env.entries("account/a").await.is_empty());
    env.deliver(vec![event("shop", "account/a", 1, &Move::Open)])
        .await;
    env.work_due(now()).await;
    assert_eq!(env.entries("account/a").await, ["shop 1", "pay 1", "pay 2"]);
}

#[tokio::test]
async fn awaited_change_in_one_batch_is_noticed() {
    let mut env = TestEnv::new();
    env.deliver(vec![
        event("pay", "account/a", 1, &Move::AfterOpen),
        event("shop", "account/a", 1, &Move::Open),
    ])
    .await;
    env.work_due(now()).await;
    assert_eq!(env.entries("account/a").await, ["shop 1", "pay 1"]);
}

#[tokio::test]
async fn expired_wait_becomes_a_dead_letter() {
    let mut env = TestEnv::new();
    env.deliver(vec![event("pay", "account/a", 1, &Move::AfterOpen)])
        .await;
    let mut at = now();
    for _ in 0..2_000 {
        at = at.checked_add(std::time::Duration::from_mins(1)).unwrap();
        env.work_due(at).await;
    }
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "awaited in vain");
    assert!(dead[0].detail.contains("account/a"), "{}", dead[0].detail);
}

/// The commit checks the versions of named entities only, so a change of another one could be missed, and the event
/// would wait for ever.
#[tokio::test]
async fn waiting_for_an_unnamed_entity_is_rejected() {
    let mut env = TestEnv::new();
    let other = "account/other".to_owned();
    let awaits = event("shop", "account/a", 1, &Move::AwaitUnnamed(other));
    let worked = env.deliver(vec![awaits]).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.deferred), (1, 0));
    let dead = env.dead().await;
    assert_eq!((dead.len(), dead[0].blocks), (1, true));
    assert_eq!(dead[0].reason, "handler panicked");
    let detail = "the handler awaits account/other, which keys() does not name";
    assert_eq!(dead[0].detail, detail);
}

#[tokio::test]
async fn panicking_handler_makes_one_dead_letter() {
    let mut env = TestEnv::new();
    env.deliver(vec![
        event("shop", "account/a", 1, &Move::Panic),
        event("shop", "account/b", 1, &Move::Add(1)),
    ])
    .await;
    assert_eq!(env.dead().await[0].reason, "handler panicked");
    assert_eq!(env.entries("account/b").await, ["shop 1"]);
}

#[tokio::test]
async fn reused_sequence_is_one_numbering_conflict() {
    let mut env = TestEnv::new();
    let first = event("shop", "account/a", 1, &Move::Add(1));
    let mut other = first.clone();
    other.id = doorstep_event::EventId::new("other").unwrap();
    env.deliver(vec![first, other.clone()]).await;
    env.deliver(vec![
        other.clone(),
        event("shop", "account/a", 2, &Move::Add(1)),
    ])
    .await;
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].reason, "numbering conflict");
    assert_eq!(env.entries("account/a").await, ["shop 1", "shop 2"]);

    let mut early = event("shop", "account/a", 5, &Move::Add(1));
    env.deliver(vec![early.clone()]).await;
    early.id = doorstep_event::EventId::new("early").unwrap();
    env.deliver(vec![early]).await;
    assert_eq!(env.dead().await.len(), 2);
}

#[tokio::test]
async fn sequence_of_a_dead_letter_conflicts() {
    let mut env = TestEnv::new();
    let poison = event("shop", "account/a", 1, &Move::Poison);
    env.deliver(vec![poison.clone()]).await;
    let mut other = event("shop", "account/a", 1, &Move::Add(1));
    other.id = doorstep_event::EventId::new("another").unwrap();
    let worked = env.deliver(vec![other.clone(), poison]).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (1, 1));
    let dead = env.dead().await;
    let reasons: Vec<_> = dead.iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(reasons, ["breaks a rule", "numbering conflict"]);
    assert!(dead[0].blocks && !dead[1].blocks);
    assert_eq!(env.deliver(vec![other]).await.tally.duplicates, 1);
    assert_eq!(env.dead().await.len(), 2);
}

#[tokio::test]
async fn clock_set_back_makes_nothing_due_early() {
    let env = TestEnv::new();
    let later = now().checked_add(Duration::from_secs(7200)).unwrap();
    let engine = Engine::new(Ledger, env.store.clone(), Limits::default());
    let mut env = TestEnv {
        engine: engine.started_at(later),
        ..env
    };
    let add = Move::Later(3600, Box::new(Move::Add(1)));
    env.deliver(vec![event("shop", "account/a", 1, &add)]).await;
    env.work_due(now()).await;
    assert_eq!(env.entries("account/a").await, ["shop 1"]);
    let due = now().checked_add(Duration::from_secs(3600)).unwrap();
    env.work_due(due).await;
    assert_eq!(env.entries("account/a").await.len(), 2);
}

#[tokio::test]
async fn conflict_delivered_twice_is_one_dead_letter() {
    let mut env = TestEnv::new();
    let first = event("shop", "account/a", 1, &Move::Add(1));
    let mut other = first.clone();
    other.id = doorstep_event::EventId::new("other").unwrap();
    let worked = env.deliver(vec![first, other.clone(), other]).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (1, 1));
    assert_eq!(worked.pending, 1, "and there is one copy of it");
    assert_eq!(env.dead().await.len(), 1);
}

#[tokio::test]
async fn dead_letter_redelivered_after_pruning_blocks_nothing() {
    let mut env = TestEnv::new();
    let mut timeless = event("web", "account/a", 1, &Move::Add(1));
    timeless.sequence = None;
    timeless.time = None;
    let mut batch = env.engine.read_batch(vec![
        InboundMessage::new(
            Decoded::Undecodable {
                defect: "header cloudEvents:id is missing".into(),
                body: "rubbish".into(),
            },
            Sender::Anonymous,
        ),
        InboundMessage::event(timeless, Sender::Anonymous),
        InboundMessage::event(
            event("shop", "account/b", 1, &Move::Add(1)),
            Sender::Anonymous,
        ),
    ]);
    env.engine.process(&mut batch, now(), 0.5).await.unwrap();
    let later = now()
        .checked_add(std::time::Duration::from_hours(1))
        .unwrap();
    assert_eq!(env.store.prune_seen(later, 10).await.unwrap(), 2);
    env.engine.process(&mut batch, later, 0.5).await.unwrap();
    assert_eq!(env.dead().await.len(), 2);
    assert_eq!(env.entries("account/b").await, ["shop 1"]);
}

#[tokio::test]
async fn emitting_an_unnumberable_event_rejects_its_cause() {
    let mut env = TestEnv::new();
    // `emitted/` and the subject together are a subject, but leave no room for the sequence in an id.
    let long = format!("account/{}", "x".repeat(240));
    let mut tells = event("shop", "account/a", 1, &Move::Tell);
    tells.subject = doorstep_event::Subject::new(long).unwrap();
    env.deliver(vec![tells, event("shop", "account/b", 1, &Move::Tell)])
        .await;
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    assert!(
        dead[0].detail.contains("more than 255"),
        "{}",
        dead[0].detail
    );
    assert_eq!(env.entries("account/b").await, ["shop 1"]);
}

#[tokio::test]
async fn removed_state_leaves_no_row() {
    let mut env = TestEnv::new();
    let events = [
        event("shop", "account/a", 1, &Move::Add(1)),
        event("shop", "account/a", 2, &Move::Remove),
        event("web", "account/a", 1, &Move::Add(1)),
        event("web", "account/a", 2, &Move::Remove),
    ];
    // In one batch and in several, and with a second engine whose cache has the removed row.
    env.deliver(events[..3].to_vec()).await;
    assert_eq!(env.entries("account/a").await, ["web 1"]);
    let mut other = Engine::new(Ledger, env.store.clone(), Limits::default());
    let mut deliver = async |event: &doorstep_event::Event| {
        let message = InboundMessage::event(event.clone(), Sender::Anonymous);
        let mut batch = other.read_batch(vec![message]);
        other.process(&mut batch, now(), 0.5).await.unwrap()
    };
    deliver(&event("pos", "account/a", 1, &Move::Add(1))).await;
    env.deliver(events[3..].to_vec()).await;
    let account = [EntityKey::new("account/a")];
    let rows = env.store.read_entities(account.to_vec()).await.unwrap();
    assert_eq!(rows[0].row, None);
    deliver(&event("pos", "account/a", 2, &Move::Add(1))).await;
    assert_eq!(env.entries("account/a").await, ["pos 2"]);
    assert_eq!(env.dead().await, []);
}

#[tokio::test]
async fn deferral_behind_a_gap_spends_no_wait_time() {
    let mut env = TestEnv::new();
    env.deliver(vec![event("pay", "account/a", 2, &Move::AfterOpen)])
        .await;
    let mut at = now()
        .checked_add(std::time::Duration::from_hours(48))
        .unwrap();
    let mut batch = env.engine.read_batch(vec![InboundMessage::event(
        event("pay", "account/a", 1, &Move::Add(1)),
        Sender::Anonymous,
    )]);
    env.engine.process(&mut batch, at, 0.5).await.unwrap();
    for _ in 0..100 {
        at = at.checked_add(std::time::Duration::from_mins(1)).unwrap();
        env.work_due(at).await;
    }
    assert!(env.dead().await.is_empty());
    env.deliver(vec![event("shop", "account/a", 1, &Move::Open)])
        .await;
    env.work_due(at).await;
    assert_eq!(env.entries("account/a").await, ["pay 1", "shop 1", "pay 2"]);
}

#[tokio::test]
async fn events_without_a_sequence_differ_by_id() {
    let mut env = TestEnv::new();
    let mut loose = event("web", "account/a", 1, &Move::Add(1));
    loose.sequence = None;
    loose.time = Some(now());
    let mut old = loose.clone();
    old.id = doorstep_event::EventId::new("old").unwrap();
    old.time = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let mut timeless = loose.clone();
    timeless.id = doorstep_event::EventId::new("timeless").unwrap();
    timeless.time = None;
    env.deliver(vec![
        loose.clone(),
        loose.clone(),
        old.clone(),
        timeless.clone(),
    ])
    .await;
    let again = env.deliver(vec![loose, old, timeless]).await;
    assert_eq!(again.tally.duplicates, 3);
    assert_eq!(env.entries("account/a").await.len(), 1);
    let dead = env.dead().await;
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|d| d.reason == "too old to tell"));
}

#[tokio::test]
async fn unreadable_message_is_one_dead_letter() {
    let mut env = TestEnv::new();
    for _ in 0..2 {
        let mut batch = env.engine.read_batch(vec![InboundMessage::new(
            Decoded::Undecodable {
                defect: "header cloudEvents:id is missing".into(),
                body: "rubbish".into(),
            },
            Sender::Anonymous,
        )]);
        env.engine.process(&mut batch, now(), 0.5).await.unwrap();
    }
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "unreadable");
    assert!(
        operate::replay(&env.store, &dead[0].id, now())
            .await
            .is_err()
    );
    operate::skip(&env.store, &dead[0].id, now()).await.unwrap();
    assert!(env.dead().await.is_empty());
}

#[tokio::test]
async fn invalid_event_is_rejected_only_when_next() {
    let mut env = TestEnv::new();
    let spoiled = event("shop", "account/a", 2, &Move::Add(1));
    let mut batch = env.engine.read_batch(vec![InboundMessage::new(
        Decoded::Invalid(spoiled, "specversion".into()),
        Sender::Anonymous,
    )]);
    env.engine.process(&mut batch, now(), 0.5).await.unwrap();
    assert!(env.dead().await.is_empty());
    env.deliver(vec![event("shop", "account/a", 1, &Move::Add(1))])
        .await;
    env.work_due(now()).await;
    assert_eq!(env.dead().await.len(), 1);
    assert_eq!(env.entries("account/a").await, ["shop 1"]);
}

#[tokio::test]
async fn gap_is_listed_and_can_be_skipped() {
    let mut env = TestEnv::new();
    env.deliver(vec![
        event("shop", "account/a", 4, &Move::Add(1)),
        event("shop", "account/a", 5, &Move::Add(1)),
    ])
    .await;
    let gaps = env
        .store
        .gaps(Timestamp::MAX, Timestamp::MAX, 10)
        .await
        .unwrap();
    assert_eq!((gaps.len(), gaps[0].from, gaps[0].to), (1, 1, 3));
    let stream = stream("shop", "account/a");
    assert!(
        operate::skip_gap(&env.store, &stream, 1, 2, now())
            .await
            .is_err()
    );
    operate::skip_gap(&env.store, &stream, 1, 3, now())
        .await
        .unwrap();
    env.work_due(now()).await;
    assert_eq!(env.entries("account/a").await, ["shop 4", "shop 5"]);
}

#[tokio::test]
async fn emitted_events_are_numbered_in_the_commit() {
    let mut env = TestEnv::new();
    env.deliver(
        (1..=3)
            .map(|n| event("shop", "account/a", n, &Move::Tell))
            .collect(),
    )
    .await;
    env.deliver(vec![event("shop", "account/b", 1, &Move::Tell)])
        .await;
    env.deliver(vec![event("shop", "account/a", 4, &Move::Tell)])
        .await;
    let emitted: Vec<_> = env
        .store
        .outbox(now(), 100)
        .await
        .unwrap()
        .into_iter()
        .map(|row| match row.kind {
            doorstep_store::OutboxKind::Event(e) => {
                (e.subject.to_string(), e.sequence.map(Sequence::get))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let a = |n| ("told/account/a".to_owned(), Some(n));
    assert_eq!(
        emitted,
        [
            a(1),
            a(2),
            a(3),
            ("told/account/b".to_owned(), Some(1)),
            a(4)
        ]
    );
}

#[tokio::test]
async fn engines_sharing_a_store_apply_each_event_once() {
    let mut one = TestEnv::new();
    let mut two = Engine::new(Ledger, one.store.clone(), Limits::default());
    for n in 1..=20 {
        one.deliver(vec![event("shop", "account/a", 2 * n - 1, &Move::Add(1))])
            .await;
        let mut batch = two.read_batch(vec![
            InboundMessage::event(
                event("shop", "account/a", 2 * n - 1, &Move::Add(1)),
                Sender::Anonymous,
            ),
            InboundMessage::event(
                event("shop", "account/a", 2 * n, &Move::Add(1)),
                Sender::Anonymous,
            ),
        ]);
        let worked = two.process(&mut batch, now(), 0.5).await.unwrap();
        assert_eq!(worked.tally.applied, 1);
    }
    assert_eq!(one.entries("account/a").await.len(), 40);
}
