//! Trials of events that a process may have died of.

use doorstep_event::EventId;
use doorstep_store::{CrashCountChange, ReadSet, Store, WriteSet};

use crate::fixtures::*;

fn trial(from: &str, id: &str, before: u32, after: u32) -> CrashCountChange {
    CrashCountChange {
        source: source(from),
        id: EventId::new(id).unwrap(),
        before,
        after,
    }
}

fn trials(second: i64, changed: Vec<CrashCountChange>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.crash_counts = changed;
    changes
}

async fn counted(store: &impl Store, of: &[(&str, &str)]) -> Vec<u32> {
    let ask = ReadSet {
        trials: of
            .iter()
            .map(|(from, id)| (source(from), EventId::new(*id).unwrap()))
            .collect(),
        ..ReadSet::default()
    };
    load(store, ask).await.trials
}

pub async fn trials_are_counted_and_forgotten(store: impl Store) {
    let begun = vec![trial("shop/1", "a", 0, 1), trial("shop/1", "b", 0, 1)];
    commit(&store, trials(1, begun)).await;
    commit(&store, trials(2, vec![trial("shop/1", "a", 1, 2)])).await;
    let all = [("shop/1", "b"), ("shop/2", "a"), ("shop/1", "a")];
    assert_eq!(counted(&store, &all).await, [1, 0, 2]);
    let done = vec![trial("shop/1", "a", 2, 0), trial("shop/2", "a", 0, 0)];
    commit(&store, trials(3, done)).await;
    assert_eq!(counted(&store, &all).await, [1, 0, 0]);
    commit(&store, trials(4, vec![trial("shop/1", "a", 0, 1)])).await;
    assert_eq!(counted(&store, &all).await, [1, 0, 1]);
}

pub async fn trials_that_somebody_else_has_counted_are_a_conflict(store: impl Store) {
    commit(&store, trials(1, vec![trial("shop/1", "a", 0, 2)])).await;
    for before in [0, 1, 3] {
        for after in [0, 1, 4] {
            // What came before it in the same changes is not written either.
            let both = vec![
                trial("shop/1", "b", 0, 1),
                trial("shop/1", "a", before, after),
            ];
            conflict(&store, trials(2, both)).await;
        }
    }
    let all = [("shop/1", "a"), ("shop/1", "b")];
    assert_eq!(counted(&store, &all).await, [2, 0]);
}

pub async fn old_trials_are_forgotten_a_page_at_a_time(store: impl Store) {
    for (second, id) in (0..).zip(["a", "b", "c", "d"]) {
        commit(&store, trials(second, vec![trial("shop/1", id, 0, 1)])).await;
    }
    // Counted again, it is young again.
    commit(&store, trials(9, vec![trial("shop/1", "a", 1, 2)])).await;
    assert_eq!(store.prune_crash_counts(at(1), 10).await.unwrap(), 0);
    assert_eq!(store.prune_crash_counts(at(9), 2).await.unwrap(), 2);
    let all = ["a", "b", "c", "d"].map(|id| ("shop/1", id));
    assert_eq!(counted(&store, &all).await, [2, 0, 0, 1]);
    assert_eq!(store.prune_crash_counts(at(9), 2).await.unwrap(), 1);
    assert_eq!(counted(&store, &all).await, [2, 0, 0, 0]);
}
