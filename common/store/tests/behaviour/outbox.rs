//! The outbox: rows to publish, published rows and retries.

use std::collections::BTreeMap;

use doorstep_store::{NewOutbox, OutboxId, OutboxKind, OutboxRetry, Store, WriteSet};

use crate::fixtures::*;

fn copy(id: &str) -> OutboxKind {
    OutboxKind::DeadCopy {
        id: dead_id(id),
        headers: BTreeMap::from([("reason".to_owned(), "\"broken\" rule".to_owned())]),
        body: vec![0, 255].into(),
    }
}

fn enqueue(second: i64, kinds: Vec<OutboxKind>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.outbox = kinds.into_iter().map(|kind| NewOutbox { kind }).collect();
    changes
}

fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<OutboxKind> {
    let kind = |n| OutboxKind::Event(event("order/1", n));
    numbers.into_iter().map(kind).collect()
}

async fn pending(store: &impl Store, second: i64) -> Vec<OutboxId> {
    let rows = store.outbox(at(second), 100).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

fn published(ids: &[OutboxId]) -> WriteSet {
    let mut changes = WriteSet::at(at(3));
    changes.published = ids.into();
    changes
}

fn postponed(id: OutboxId, until: i64) -> WriteSet {
    let mut changes = WriteSet::at(at(3));
    changes.postponed = vec![OutboxRetry { id, due: at(until) }];
    changes
}

pub async fn rows_are_read_in_order_of_writing(store: impl Store) {
    let kinds = vec![
        OutboxKind::Event(event("order/2", 9)),
        copy("d1"),
        OutboxKind::Event(event("order/1", 0)),
    ];
    commit(&store, enqueue(1, kinds.clone())).await;
    commit(&store, enqueue(2, events([4]))).await;
    let rows = store.outbox(at(2), 100).await.unwrap();
    let read: Vec<_> = rows.iter().map(|row| row.kind.clone()).collect();
    assert_eq!(read, [kinds, events([4])].concat());
    assert_eq!((rows[0].attempts, rows[0].since), (0, at(1)));
    assert_eq!(rows[3].since, at(2));
    assert!(rows.is_sorted_by_key(|row| row.id));
    assert_eq!(store.outbox(at(2), 2).await.unwrap(), rows[..2]);
    assert_eq!(store.outbox(at(2), 0).await.unwrap(), []);
}

pub async fn a_row_published_twice_is_no_conflict(store: impl Store) {
    commit(&store, enqueue(1, events(1..=6))).await;
    let ids = pending(&store, 1).await;
    commit(&store, published(&[ids[1], ids[2], ids[4]])).await;
    assert_eq!(pending(&store, 1).await, [ids[0], ids[3], ids[5]]);
    commit(&store, published(&ids[..4])).await;
    commit(&store, postponed(ids[0], 60)).await;
    assert_eq!(pending(&store, 1).await, [ids[5]]);
    assert_eq!(store.summary(at(1)).await.unwrap().usage.outbox.rows, 1);
}

pub async fn a_postponed_row_delays_no_other(store: impl Store) {
    commit(&store, enqueue(1, events(1..=3))).await;
    let ids = pending(&store, 1).await;
    for id in &ids {
        commit(&store, postponed(*id, 60)).await;
    }
    assert_eq!(pending(&store, 59).await, []);
    commit(&store, enqueue(1, events(4..=5))).await;
    let fresh = pending(&store, 59).await;
    assert_eq!(fresh.len(), 2);
    assert_eq!(
        pending(&store, 60).await,
        [ids.clone(), fresh.clone()].concat()
    );
    commit(&store, postponed(ids[1], 90)).await;
    assert_eq!(
        pending(&store, 60).await,
        [vec![ids[0], ids[2]], fresh].concat()
    );
    let rows = store.outbox(at(90), 5).await.unwrap();
    let attempts: Vec<_> = rows.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [1, 2, 1, 0, 0]);
}

pub async fn failing_rows_leave_room_for_new_ones(store: impl Store) {
    commit(&store, enqueue(1, events(1..=6))).await;
    let old = pending(&store, 1).await;
    for id in &old {
        commit(&store, postponed(*id, 60)).await;
    }
    commit(&store, enqueue(2, events(7..=12))).await;
    let new = pending(&store, 2).await;
    let turn = |limit| {
        let rows = store.outbox(at(60), limit);
        async {
            rows.await
                .unwrap()
                .into_iter()
                .map(|row| row.id)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(turn(4).await, [&old[..2], &new[..2]].concat());
    assert_eq!(turn(5).await, [&old[..3], &new[..2]].concat());
    assert_eq!(turn(10).await, [&old[..5], &new[..5]].concat());
    // Space that new rows do not need is used.
    commit(&store, published(&new[1..])).await;
    assert_eq!(turn(5).await, [&old[..4], &new[..1]].concat());
    commit(&store, published(&old[2..])).await;
    assert_eq!(turn(5).await, [&old[..2], &new[..1]].concat());
}

pub async fn row_numbers_are_never_reused(store: impl Store) {
    commit(&store, enqueue(1, events([1]))).await;
    let ids = pending(&store, 1).await;
    commit(&store, published(&ids)).await;
    assert_eq!(pending(&store, 1).await, []);
    commit(&store, enqueue(2, events([2]))).await;
    // A second relay reports late that it has published the first one, too.
    commit(&store, published(&ids)).await;
    assert_eq!(pending(&store, 2).await.len(), 1);
}

pub async fn retry_times_ahead_of_the_clock_are_clamped(store: impl Store) {
    commit(&store, enqueue(1, events(1..=3))).await;
    let ids = pending(&store, 1).await;
    commit(&store, postponed(ids[0], 86_400)).await;
    commit(&store, postponed(ids[1], 40)).await;
    // The clock is at 10, and no backoff exceeds a minute.
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 1);
    assert_eq!(pending(&store, 10).await, [ids[0], ids[2]]);
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 0);
    assert_eq!(pending(&store, 40).await, ids);
}
