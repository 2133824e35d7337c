//! Copies of a store in use, and stores restored from them.

use std::{fs, path::PathBuf};

use doorstep_store::{
    NewOutbox, OutboxKind, SqliteStore, StoreError, WriteSet, begin_epoch,
    sqlite::{InPlace, Options},
};

use crate::{fixtures::*, folder::Folder, open};

fn backup(folder: &Folder, name: &str) -> Result<PathBuf, StoreError> {
    let to = folder.path().join(name);
    SqliteStore::backup(folder.path(), "tracking", &to, &Options::default()).map(|_| to)
}

#[tokio::test]
async fn a_store_in_use_is_backed_up() {
    let folder = Folder::new();
    let store = open(&folder);
    let epoch = begin_epoch(&store, at(1)).await.unwrap();
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    let outbox = |sequence| WriteSet {
        outbox: vec![NewOutbox {
            kind: OutboxKind::Event(event("delivery/1", sequence)),
        }],
        ..WriteSet::at(at(2))
    };
    commit(&store, outbox(1)).await;
    let copy = backup(&folder, "copy").unwrap();
    let before = contents(&store, doorstep_store::ReadSet::default()).await;
    advance(&store, 3, "order/1", cursor("order/1", 4)).await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // A backup is never overwritten, and only a backup of this role is restored.
    assert!(backup(&folder, "copy").is_err());
    let restore = |role: &str, from: &PathBuf, in_place| {
        let options = Options::default();
        SqliteStore::restore(folder.path(), role, from, in_place, at(9), &options)
    };
    let error = restore("orders", &copy, InPlace::Refuse).unwrap_err();
    assert!(error.to_string().contains("role tracking"), "{error}");
    let error = restore("tracking", &copy, InPlace::Refuse).unwrap_err();
    assert!(error.to_string().contains("--move-aside"), "{error}");
    let error = restore("tracking", &copy, InPlace::MoveAside).unwrap_err();
    assert!(error.to_string().contains("has it open"), "{error}");
    store.close().await;
    let damaged = folder.path().join("damaged");
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&damaged, bytes).unwrap();
    assert!(restore("tracking", &damaged, InPlace::MoveAside).is_err());

    let done = restore("tracking", &copy, InPlace::MoveAside).unwrap();
    assert_eq!(done.backup.epoch, Some(epoch));
    assert!(done.aside.iter().all(|file| file.exists()) && !done.aside.is_empty());
    let again = open(&folder);
    let mut after = contents(&again, doorstep_store::ReadSet::default()).await;
    let mark = after.summary.restored.take().unwrap();
    assert_eq!(mark.since, at(9));
    after.summary.log_bytes = before.summary.log_bytes;
    assert_eq!(after, before);
    // The files moved aside are complete.
    let moved = Folder::new();
    fs::copy(&done.aside[0], SqliteStore::path(moved.path(), "tracking")).unwrap();
    let old = open(&moved);
    assert_eq!(stream_row(&old, &stream("order/1")).await.cursor, 4);
}
