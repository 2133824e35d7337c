//! Stores written by schema versions 4 and 5, migrated with all of their rows.

use std::path::Path;

use doorstep_event::{EventId, RequestId, Source, StreamKey, Timestamp};
use doorstep_store::{
    AuditFilter, Candidates, ClaimTasks, CrashCountChange, DeadLetterFilter, DeferReason,
    EntityKey, NewOutbox, OutboxKind, ReadSet, SqliteStore, Store, TableUsage, TaskChange, TaskEnd,
    TaskFate, WriteSet, sqlite::Options,
};

use rusqlite::types::Value;

use crate::{fixtures::*, folder::Folder};

const GATEWAY: &str = "gateway/01a22b30-a25f-7722-8400-2509b2f82772";
const PAYMENT: &str = "payment/01a22b30ad3577a5862115109987add9";

fn stream(source: &str, about: &str) -> StreamKey {
    StreamKey {
        source: Source::new(source).unwrap(),
        subject: subject(about),
    }
}

#[tokio::test]
async fn schema_4_is_migrated_with_all_rows() {
    let folder = Folder::new();
    let file = SqliteStore::path(folder.path(), "payments");
    let older = rusqlite::Connection::open(file).unwrap();
    older.execute_batch(include_str!("schema_4.sql")).unwrap();
    drop(older);
    let store = SqliteStore::open(folder.path(), "payments", &Options::default()).unwrap();
    assert!(store.source().as_str().starts_with("payments/01a22b30"));

    let lab = || source("lab");
    let loaded = store.load(ReadSet {
        streams: vec![
            stream(GATEWAY, "order/01a22b30ad3577a5862115109987add9"),
            stream("lab", "order/gap"),
            stream("lab", "order/bad"),
        ],
        entities: vec![EntityKey::new(PAYMENT)],
        seen: vec![(
            source("unreadable"),
            EventId::new("2a4c368983df00b8134c8fdbec127f4cf9c509668c6e4ba8506172f2c1cb7e39")
                .unwrap(),
        )],
        crash_counts: vec![(lab(), EventId::new("order/gap#1").unwrap())],
        emitted_sequences: vec![subject(PAYMENT)],
        replies: vec![(
            source(GATEWAY),
            RequestId::new("01a22b30ad3577a5862115109987add9/authorize").unwrap(),
        )],
        ..ReadSet::default()
    });
    let loaded = loaded.await.unwrap();
    let cursors: Vec<_> = loaded
        .streams
        .iter()
        .map(|s| (s.cursor, s.deferred))
        .collect();
    assert_eq!(cursors, [(3, 0), (1, 1), (0, 1)]);
    assert!(loaded.streams[2].blocked.is_some());
    let state = loaded.entities[0].state.as_ref().unwrap();
    assert!(state.starts_with(br#"{"order_status":"ended""#));
    assert_eq!((loaded.seen, loaded.crash_counts), (vec![true], vec![2]));
    assert_eq!(loaded.emitted_sequences, [3]);
    assert!(loaded.replies[0].is_some());
    assert_eq!(loaded.pruned_to, doorstep_store::PrunedTo::default());

    let dead = store
        .dead_letters(DeadLetterFilter::All, None, 9)
        .await
        .unwrap();
    let reasons: Vec<_> = dead.iter().map(|row| &row.reason[..]).collect();
    assert_eq!(reasons, ["breaks its contract", "unreadable"]);
    assert!(dead[0].blocks && dead[0].event.is_some());
    let due = store.due(Timestamp::MAX, 9, u64::MAX).await.unwrap();
    let reasons: Vec<_> = due.into_iter().map(|row| row.reason).collect();
    let awaits = DeferReason::WaitingFor(EntityKey::new("payment/gap"));
    assert_eq!(reasons, [awaits, DeferReason::Scheduled]);
    let gaps = store.gaps(Timestamp::MAX, Timestamp::MAX, 9).await.unwrap();
    assert_eq!((gaps.len(), gaps[0].from, gaps[0].to), (1, 2, 2));
    let outbox = store.outbox(Timestamp::MAX, 9).await.unwrap();
    assert_eq!((outbox[0].attempts, outbox[1].attempts), (0, 5));
    assert!(matches!(&outbox[0].kind, OutboxKind::Event(event) if event.sequence.is_some()));
    assert!(matches!(&outbox[1].kind, OutboxKind::DeadCopy { .. }));
    let audit = store.audit(AuditFilter::All, None, 9).await.unwrap().rows;
    assert_eq!(audit[0].entry.operator, "ada@shop");

    // The role goes on from there, and resolved rows leave nothing behind.
    let mut changes = WriteSet::at(at(1));
    changes.crash_counts = vec![CrashCountChange {
        source: lab(),
        id: EventId::new("order/gap#1").unwrap(),
        before: 2,
        after: 0,
    }];
    changes.release = store
        .due(Timestamp::MAX, 9, u64::MAX)
        .await
        .unwrap()
        .iter()
        .map(|row| row.id)
        .collect();
    changes.published = outbox.iter().map(|row| row.id).collect();
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("payment/x", 1)),
    }];
    commit(&store, changes).await;
    store.prune_seen(Timestamp::MAX, 9).await.unwrap();
    store.prune_replies(Timestamp::MAX, 9).await.unwrap();
    let usage = store.usage().await.unwrap();
    let empty = doorstep_store::TableUsage::default();
    assert_eq!(
        (usage.seen, usage.replies, usage.timers),
        (empty, empty, empty)
    );
    assert_eq!((usage.deferred.rows, usage.deferred.bytes), (2, 289));
    assert_eq!((usage.dead_letters.rows, usage.outbox.rows), (2, 1));
}

