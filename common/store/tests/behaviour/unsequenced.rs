//! Events without a sequence, seen ids, and emitted sequences.

use doorstep_event::EventId;
use doorstep_store::{
    DeferReason, EmittedSequence, NewDeferred, PrunedTo, ReadSet, Store, WriteSet,
};

use crate::fixtures::*;

pub async fn an_event_without_a_sequence_has_no_stream(store: impl Store) {
    let loose = || NewDeferred {
        reason: DeferReason::WaitingFor(entity("stock/1")),
        due: Some(at(2)),
        ..deferred(event("order/1", 0))
    };
    defer(&store, 1, vec![loose(), loose()]).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.row, None);
    advance(&store, 2, "order/1", cursor("order/1", 5)).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.deferred, 0);
    assert_eq!(store.due(at(2), 10, u64::MAX).await.unwrap().len(), 2);
    assert_eq!(store.gaps(at(100), at(999), 10).await.unwrap(), []);
    assert_eq!(store.summary(at(2)).await.unwrap().usage.deferred.rows, 2);
    let id = store.due(at(2), 1, u64::MAX).await.unwrap().remove(0).id;
    let mut changes = WriteSet::at(at(3));
    changes.release = vec![id];
    commit(&store, changes).await;
    assert_eq!(store.due(at(3), 10, u64::MAX).await.unwrap().len(), 1);
}

fn seen(ids: &[(&str, &str)], second: i64) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.seen = ids
        .iter()
        .map(|(from, id)| (source(from), EventId::new(*id).unwrap(), at(second)))
        .collect();
    changes
}

async fn was_seen(store: &impl Store, from: &str, id: &str) -> bool {
    let ask = ReadSet {
        seen: vec![(source(from), EventId::new(id).unwrap())],
        ..ReadSet::default()
    };
    load(store, ask).await.seen.remove(0)
}

pub async fn an_id_is_seen_once(store: impl Store) {
    commit(&store, seen(&[("shop/1", "a"), ("shop/1", "b")], 1)).await;
    assert!(was_seen(&store, "shop/1", "a").await);
    assert!(!was_seen(&store, "shop/1", "c").await);
    conflict(&store, seen(&[("shop/1", "c"), ("shop/1", "a")], 2)).await;
    assert!(!was_seen(&store, "shop/1", "c").await);
    conflict(&store, seen(&[("shop/1", "c"), ("shop/1", "c")], 2)).await;
}

pub async fn an_id_of_another_source_is_unseen(store: impl Store) {
    commit(&store, seen(&[("shop/1", "a")], 1)).await;
    assert!(!was_seen(&store, "shop/2", "a").await);
    commit(&store, seen(&[("shop/2", "a")], 1)).await;
    assert!(was_seen(&store, "shop/2", "a").await);
}

pub async fn old_ids_are_pruned_in_pages(store: impl Store) {
    for (n, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        commit(&store, seen(&[("shop/1", id)], n as i64)).await;
    }
    assert_eq!(store.prune_seen(at(0), 10).await.unwrap(), 0);
    assert_eq!(store.prune_seen(at(3), 2).await.unwrap(), 2);
    assert!(!was_seen(&store, "shop/1", "a").await);
    assert!(was_seen(&store, "shop/1", "c").await);
    assert_eq!(store.prune_seen(at(3), 2).await.unwrap(), 1);
    assert!(was_seen(&store, "shop/1", "d").await);
    let mut again = seen(&[("shop/1", "a")], 9);
    again.pruned_to.seen = Some(at(2));
    commit(&store, again).await;
    assert_eq!(store.summary(at(9)).await.unwrap().usage.seen.rows, 2);
}

async fn pruned_to(store: &impl Store) -> PrunedTo {
    let ask = ReadSet {
        seen: vec![(source("shop/1"), EventId::new("x").unwrap())],
        ..ReadSet::default()
    };
    load(store, ask).await.pruned_to
}

pub async fn the_latest_pruned_time_is_kept(store: impl Store) {
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        commit(&store, seen(&[("shop/1", id)], n as i64)).await;
    }
    store.prune_seen(at(0), 10).await.unwrap();
    assert_eq!(pruned_to(&store).await, PrunedTo::default());
    // The time of the pruned ids counts, not the requested limit.
    store.prune_seen(at(900), 2).await.unwrap();
    let expected = PrunedTo {
        seen: Some(at(1)),
        replies: None,
    };
    assert_eq!(pruned_to(&store).await, expected);
    store.prune_seen(at(901), 9).await.unwrap();
    assert_eq!(pruned_to(&store).await.seen, Some(at(2)));
    // It never goes back, even if older ids are pruned later.
    let mut older = seen(&[("shop/1", "d")], 1);
    older.pruned_to = pruned_to(&store).await;
    commit(&store, older).await;
    assert_eq!(store.prune_seen(at(2), 9).await.unwrap(), 1);
    assert_eq!(pruned_to(&store).await.seen, Some(at(2)));
}

pub async fn a_batch_read_before_pruning_is_a_conflict(store: impl Store) {
    commit(&store, seen(&[("shop/1", "a")], 1)).await;
    let before = pruned_to(&store).await;
    store.prune_seen(at(9), 9).await.unwrap();
    // To this batch the id looks new, since another process has both recorded and pruned it meanwhile.
    let mut again = seen(&[("shop/1", "a")], 2);
    again.pruned_to = before;
    conflict(&store, again.clone()).await;
    again.pruned_to = pruned_to(&store).await;
    commit(&store, again).await;
    // A batch without seen ids does not depend on pruning.
    advance(&store, 3, "order/1", cursor("order/1", 1)).await;
}

pub async fn sequences_are_emitted_once(store: impl Store) {
    let given = |about: &str, before, after| {
        let mut changes = WriteSet::at(at(1));
        changes.emitted_sequences = vec![EmittedSequence {
            subject: subject(about),
            before,
            after,
        }];
        changes
    };
    commit(&store, given("delivery/1", 0, 3)).await;
    conflict(&store, given("delivery/1", 0, 1)).await;
    conflict(&store, given("delivery/1", 2, 4)).await;
    conflict(&store, given("delivery/2", 1, 2)).await;
    commit(&store, given("delivery/1", 3, i64::MAX as u64)).await;
    let ask = ReadSet {
        emitted_sequences: vec![subject("delivery/2"), subject("delivery/1")],
        ..ReadSet::default()
    };
    assert_eq!(
        load(&store, ask).await.emitted_sequences,
        [0, i64::MAX as u64]
    );
}
