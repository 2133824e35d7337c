//! A full disk and the bound of the log.

use doorstep_store::{
    NewOutbox, OutboxKind, ReadSet, SqliteStore, Store, StoreError, WriteSet, sqlite::Options,
};

use crate::{fixtures::*, folder::Folder};

fn enqueue(bytes: usize) -> WriteSet {
    let mut changes = WriteSet::at(at(1));
    let mut event = event("order/1", 1);
    event.data = vec![b'x'; bytes].into();
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event),
    }];
    changes
}

#[tokio::test]
async fn the_store_is_unavailable_until_there_is_space() {
    let folder = Folder::new();
    let options = Options {
        max_pages: Some(200),
        ..Options::default()
    };
    let store = SqliteStore::open(folder.path(), "tracking", &options).unwrap();
    let full = async || {
        for _ in 0..100 {
            let before = contents(&store, ReadSet::default()).await;
            let mut changes = enqueue(50_000);
            changes.streams =
                vec![change_stream(&store, "order/1", Some(cursor("order/1", 1))).await];
            if let Err(error) = store.commit(changes).await {
                assert_eq!(contents(&store, ReadSet::default()).await, before);
                return error;
            }
        }
        panic!("it never became full");
    };
    for _ in 0..3 {
        let error = full().await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("no space") && text.contains(folder.path().to_str().unwrap()),
            "{text}"
        );
        // A role makes space by publishing its outbox, for instance.
        let mut pending = WriteSet::at(at(2));
        pending.published = store
            .outbox(at(2), 99)
            .await
            .unwrap()
            .iter()
            .map(|row| row.id)
            .collect();
        commit(&store, pending).await;
        assert_eq!(store.summary(at(2)).await.unwrap().usage.outbox.rows, 0);
        commit(&store, enqueue(50_000)).await;
    }
}

#[tokio::test]
async fn the_log_stays_bounded() {
    let folder = Folder::new();
    let options = Options {
        checkpoint_pages: 64,
        ..Options::default()
    };
    let store = SqliteStore::open(folder.path(), "tracking", &options).unwrap();
    let log = folder.path().join("tracking.sqlite3-wal");
    let mut largest = 0;
    for _ in 0..100 {
        commit(&store, enqueue(40_000)).await;
        let pending = store.outbox(at(2), 99).await.unwrap();
        let mut changes = WriteSet::at(at(2));
        changes.published = pending.iter().map(|row| row.id).collect();
        commit(&store, changes).await;
        largest = largest.max(std::fs::metadata(&log).unwrap().len());
    }
    // 64 pages, and the pages that the last commit before the limit could add.
    assert!(largest < 128 * 4096, "{largest} bytes");
}
