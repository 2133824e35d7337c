//! Sources whose store was restored from a backup or copied: the same numbers and ids a second time, in another epoch.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use doorstep_event::{Epoch, Event, Timestamp};
use doorstep_runtime::{BatchReport, Engine, InboundMessage, Limits, operate};
use doorstep_store::{
    DeadLetter, DeadLetterFilter, EventCounts, MemoryStore, OutboxKind, RestoredSource,
    RestoredSourceChange, Store, WriteSet, begin_epoch,
};
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
        Self::on(MemoryStore::new("ledger"))
    }

    /// Creates another process on a store, with an empty cache.
    fn on(store: MemoryStore) -> Self {
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
        }
    }

    async fn deliver(&mut self, events: impl IntoIterator<Item = Event>) -> BatchReport {
        let incoming = |event| InboundMessage::event(event, doorstep_event::Sender::Anonymous);
        let batch = events.into_iter().map(incoming).collect();
        let mut batch = self.engine.read_batch(batch);
        self.engine.process(&mut batch, now(), 0.5).await.unwrap()
    }

    /// Delivers the events one after the other, each as a batch.
    async fn deliver_each(&mut self, events: impl IntoIterator<Item = Event>) -> EventCounts {
        let mut tally = EventCounts::default();
        for event in events {
            let one = self.deliver([event]).await.tally;
            tally.applied += one.applied;
            tally.duplicates += one.duplicates;
            tally.deferred += one.deferred;
            tally.dead_letters += one.dead_letters;
        }
        tally
    }

    async fn balance(&self, account: &str) -> i64 {
        let accounts = ledger::accounts(&self.store).await;
        let found = accounts.into_iter().find(|(key, _)| key == account);
        found.map_or(0, |(_, account)| account.balance)
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        self.store
            .dead_letters(DeadLetterFilter::All, None, 100)
            .await
            .unwrap()
    }

    async fn restored(&self) -> Vec<RestoredSource> {
        self.store.summary(now()).await.unwrap().restored_sources
    }
}

/// Returns an epoch; the random part tells lineages apart.
fn epoch(counter: u64, lineage: u64) -> Option<Epoch> {
    Epoch::new(counter, counter * 1_000 + lineage)
}

/// Returns an event that adds an amount to an account, numbered under an epoch.
fn adds(account: &str, sequence: u64, epoch: Option<Epoch>, amount: i64) -> Event {
    let mut event = event("shop", account, sequence, &Move::Add(amount));
    event.epoch = epoch;
    event
}

const A: &str = "account/a";
const B: &str = "account/b";

#[tokio::test]
async fn conflict_is_dead_lettered_and_lists_its_source() {
    let mut env = TestEnv::new();
    let first = adds(A, 1, epoch(1, 0), 1);
    let second = adds(A, 1, epoch(2, 0), 1_000);
    assert_eq!(first.id, second.id);
    let tally = env.deliver_each([first.clone(), second.clone()]).await;
    assert_eq!(
        (tally.applied, tally.dead_letters, tally.duplicates),
        (1, 1, 0)
    );
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].blocks),
        ("numbering conflict", false)
    );
    assert_eq!(dead[0].event, Some(second.clone()));
    let restored = env.restored().await;
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].source, second.source);
    assert_eq!(
        (Some(restored[0].epoch), restored[0].conflicts),
        (second.epoch, 1)
    );
    // Both are redelivered, in one batch and to another process, with the same result.
    let mut other = TestEnv::on(env.store.clone());
    for env in [&mut env, &mut other] {
        let tally = env.deliver([first.clone(), second.clone()]).await.tally;
        assert_eq!((tally.duplicates, tally.dead_letters), (2, 0));
    }
    assert_eq!(env.restored().await, restored);
    assert_eq!(env.balance(A).await, 1);
    // The next event is applied, so nothing is blocked.
    env.deliver([adds(A, 2, epoch(2, 0), 5)]).await;
    assert_eq!(env.balance(A).await, 6);
}

