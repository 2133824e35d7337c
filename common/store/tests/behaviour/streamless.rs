//! Dead letters that belong to no stream: bounded by kind, and counted when they go to the overflow file.

use doorstep_event::EventId;
use doorstep_store::{
    DeadLetter, DeadLetterFilter, DeadLetterStatus, NewOutbox, NewStreamless, OutboxKind, ReadSet,
    Resolution, Store, StreamlessBounds, TableUsage, WriteSet,
};

use crate::fixtures::*;

const ANY: TableUsage = TableUsage { rows: 1, bytes: 1 };

fn bounds(kind: u64, all: u64) -> StreamlessBounds {
    let rows = |rows| TableUsage {
        rows,
        bytes: u64::MAX,
    };
    StreamlessBounds {
        kind: rows(kind),
        all: rows(all),
        ..StreamlessBounds::default()
    }
}

fn of_kind(id: &str, kind: &str) -> DeadLetter {
    DeadLetter {
        fingerprint: kind.into(),
        ..dead_letter(id, None)
    }
}

/// Dead letters with their copies, each seen under its own id.
fn junk(rows: Vec<DeadLetter>, bounds: StreamlessBounds) -> WriteSet {
    let mut changes = WriteSet::at(at(5));
    changes.streamless_bounds = bounds;
    for row in rows {
        changes.outbox.push(NewOutbox {
            kind: OutboxKind::DeadCopy {
                id: row.id.clone(),
                headers: [].into(),
                body: row.body.clone(),
            },
        });
        let seen = (source("shop"), EventId::new(&*row.id.0).unwrap(), at(5));
        changes.streamless.push(NewStreamless {
            row,
            seen: Some(seen),
        });
    }
    changes
}

async fn ids(store: &impl Store) -> Vec<String> {
    let dead = store
        .dead_letters(DeadLetterFilter::All, None, 100)
        .await
        .unwrap();
    dead.into_iter().map(|row| row.id.0).collect()
}

async fn seen(store: &impl Store, ids: &[&str]) -> Vec<bool> {
    let ask = ReadSet {
        seen: ids
            .iter()
            .map(|id| (source("shop"), EventId::new(*id).unwrap()))
            .collect(),
        ..ReadSet::default()
    };
    store.load(ask).await.unwrap().seen
}

pub async fn each_kind_is_bounded(store: impl Store) {
    let rows = vec![
        of_kind("a1", "a"),
        of_kind("a2", "a"),
        of_kind("a3", "a"),
        of_kind("b1", "b"),
    ];
    let written = commit(&store, junk(rows, bounds(2, 100))).await;
    assert_eq!((written.dead_lettered, written.overflowed), (3, 1));
    assert_eq!(ids(&store).await, ["a1", "a2", "b1"]);
    assert_eq!(seen(&store, &["a2", "a3", "b1"]).await, [true, false, true]);
    let summary = store.summary(at(5)).await.unwrap();
    assert_eq!(
        (summary.tally.dead_letters, summary.usage.outbox.rows),
        (3, 3)
    );
    assert_eq!(summary.usage.dead_letters.rows, 3);

    // An existing dead letter is a duplicate, even if its id was pruned and its kind is full.
    store.prune_seen(at(9), 100).await.unwrap();
    let again = vec![of_kind("a1", "a"), of_kind("a4", "a")];
    let written = commit(&store, junk(again, bounds(2, 100))).await;
    assert_eq!((written.dead_lettered, written.overflowed), (0, 1));
    let summary = store.summary(at(5)).await.unwrap();
    assert_eq!(
        (summary.tally.duplicates, summary.usage.outbox.rows),
        (1, 3)
    );

    let streamless = store.streamless(ANY, 9).await.unwrap();
    assert_eq!((streamless.usage.rows, streamless.overflowed), (3, 2));
    assert_eq!(streamless.dropped, 0);
    let kinds: Vec<_> = streamless
        .kinds
        .iter()
        .map(|kind| (&*kind.fingerprint, &*kind.reason, kind.usage.rows))
        .collect();
    assert_eq!(kinds, [("a", "broken rule", 2), ("b", "broken rule", 1)]);
    let large = TableUsage {
        rows: 2,
        bytes: u64::MAX >> 1,
    };
    assert_eq!(store.streamless(large, 9).await.unwrap().kinds.len(), 1);
    assert_eq!(store.streamless(ANY, 0).await.unwrap().kinds, []);
}

pub async fn all_kinds_together_are_bounded(store: impl Store) {
    let rows = ["a", "b", "c"].map(|kind| of_kind(kind, kind)).into();
    let written = commit(&store, junk(rows, bounds(2, 2))).await;
    assert_eq!((written.dead_lettered, written.overflowed), (2, 1));
}

pub async fn the_first_of_a_kind_is_always_kept(store: impl Store) {
    let mut large = of_kind("a1", "a");
    large.body = vec![b'x'; 1_000].into();
    let mut bounds = bounds(9, 9);
    bounds.kind.bytes = 500;
    let written = commit(&store, junk(vec![large, of_kind("a2", "a")], bounds)).await;
    assert_eq!((written.dead_lettered, written.overflowed), (1, 1));
    assert_eq!(ids(&store).await, ["a1"]);
}

pub async fn a_resolved_dead_letter_frees_its_space(store: impl Store) {
    commit(&store, junk(vec![of_kind("a1", "a")], bounds(1, 9))).await;
    let mut resolve = WriteSet::at(at(6));
    resolve.resolve = vec![(dead_id("a1"), DeadLetterStatus::Open, Resolution::Gone)];
    commit(&store, resolve).await;
    let streamless = store.streamless(ANY, 9).await.unwrap();
    assert_eq!(
        (streamless.usage, streamless.kinds),
        (TableUsage::default(), vec![])
    );
    let written = commit(&store, junk(vec![of_kind("a2", "a")], bounds(1, 9))).await;
    assert_eq!((written.dead_lettered, written.overflowed), (1, 0));
}

pub async fn a_conflict_leaves_no_overflow(store: impl Store) {
    commit(&store, junk(vec![of_kind("a1", "a")], bounds(1, 9))).await;
    let mut changes = junk(vec![of_kind("a2", "a")], bounds(1, 9));
    changes.seen = vec![(source("shop"), EventId::new("a1").unwrap(), at(5))];
    conflict(&store, changes).await;
    let streamless = store.streamless(ANY, 9).await.unwrap();
    assert_eq!((streamless.usage.rows, streamless.overflowed), (1, 0));
}
