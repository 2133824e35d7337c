//! Crash counts of poison candidates.

use doorstep_event::EventId;
use doorstep_store::{CrashCountChange, ReadSet, Store, WriteSet};

use crate::fixtures::*;

fn crash_count(from: &str, id: &str, before: u32, after: u32) -> CrashCountChange {
    CrashCountChange {
        source: source(from),
        id: EventId::new(id).unwrap(),
        before,
        after,
    }
}

fn crash_counts(second: i64, changed: Vec<CrashCountChange>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.crash_counts = changed;
    changes
}

async fn counted(store: &impl Store, of: &[(&str, &str)]) -> Vec<u32> {
    let ask = ReadSet {
        crash_counts: of
            .iter()
            .map(|(from, id)| (source(from), EventId::new(*id).unwrap()))
            .collect(),
        ..ReadSet::default()
    };
    load(store, ask).await.crash_counts
}

pub async fn crash_counts_are_raised_and_removed(store: impl Store) {
    let begun = vec![
        crash_count("shop/1", "a", 0, 1),
        crash_count("shop/1", "b", 0, 1),
    ];
    commit(&store, crash_counts(1, begun)).await;
    commit(
        &store,
        crash_counts(2, vec![crash_count("shop/1", "a", 1, 2)]),
    )
    .await;
    let all = [("shop/1", "b"), ("shop/2", "a"), ("shop/1", "a")];
    assert_eq!(counted(&store, &all).await, [1, 0, 2]);
    let done = vec![
        crash_count("shop/1", "a", 2, 0),
        crash_count("shop/2", "a", 0, 0),
    ];
    commit(&store, crash_counts(3, done)).await;
    assert_eq!(counted(&store, &all).await, [1, 0, 0]);
    commit(
        &store,
        crash_counts(4, vec![crash_count("shop/1", "a", 0, 1)]),
    )
    .await;
    assert_eq!(counted(&store, &all).await, [1, 0, 1]);
}

pub async fn a_crash_count_changed_meanwhile_is_a_conflict(store: impl Store) {
    commit(
        &store,
        crash_counts(1, vec![crash_count("shop/1", "a", 0, 2)]),
    )
    .await;
    for before in [0, 1, 3] {
        for after in [0, 1, 4] {
            // Earlier changes of the same batch are not written either.
            let both = vec![
                crash_count("shop/1", "b", 0, 1),
                crash_count("shop/1", "a", before, after),
            ];
            conflict(&store, crash_counts(2, both)).await;
        }
    }
    let all = [("shop/1", "a"), ("shop/1", "b")];
    assert_eq!(counted(&store, &all).await, [2, 0]);
}

pub async fn old_crash_counts_are_pruned_in_pages(store: impl Store) {
    for (second, id) in (0..).zip(["a", "b", "c", "d"]) {
        commit(
            &store,
            crash_counts(second, vec![crash_count("shop/1", id, 0, 1)]),
        )
        .await;
    }
    // Another count makes it recent again.
    commit(
        &store,
        crash_counts(9, vec![crash_count("shop/1", "a", 1, 2)]),
    )
    .await;
    assert_eq!(store.prune_crash_counts(at(1), 10).await.unwrap(), 0);
    assert_eq!(store.prune_crash_counts(at(9), 2).await.unwrap(), 2);
    let all = ["a", "b", "c", "d"].map(|id| ("shop/1", id));
    assert_eq!(counted(&store, &all).await, [2, 0, 0, 1]);
    assert_eq!(store.prune_crash_counts(at(9), 2).await.unwrap(), 1);
    assert_eq!(counted(&store, &all).await, [2, 0, 0, 0]);
}
