//! Streams: cursors under versions.

use doorstep_event::{EventId, StreamKey};
use doorstep_store::{
    ExpectedVersion, ReadSet, Store, StoreError, StreamChange, StreamState, WriteSet,
};

use crate::fixtures::*;

pub async fn an_unwritten_stream_reads_as_absent(store: impl Store) {
    let ask = ReadSet {
        streams: vec![stream("order/1")],
        deferred_per_stream: 8,
        deferred_bytes: u64::MAX,
        deferred_at: vec![(stream("order/1"), event("order/1", 1).sequence.unwrap())],
        entities: vec![entity("order/1")],
        seen: vec![(source("shop/1"), event("order/1", 1).id)],
        crash_counts: vec![(source("shop/1"), event("order/1", 1).id)],
        emitted_sequences: vec![subject("order/1")],
        epochs: vec![],
        replies: vec![(source("gateway/1"), reply("a", 1, 1).id)],
        leases: vec![],
        owners: vec![source("shop/1")],
    };
    let loaded = load(&store, ask).await;
    let row = &loaded.streams[0];
    assert_eq!(
        (row.row, row.version, row.cursor, row.deferred),
        (None, 0, 0, 0)
    );
    assert_eq!((&row.last_id, &row.blocked), (&None, &None));
    assert_eq!(row.key, stream("order/1"));
    assert_eq!(
        (loaded.entities[0].row, loaded.entities[0].version),
        (None, 0)
    );
    assert_eq!(loaded.entities[0].state, None);
    assert_eq!(loaded.deferred, []);
    assert_eq!(loaded.deferred_at, [None]);
    assert_eq!(loaded.seen, [false]);
    assert_eq!(
        (loaded.crash_counts, loaded.emitted_sequences),
        (vec![0], vec![0])
    );
}

pub async fn a_written_stream_is_read_back(store: impl Store) {
    let mut changes = WriteSet::at(at(1));
    changes.streams = vec![
        change_stream(&store, "order/1", Some(cursor("order/1", 3))).await,
        change_stream(&store, "order/2", Some(blocked("order/2", 0, "d1"))).await,
    ];
    let receipt = commit(&store, changes).await.streams;
    let first = stream_row(&store, &stream("order/1")).await;
    assert_eq!(first.cursor, 3);
    assert_eq!(first.last_id, Some(event("order/1", 3).id));
    assert_eq!(first.blocked, None);
    assert_eq!(
        (first.row, first.version),
        (receipt[0].row, receipt[0].version)
    );
    let second = stream_row(&store, &stream("order/2")).await;
    assert_eq!(second.cursor, 0);
    assert_eq!(second.last_id, None);
    assert_eq!(second.blocked, Some(dead_id("d1")));

    advance(&store, 2, "order/1", cursor("order/1", 4)).await;
    let again = stream_row(&store, &stream("order/1")).await;
    assert_eq!(again.cursor, 4);
    assert_eq!(again.row, first.row);
    assert_eq!(again.version, first.version + 1);
}

pub async fn an_id_of_another_form_is_read_back(store: impl Store) {
    for (n, id) in ["order/1#02", "order/1#2", "order/2#2", "1", "order/1#"]
        .into_iter()
        .enumerate()
    {
        let about = format!("order/{n}");
        let state = StreamState {
            cursor: 2,
            last_id: Some(EventId::new(id).unwrap()),
            blocked: None,
            epoch: None,
        };
        advance(&store, 1, &about, state.clone()).await;
        let row = stream_row(&store, &stream(&about)).await;
        assert_eq!(row.last_id, state.last_id);
    }
    let stepped_over = StreamState {
        cursor: 9,
        last_id: None,
        blocked: None,
        epoch: None,
    };
    advance(&store, 2, "order/1", stepped_over).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.last_id, None);
}

pub async fn a_stream_only_read_keeps_its_version(store: impl Store) {
    for _ in 0..3 {
        let mut changes = WriteSet::at(at(1));
        changes.streams = vec![change_stream(&store, "order/1", None).await];
        let receipt = commit(&store, changes).await.streams;
        let row = stream_row(&store, &stream("order/1")).await;
        assert_eq!((row.version, row.cursor), (1, 0));
        let now = ExpectedVersion {
            row: row.row,
            version: 1,
        };
        assert_eq!(receipt, [now]);
    }
}

