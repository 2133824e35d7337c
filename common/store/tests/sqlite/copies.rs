//! Copies of a store in use, and stores restored from them.

use std::{fs, path::PathBuf};

use doorstep_store::{
    Candidates, ClaimTasks, NewOutbox, OutboxKind, RestoredChange, SqliteStore, Store, StoreError,
    StoreUsage, TaskChange, TaskDirective, TaskEnd, TaskFate, TaskFilter, TaskState, WriteSet,
    begin_epoch,
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

#[tokio::test]
async fn a_restored_task_waits_for_an_operator() {
    let folder = Folder::new();
    let store = open(&folder);
    let start = |id| TaskChange::Start(new_task(id));
    let mut changes = WriteSet::at(at(1));
    changes.tasks = vec![start("a"), start("b"), start("c")];
    commit(&store, changes).await;
    let ask = |second| ClaimTasks {
        holder: holder(1),
        process: "host".to_owned(),
        now: at(second),
        kinds: vec![(new_task("a").kind, 9)],
        room: 1,
        candidates: Candidates::None,
        held: vec![],
    };
    let running = store.claim_tasks(ask(2)).await.unwrap().tasks.remove(0);
    let mut cancel = WriteSet::at(at(2));
    cancel.tasks = vec![TaskChange::Cancel(task_id("b"))];
    commit(&store, cancel).await;
    let copy = backup(&folder, "copy").unwrap();
    store.close().await;
    let options = Options::default();
    SqliteStore::restore(
        folder.path(),
        "tracking",
        &copy,
        InPlace::MoveAside,
        at(9),
        &options,
    )
    .unwrap();

    let store = open(&folder);
    let rows = store.tasks(TaskFilter::default(), None, 9).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    for row in &rows {
        assert_eq!(
            (row.state, row.lease, row.directive),
            (TaskState::Unknown, None, None)
        );
        let error = row.error.as_deref().unwrap();
        assert!(error.contains("restored from a backup"), "{error}");
    }
    assert_eq!(store.task_holders().await.unwrap(), []);
    assert_eq!(store.claim_tasks(ask(10)).await.unwrap().tasks, []);
    // Nothing runs by itself after the operator has accepted the store, either, and the former lease ends nothing.
    let mut accept = WriteSet::at(at(11));
    accept.restored = Some(RestoredChange::Accept);
    commit(&store, accept).await;
    assert_eq!(store.claim_tasks(ask(12)).await.unwrap().tasks, []);
    let mut ended = WriteSet::at(at(12));
    ended.tasks = vec![TaskChange::End(TaskEnd {
        id: running.row.id,
        token: running.token,
        fate: TaskFate::Done,
    })];
    conflict(&store, ended).await;
    let mut decided = WriteSet::at(at(13));
    let decide = |id, directive| TaskChange::Decide {
        id: task_id(id),
        expected: TaskState::Unknown,
        directive,
    };
    decided.tasks = vec![decide("a", None), decide("b", Some(TaskDirective::Done))];
    commit(&store, decided).await;
    let claim = ClaimTasks { room: 9, ..ask(13) };
    let claimed = store.claim_tasks(claim).await.unwrap().tasks;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|task| task.token > running.token));
    // The usage is exact although the restore has changed rows.
    let mut end = WriteSet::at(at(14));
    let ends = claimed.iter().map(|task| {
        TaskChange::End(TaskEnd {
            id: task.row.id.clone(),
            token: task.token,
            fate: TaskFate::Ended,
        })
    });
    end.tasks = ends.collect();
    end.tasks.push(decide("c", Some(TaskDirective::Failed)));
    commit(&store, end).await;
    let last = store.claim_tasks(ask(15)).await.unwrap().tasks.remove(0);
    let mut end = WriteSet::at(at(16));
    end.tasks = vec![TaskChange::End(TaskEnd {
        id: last.row.id,
        token: last.token,
        fate: TaskFate::Ended,
    })];
    let usage = commit(&store, end).await.usage;
    assert_eq!(usage, StoreUsage::default());
}