/// All rows of all tables, in the columns of schema version 5.
fn rows_5(file: &Path) -> Vec<(String, Vec<Vec<Value>>)> {
    let blank = rusqlite::Connection::open_in_memory().unwrap();
    blank.execute_batch(include_str!("schema_5.sql")).unwrap();
    let store = rusqlite::Connection::open(file).unwrap();
    let mut tables = blank
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let tables = tables.query_map([], |row| row.get(0)).unwrap();
    let rows_of = |table: String| {
        let columns = blank.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = columns.column_names().collect::<Vec<_>>().join(", ");
        let mut all = store
            .prepare(&format!("SELECT {columns} FROM {table}"))
            .unwrap();
        let width = all.column_count();
        let rows = all.query_map([], |row| (0..width).map(|column| row.get(column)).collect());
        let rows = rows.unwrap().map(Result::unwrap).collect();
        (table, rows)
    };
    tables.map(Result::unwrap).map(rows_of).collect()
}

#[tokio::test]
async fn schema_5_is_migrated_with_all_rows() {
    let folder = Folder::new();
    let file = SqliteStore::path(folder.path(), "payments");
    let older = rusqlite::Connection::open(&file).unwrap();
    older.execute_batch(include_str!("schema_5.sql")).unwrap();
    drop(older);
    let before = rows_5(&file);
    assert!(before.iter().all(|(_, rows)| !rows.is_empty()));
    let open = || SqliteStore::open(folder.path(), "payments", &Options::default()).unwrap();
    open().close().await;
    assert_eq!(rows_5(&file), before);

    let store = open();
    let dead = store.dead_letters(DeadLetterFilter::All, None, 9).await;
    let tasks: Vec<_> = dead.unwrap().into_iter().map(|row| row.task).collect();
    assert_eq!(tasks, [None, None, None, None]);
    let summary = store.summary(at(9)).await.unwrap();
    assert_eq!((summary.tasks, summary.tally.tasks_done), (vec![], 0));
    assert_eq!(summary.usage.tasks, TableUsage::default());
    assert_eq!(summary.restored_sources.len(), 1);
    assert_eq!(store.task_holders().await.unwrap(), []);
    let mut changes = WriteSet::at(at(1));
    changes.tasks = vec![TaskChange::Start(new_task("a"))];
    commit(&store, changes).await;
    let claim = ClaimTasks {
        holder: holder(store.epochs().await.unwrap().latest().unwrap().counter()),
        process: "host".to_owned(),
        now: at(2),
        kinds: vec![(new_task("a").kind, 1)],
        room: 1,
        candidates: Candidates::None,
        held: vec![],
    };
    let task = store.claim_tasks(claim).await.unwrap().tasks.remove(0);
    let mut changes = WriteSet::at(at(3));
    changes.tasks = vec![TaskChange::End(TaskEnd {
        id: task.row.id,
        token: task.token,
        fate: TaskFate::Done,
    })];
    let usage = commit(&store, changes).await.usage;
    assert_eq!(usage, summary.usage);
    assert_eq!(store.summary(at(9)).await.unwrap().tally.tasks_done, 1);
}