pub async fn a_stream_changed_since_is_a_conflict(store: impl Store) {
    advance(&store, 1, "order/1", cursor("order/1", 1)).await;
    let stale = change_stream(&store, "order/1", Some(cursor("order/1", 2))).await;
    // A change that moves no cursor, such as a deferral, counts as a change, too.
    advance(&store, 2, "order/1", cursor("order/1", 1)).await;
    let mut changes = WriteSet::at(at(3));
    changes.streams = vec![stale];
    conflict(&store, changes).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.cursor, 1);
}

pub async fn a_read_stream_changed_since_is_a_conflict(store: impl Store) {
    advance(&store, 1, "order/1", cursor("order/1", 1)).await;
    let mut changes = WriteSet::at(at(3));
    changes.streams = vec![change_stream(&store, "order/1", None).await];
    advance(&store, 2, "order/1", cursor("order/1", 2)).await;
    conflict(&store, changes).await;
}

pub async fn a_stream_created_meanwhile_is_a_conflict(store: impl Store) {
    let changed = change_stream(&store, "order/1", Some(cursor("order/1", 1))).await;
    let only_read = change_stream(&store, "order/1", None).await;
    advance(&store, 1, "order/1", cursor("order/1", 1)).await;
    for stale in [changed, only_read] {
        let mut changes = WriteSet::at(at(2));
        changes.streams = vec![stale];
        conflict(&store, changes).await;
    }
    assert_eq!(stream_row(&store, &stream("order/1")).await.version, 1);
}

pub async fn a_decreasing_cursor_is_a_conflict(store: impl Store) {
    advance(&store, 1, "order/1", cursor("order/1", 5)).await;
    let mut changes = WriteSet::at(at(2));
    changes.streams = vec![change_stream(&store, "order/1", Some(cursor("order/1", 4))).await];
    conflict(&store, changes).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.cursor, 5);
}

pub async fn a_subject_of_another_source_is_another_stream(store: impl Store) {
    let other = StreamKey {
        source: source("shop/2"),
        subject: subject("order/1"),
    };
    advance(&store, 1, "order/1", cursor("order/1", 5)).await;
    assert_eq!(stream_row(&store, &other).await.row, None);
    let mut changes = WriteSet::at(at(2));
    changes.streams = vec![StreamChange {
        key: other.clone(),
        expect: ExpectedVersion {
            row: None,
            version: 0,
        },
        after: Some(cursor("order/1", 2)),
    }];
    commit(&store, changes).await;
    assert_eq!(stream_row(&store, &other).await.cursor, 2);
    assert_eq!(stream_row(&store, &stream("order/1")).await.cursor, 5);
}

pub async fn sequences_above_the_maximum_are_rejected(store: impl Store) {
    let last = i64::MAX as u64;
    defer(&store, 1, vec![deferred(event("order/1", last))]).await;
    let gap = store.gaps(at(10), at(999), 10).await.unwrap().remove(0);
    assert_eq!((gap.from, gap.to), (1, last - 1));
    advance(&store, 2, "order/1", cursor("order/1", last - 1)).await;
    assert_eq!(store.due(at(2), 10, u64::MAX).await.unwrap().len(), 1);
    advance(&store, 3, "order/1", cursor("order/1", last)).await;
    let row = stream_row(&store, &stream("order/1")).await;
    assert_eq!((row.cursor, row.deferred), (last, 0));
    assert_eq!(row.last_id, Some(event("order/1", last).id));
    assert_eq!(store.repair_due(at(4)).await.unwrap(), 0);

    let mut beyond = WriteSet::at(at(5));
    let state = StreamState {
        cursor: last + 1,
        last_id: None,
        blocked: None,
        epoch: None,
    };
    beyond.streams = vec![change_stream(&store, "order/1", Some(state)).await];
    let rejected = store.commit(beyond).await.unwrap_err();
    assert!(
        matches!(rejected, StoreError::Unusable { .. }),
        "{rejected}"
    );
    assert!(
        rejected.to_string().contains("9223372036854775808"),
        "{rejected}"
    );
}