#[tokio::test]
async fn epoch_known_from_another_stream_hides_no_conflict() {
    let mut env = TestEnv::new();
    let before: Vec<_> = (1..=20).map(|n| adds(A, n, epoch(1, 0), 1)).collect();
    env.deliver(before).await;
    // The restored store begins with a new stream, and then reuses 11 and the following numbers, of which it had used
    // those up to 20.
    let mut restored = vec![adds(B, 1, epoch(2, 0), 1)];
    restored.extend((11..=23).map(|n| adds(A, n, epoch(2, 0), 1)));
    let tally = env.deliver_each(restored.clone()).await;
    assert_eq!(
        (tally.applied, tally.dead_letters, tally.duplicates),
        (4, 10, 0)
    );
    assert_eq!(env.balance(A).await, 23);
    let tally = TestEnv::on(env.store.clone()).deliver(restored).await.tally;
    assert_eq!(
        (tally.applied, tally.dead_letters, tally.duplicates),
        (0, 0, 14)
    );
}

#[tokio::test]
async fn late_conflict_is_recognised_by_its_epoch() {
    let mut env = TestEnv::new();
    env.deliver((1..=12).map(|n| adds(A, n, epoch(1, 0), 1)))
        .await;
    // 11 of the restored store comes after 13, which was applied.
    let restored = [13, 14, 11, 13].map(|n| adds(A, n, epoch(2, 0), 1));
    let tally = env.deliver_each(restored).await;
    assert_eq!(
        (tally.applied, tally.dead_letters, tally.duplicates),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn older_epoch_is_recognised_by_lineage_and_history() {
    let mut env = TestEnv::new();
    // Epoch 2 came and went without an event.
    env.deliver([adds(A, 1, epoch(1, 0), 1), adds(A, 2, epoch(3, 0), 1)])
        .await;
    env.deliver([adds(A, 3, epoch(4, 0), 1)]).await;
    // The restored store begins epoch 2 anew, and shows it by a new stream first.
    let tally = env
        .deliver_each([adds(B, 1, epoch(2, 7), 1), adds(A, 2, epoch(2, 7), 9)])
        .await;
    assert_eq!((tally.applied, tally.dead_letters), (1, 1));
    // Then 3, whose counter is known, with another random part.
    let tally = env.deliver_each([adds(A, 1, epoch(3, 7), 9)]).await;
    assert_eq!(tally.dead_letters, 1);
    // Events applied under older epochs are still duplicates.
    let tally = env
        .deliver_each([adds(A, 1, epoch(1, 0), 1), adds(A, 2, epoch(3, 0), 1)])
        .await;
    assert_eq!((tally.duplicates, tally.dead_letters), (2, 0));
}

#[tokio::test]
async fn second_lineage_is_listed_without_a_conflict() {
    let mut env = TestEnv::new();
    env.deliver([adds(A, 1, epoch(2, 0), 1)]).await;
    assert_eq!(env.restored().await, []);
    let tally = env.deliver([adds(B, 1, epoch(2, 7), 1)]).await.tally;
    assert_eq!((tally.applied, tally.dead_letters), (1, 0));
    let restored = env.restored().await;
    assert_eq!((restored.len(), restored[0].conflicts), (1, 0));
    // An operator accepts it; more of the same is no new finding.
    let accept = WriteSet {
        restored_sources: vec![RestoredSourceChange::Accept(restored[0].source.clone())],
        ..WriteSet::at(now())
    };
    env.store.commit(accept).await.unwrap();
    env.deliver([adds(B, 2, epoch(2, 7), 1)]).await;
    assert_eq!(env.restored().await, []);
    // A stream whose epoch goes back is of two lineages as well.
    let mut env = TestEnv::new();
    env.deliver([adds(A, 1, epoch(5, 0), 1), adds(A, 2, epoch(3, 7), 1)])
        .await;
    assert_eq!(env.balance(A).await, 2);
    assert_eq!(env.restored().await.len(), 1);
}

#[tokio::test]
async fn events_without_an_epoch_differ_by_id() {
    let mut env = TestEnv::new();
    env.deliver([adds(A, 1, None, 1), adds(A, 2, None, 1)])
        .await;
    let tally = env
        .deliver([adds(A, 1, None, 1), adds(A, 2, None, 1)])
        .await
        .tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (2, 0));
    // The source's store begins epochs now. Its earlier events are duplicates when redelivered.
    env.deliver([adds(A, 3, epoch(1, 0), 1)]).await;
    let tally = env
        .deliver([adds(A, 2, None, 1), adds(A, 3, epoch(1, 0), 1)])
        .await
        .tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (2, 0));
    assert_eq!(env.restored().await, []);
    // A backup from before that numbers anew in its own first epoch.
    env.deliver([adds(B, 1, None, 1)]).await;
    let tally = env
        .deliver([adds(A, 2, epoch(1, 7), 9), adds(B, 1, epoch(1, 7), 9)])
        .await
        .tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (0, 2));
}

