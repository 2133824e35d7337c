//! What commits owe the world.

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

fn owe(second: i64, kinds: Vec<OutboxKind>) -> WriteSet {
    let mut changes = WriteSet::at(at(second));
    changes.outbox = kinds.into_iter().map(|kind| NewOutbox { kind }).collect();
    changes
}

fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<OutboxKind> {
    let kind = |n| OutboxKind::Event(event("order/1", n));
    numbers.into_iter().map(kind).collect()
}

async fn owed(store: &impl Store, second: i64) -> Vec<OutboxId> {
    let rows = store.outbox(at(second), 100).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

fn pay(ids: &[OutboxId]) -> WriteSet {
    let mut changes = WriteSet::at(at(3));
    changes.published = ids.into();
    changes
}

fn put_off(id: OutboxId, until: i64) -> WriteSet {
    let mut changes = WriteSet::at(at(3));
    changes.postponed = vec![OutboxRetry { id, due: at(until) }];
    changes
}

pub async fn what_is_owed_is_read_in_the_order_of_writing(store: impl Store) {
    let kinds = vec![
        OutboxKind::Event(event("order/2", 9)),
        copy("d1"),
        OutboxKind::Event(event("order/1", 0)),
    ];
    commit(&store, owe(1, kinds.clone())).await;
    commit(&store, owe(2, events([4]))).await;
    let rows = store.outbox(at(2), 100).await.unwrap();
    let read: Vec<_> = rows.iter().map(|row| row.kind.clone()).collect();
    assert_eq!(read, [kinds, events([4])].concat());
    assert_eq!((rows[0].attempts, rows[0].since), (0, at(1)));
    assert_eq!(rows[3].since, at(2));
    assert!(rows.is_sorted_by_key(|row| row.id));
    assert_eq!(store.outbox(at(2), 2).await.unwrap(), rows[..2]);
    assert_eq!(store.outbox(at(2), 0).await.unwrap(), []);
}

pub async fn what_is_paid_is_gone_and_paying_again_is_no_conflict(store: impl Store) {
    commit(&store, owe(1, events(1..=6))).await;
    let ids = owed(&store, 1).await;
    commit(&store, pay(&[ids[1], ids[2], ids[4]])).await;
    assert_eq!(owed(&store, 1).await, [ids[0], ids[3], ids[5]]);
    commit(&store, pay(&ids[..4])).await;
    commit(&store, put_off(ids[0], 60)).await;
    assert_eq!(owed(&store, 1).await, [ids[5]]);
    assert_eq!(store.summary(at(1)).await.unwrap().usage.outbox.rows, 1);
}

pub async fn what_could_not_be_paid_waits_and_holds_back_no_other(store: impl Store) {
    commit(&store, owe(1, events(1..=3))).await;
    let ids = owed(&store, 1).await;
    for id in &ids {
        commit(&store, put_off(*id, 60)).await;
    }
    assert_eq!(owed(&store, 59).await, []);
    commit(&store, owe(1, events(4..=5))).await;
    let fresh = owed(&store, 59).await;
    assert_eq!(fresh.len(), 2);
    assert_eq!(
        owed(&store, 60).await,
        [ids.clone(), fresh.clone()].concat()
    );
    commit(&store, put_off(ids[1], 90)).await;
    assert_eq!(
        owed(&store, 60).await,
        [vec![ids[0], ids[2]], fresh].concat()
    );
    let rows = store.outbox(at(90), 5).await.unwrap();
    let attempts: Vec<_> = rows.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [1, 2, 1, 0, 0]);
}

pub async fn what_fails_again_and_again_leaves_room_for_what_is_new(store: impl Store) {
    commit(&store, owe(1, events(1..=6))).await;
    let old = owed(&store, 1).await;
    for id in &old {
        commit(&store, put_off(*id, 60)).await;
    }
    commit(&store, owe(2, events(7..=12))).await;
    let new = owed(&store, 2).await;
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
    // Room that others do not want is taken.
    commit(&store, pay(&new[1..])).await;
    assert_eq!(turn(5).await, [&old[..4], &new[..1]].concat());
    commit(&store, pay(&old[2..])).await;
    assert_eq!(turn(5).await, [&old[..2], &new[..1]].concat());
}

pub async fn numbers_of_the_outbox_are_never_given_again(store: impl Store) {
    commit(&store, owe(1, events([1]))).await;
    let ids = owed(&store, 1).await;
    commit(&store, pay(&ids)).await;
    assert_eq!(owed(&store, 1).await, []);
    commit(&store, owe(2, events([2]))).await;
    // A second relay that has published the first one too says so late.
    commit(&store, pay(&ids)).await;
    assert_eq!(owed(&store, 2).await.len(), 1);
}

pub async fn what_was_put_off_by_a_clock_that_was_ahead_is_brought_forward(store: impl Store) {
    commit(&store, owe(1, events(1..=3))).await;
    let ids = owed(&store, 1).await;
    commit(&store, put_off(ids[0], 86_400)).await;
    commit(&store, put_off(ids[1], 40)).await;
    // The clock is at 10, and nothing is put off for more than a minute.
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 1);
    assert_eq!(owed(&store, 10).await, [ids[0], ids[2]]);
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 0);
    assert_eq!(owed(&store, 40).await, ids);
}
