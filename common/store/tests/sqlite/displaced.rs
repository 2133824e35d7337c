//! Files that are moved, deleted or replaced under an open store.
#![cfg(unix)]

use std::{fs, path::PathBuf};

use doorstep_store::{
    Commit, EntityChange, ExpectedVersion, NewOutbox, OutboxKind, ReadSet, SqliteStore, Store,
    StoreError, WriteSet,
};

use crate::{fixtures::*, folder::Folder, open};

/// A change that writes a new entity.
fn new_entity(key: &str) -> WriteSet {
    let mut changes = WriteSet::at(at(1));
    changes.entities = vec![EntityChange {
        key: entity(key),
        expect: ExpectedVersion {
            row: None,
            version: 0,
        },
        after: Some(b"1".to_vec()),
    }];
    changes
}

async fn keys(store: &SqliteStore) -> Vec<String> {
    let rows = store.entities(None, 100).await.unwrap();
    rows.into_iter().map(|row| row.key.to_string()).collect()
}

#[track_caller]
fn is_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>, says: &str) {
    match result {
        Err(error @ StoreError::Unavailable { .. }) => {
            assert!(error.to_string().contains(says), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_commit_to_a_deleted_file_fails() {
    let folder = Folder::new();
    let inner = folder.path().join("inner");
    let open = || SqliteStore::open(&inner, "tracking", &Default::default()).unwrap();
    let store = open();
    commit(&store, new_entity("a")).await;
    fs::remove_dir_all(&inner).unwrap();
    for key in ["b", "c"] {
        is_unavailable(store.commit(new_entity(key)).await, "moved away or deleted");
    }
    store.close().await;
    assert_eq!(keys(&open()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_moved_back_works_again() {
    let folder = Folder::new();
    let (place, away) = (folder.path().join("place"), folder.path().join("away"));
    let open = || SqliteStore::open(&place, "tracking", &Default::default()).unwrap();
    let store = open();
    let mut owing = new_entity("a");
    owing.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("order/1", 1)),
    }];
    commit(&store, owing).await;
    fs::rename(&place, &away).unwrap();
    let said = "moved away or deleted under this process";
    // Before any commit, due events and outbox rows are not returned either.
    is_unavailable(store.due(at(1), 9, 1_000).await, said);
    is_unavailable(store.outbox(at(1), 9).await, said);
    is_unavailable(store.commit(new_entity("b")).await, said);
    // Nor is anything read that could answer a query or count as a duplicate.
    is_unavailable(store.load(ReadSet::default()).await, said);
    is_unavailable(store.read_entities(vec![entity("a")]).await, said);
    is_unavailable(store.summary(at(1)).await, said);

    fs::rename(&away, &place).unwrap();
    commit(&store, new_entity("b")).await;
    assert_eq!(store.outbox(at(1), 9).await.unwrap().len(), 1);
    assert!(
        store.read_entities(vec![entity("a")]).await.unwrap()[0]
            .state
            .is_some()
    );
    store.close().await;
    assert_eq!(keys(&open()).await, ["a", "b"]);
}

#[tokio::test]
async fn a_stop_checkpoints_a_deleted_log() {
    let folder = Folder::new();
    let store = open(&folder);
    commit(&store, new_entity("a")).await;
    let log = folder.path().join("tracking.sqlite3-wal");
    let aside = folder.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    is_unavailable(store.commit(new_entity("b")).await, "sqlite3-wal was moved");
    fs::rename(&aside, &log).unwrap();
    assert!(matches!(
        store.commit(new_entity("c")).await,
        Ok(Commit::Written(_))
    ));
    fs::remove_file(&log).unwrap();
    is_unavailable(store.commit(new_entity("d")).await, "stop this process");
    store.close().await;
    let found = keys(&open(&folder)).await;
    assert!(
        found.starts_with(&["a".into(), "b".into(), "c".into()]),
        "{found:?}"
    );
}

/// Copies a store with its log, as a manual backup of a running role does.
fn copied(from: &Folder, to: &Folder) -> [PathBuf; 2] {
    ["", "-wal"].map(|ending| {
        let name = format!("tracking.sqlite3{ending}");
        let copy = to.path().join(&name);
        fs::copy(from.path().join(&name), &copy).unwrap();
        copy
    })
}

#[tokio::test]
async fn a_replacing_copy_stops_the_store() {
    let (folder, backup) = (Folder::new(), Folder::new());
    let store = open(&folder);
    commit(&store, new_entity("a")).await;
    let copies = copied(&folder, &backup);
    commit(&store, new_entity("b")).await;
    for copy in copies {
        fs::rename(&copy, folder.path().join(copy.file_name().unwrap())).unwrap();
    }
    fs::remove_file(folder.path().join("tracking.sqlite3-shm")).unwrap();
    let error = store.commit(new_entity("c")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("start again"), "{error}");
    // Its connections are the last ones of the old file, and delete a log by its name.
    store.close().await;
    assert_eq!(keys(&open(&folder)).await, ["a"]);
}

#[tokio::test]
async fn a_changed_link_is_another_file() {
    let (folder, other) = (Folder::new(), Folder::new());
    drop(open(&other));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let store = SqliteStore::open(&link, "tracking", &Default::default()).unwrap();
    commit(&store, new_entity("a")).await;
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(other.path(), &link).unwrap();
    let error = store.commit(new_entity("b")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
}

#[tokio::test]
async fn no_store_is_created_beside_an_orphaned_log() {
    let (folder, backup) = (Folder::new(), Folder::new());
    let store = open(&folder);
    commit(&store, new_entity("a")).await;
    let [file, log] = copied(&folder, &backup);
    fs::rename(&file, folder.path().join("aside")).unwrap();
    let open_backup = || SqliteStore::open(backup.path(), "tracking", &Default::default());
    let error = open_backup().unwrap_err().to_string();
    assert!(error.contains("put the file back"), "{error}");
    assert!(log.exists() && !file.exists());
    fs::rename(folder.path().join("aside"), &file).unwrap();
    assert_eq!(keys(&open_backup().unwrap()).await, ["a"]);
}