#[tokio::test]
async fn deferred_or_blocked_sequence_belongs_to_one_event() {
    let mut env = TestEnv::new();
    let poison = |epoch| {
        let mut event = event("shop", B, 1, &Move::Poison);
        event.epoch = epoch;
        event
    };
    env.deliver([adds(A, 3, epoch(1, 0), 1), poison(epoch(1, 0))])
        .await;
    assert_eq!(env.dead().await.len(), 1);
    let same = [adds(A, 3, epoch(1, 0), 1), poison(epoch(1, 0))];
    let others = [adds(A, 3, epoch(2, 0), 9), poison(epoch(2, 0))];
    for mut env in [
        TestEnv::on(env.store.clone()),
        TestEnv::on(env.store.clone()),
    ] {
        let tally = env.deliver(same.clone()).await.tally;
        assert_eq!((tally.duplicates, tally.dead_letters), (2, 0));
        let tally = env.deliver(others.clone()).await.tally;
        assert_eq!(tally.dead_letters + tally.duplicates, 2);
        let dead = env.dead().await;
        assert_eq!(dead.len(), 3);
        assert_eq!(dead.iter().filter(|row| row.blocks).count(), 1);
    }
    // Both in one batch: the first one takes the sequence.
    let mut env = TestEnv::new();
    let tally = env
        .deliver([adds(A, 3, epoch(1, 0), 1), adds(A, 3, epoch(2, 0), 9)])
        .await
        .tally;
    assert_eq!((tally.deferred, tally.dead_letters), (1, 1));
}

#[tokio::test]
async fn late_event_of_skipped_gap_is_duplicate() {
    let mut env = TestEnv::new();
    env.deliver([adds(A, 1, epoch(1, 0), 1), adds(A, 5, epoch(3, 0), 1)])
        .await;
    let shop = stream("shop", A);
    operate::skip_gap(&env.store, &shop, 2, 4, now())
        .await
        .unwrap();
    let late = |epoch| (2..=4).map(move |n| adds(A, n, epoch, 9));
    let tally = env.deliver(late(epoch(2, 0))).await.tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (3, 0));
    while env.engine.process_due(now(), 0.5).await.unwrap().is_some() {}
    assert_eq!(env.balance(A).await, 2);
    for late_in in [epoch(1, 0), epoch(2, 0), epoch(3, 0)] {
        let tally = env.deliver(late(late_in)).await.tally;
        assert_eq!((tally.duplicates, tally.dead_letters), (3, 0));
    }
    assert_eq!(env.restored().await, []);
    // An epoch newer than that of the event behind the gap cannot have been in it.
    let tally = env.deliver(late(epoch(4, 0))).await.tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (0, 3));
}

#[tokio::test]
async fn resolved_dead_letter_leaves_its_epoch() {
    let mut env = TestEnv::new();
    let mut poison = event("shop", A, 1, &Move::Poison);
    poison.epoch = epoch(1, 0);
    env.deliver([poison.clone()]).await;
    let id = env.dead().await[0].id.clone();
    operate::skip(&env.store, &id, now()).await.unwrap();
    let tally = env.deliver([poison.clone()]).await.tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (1, 0));
    let tally = env.deliver([adds(A, 1, epoch(2, 0), 9)]).await.tally;
    assert_eq!((tally.duplicates, tally.dead_letters), (0, 1));
}

#[tokio::test]
async fn emitted_event_carries_the_epoch_of_its_store() {
    let mut env = TestEnv::new();
    let first = begin_epoch(&env.store, now()).await.unwrap();
    env.deliver([event("shop", A, 1, &Move::Tell)]).await;
    let second = begin_epoch(&env.store, now()).await.unwrap();
    env.deliver([event("shop", A, 2, &Move::Tell)]).await;
    let rows = env.store.outbox(now(), 10).await.unwrap();
    let epochs: Vec<_> = rows
        .into_iter()
        .map(|row| match row.kind {
            OutboxKind::Event(event) => event.epoch,
            OutboxKind::DeadCopy { .. } => None,
        })
        .collect();
    assert_eq!(epochs, [Some(first), Some(second)]);
}
