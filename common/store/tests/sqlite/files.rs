//! Files: created, opened again, rejected.

use std::fs;

use doorstep_event::Subject;
use doorstep_store::{
    AuditFilter, AuditPage, CrashCountChange, EmittedSequence, NewDeadLetter, NewOutbox,
    NewStreamless, OutboxKind, ReadSet, SqliteStore, Store, StoreError, TableUsage, WriteSet,
    begin_epoch,
    sqlite::{OldOutbox, Options},
};

use crate::{fixtures::*, folder::Folder, open};

#[track_caller]
fn unusable(result: Result<impl Sized, StoreError>, says: &[&str]) {
    match result {
        Ok(_) => panic!("it was opened"),
        Err(StoreError::Unavailable { detail, .. }) => panic!("only unavailable: {detail}"),
        Err(error) => {
            for word in says {
                assert!(error.to_string().contains(word), "{error}");
            }
        }
    }
}

fn try_open(folder: &Folder) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(folder.path(), "tracking", &Options::default())
}

fn raw(folder: &Folder) -> rusqlite::Connection {
    rusqlite::Connection::open(SqliteStore::path(folder.path(), "tracking")).unwrap()
}

#[tokio::test]
async fn a_reopened_store_is_unchanged() {
    let folder = Folder::new();
    let store = open(&folder);
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    let mut changes = WriteSet::at(at(2));
    changes.entities = vec![change_entity(&store, "order/1", Some("{}")).await];
    changes.defer = vec![deferred(event("order/1", 9))];
    changes.counts.applied = 3;
    commit(&store, changes).await;
    let before = contents(&store, ReadSet::default()).await;
    let source = store.source().clone();
    assert!(source.as_str().starts_with("tracking/"), "{source}");
    drop(store);
    let again = open(&folder);
    assert_eq!(contents(&again, ReadSet::default()).await, before);
    assert_eq!(*again.source(), source);
    let other = Folder::new();
    assert_ne!(open(&other).source(), again.source());
}

#[cfg(unix)]
#[tokio::test]
async fn new_files_are_private_and_existing_ones_kept() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let rights = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let give = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let inner = folder.path().join("outer").join("inner");
    let open = || SqliteStore::open(&inner, "tracking", &Options::default()).unwrap();
    let store = open();
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    assert_eq!(rights(&inner), 0o700);
    let mut seen = 0;
    for entry in fs::read_dir(&inner).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(rights(&path), 0o600, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 2, "no write-ahead log is beside the file");
    drop(store);

    let file = SqliteStore::path(&inner, "tracking");
    give(&inner, 0o750);
    give(&file, 0o640);
    drop(open());
    assert_eq!((rights(&inner), rights(&file)), (0o750, 0o640));
}

#[tokio::test]
async fn a_closed_store_is_one_complete_file() {
    let folder = Folder::new();
    let store = open(&folder);
    let files = || fs::read_dir(folder.path()).unwrap().count();
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    assert!(files() > 1, "there is no log to carry over");
    let clone = store.clone();
    let closing = tokio::spawn(store.close());
    // A clone works as well as the first handle for as long as it lives.
    let before = contents(&clone, ReadSet::default()).await;
    assert!(!closing.is_finished());
    drop(clone);
    closing.await.unwrap();
    assert_eq!(files(), 1);
    assert_eq!(contents(&open(&folder), ReadSet::default()).await, before);
}

#[test]
fn concurrent_creations_create_one_store() {
    let folder = Folder::new();
    let sources: Vec<_> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| open(&folder).source().clone()))
            .collect();
        openers.into_iter().map(|o| o.join().unwrap()).collect()
    });
    assert!(
        sources.iter().all(|source| *source == sources[0]),
        "{sources:?}"
    );
}

#[test]
fn an_uncreatable_folder_is_named() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let below = file.join("stores");
    let rejected = SqliteStore::open(&below, "tracking", &Options::default());
    unusable(rejected, &[below.to_str().unwrap(), "cannot be created"]);
    let rejected = SqliteStore::open(&file, "tracking", &Options::default());
    unusable(rejected, &[file.to_str().unwrap()]);
}

#[test]
fn a_folder_at_the_files_path_is_named() {
    let folder = Folder::new();
    let file = SqliteStore::path(folder.path(), "tracking");
    fs::create_dir(&file).unwrap();
    unusable(
        try_open(&folder),
        &[file.to_str().unwrap(), "cannot be opened"],
    );
}

#[test]
fn a_half_created_file_is_no_store() {
    let folder = Folder::new();
    let exists = || SqliteStore::exists(folder.path(), "tracking");
    assert!(!exists());
    let file = SqliteStore::path(folder.path(), "tracking");
    fs::write(&file, "").unwrap();
    assert!(!exists());
    // A creation interrupted before the transaction that creates the tables.
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    assert!(!exists());
    drop(conn);
    drop(SqliteStore::open(folder.path(), "tracking", &Options::default()).unwrap());
    assert!(exists());
    // Opening the file reports what else it is.
    fs::write(&file, "something else").unwrap();
    assert!(exists());
}

#[test]
fn opening_an_existing_store_creates_none() {
    let folder = Folder::new();
    let file = SqliteStore::path(folder.path(), "tracking");
    let says = ["has not run yet", file.to_str().unwrap()];
    let options = Options::default();
    unusable(
        SqliteStore::open_existing(folder.path(), "tracking", &options),
        &says,
    );
    unusable(
        SqliteStore::open_read_only(folder.path(), "tracking", &options),
        &says,
    );
    unusable(
        SqliteStore::mint_source(
            folder.path(),
            "tracking",
            OldOutbox::Keep,
            &WriteSet::at(at(1)),
            &options,
        ),
        &says,
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_role_that_names_no_file_is_rejected() {
    let folder = Folder::new();
    for role in ["", "../tracking", "a/b", "a.b", "ü"] {
        let rejected = SqliteStore::open(folder.path(), role, &Options::default());
        unusable(rejected, &["cannot name a file"]);
    }
}

#[test]
fn a_file_of_another_program_is_left_alone() {
    let says = ["not a Doorstep store", "move that file away"];
    let text = Folder::new();
    let file = SqliteStore::path(text.path(), "tracking");
    fs::write(
        &file,
        "a text that is no database, and long enough to have had a header of one".repeat(20),
    )
    .unwrap();
    let before = fs::read(&file).unwrap();
    unusable(try_open(&text), &says);
    assert_eq!(fs::read(&file).unwrap(), before);

    let tables = Folder::new();
    raw(&tables)
        .execute_batch("CREATE TABLE streams(id)")
        .unwrap();
    unusable(try_open(&tables), &says);
    let marked = Folder::new();
    raw(&marked)
        .execute_batch("PRAGMA application_id = 7")
        .unwrap();
    unusable(try_open(&marked), &says);
    assert_eq!(fs::read_dir(marked.path()).unwrap().count(), 1);
}

#[test]
fn another_schema_version_is_rejected() {
    let folder = Folder::new();
    drop(open(&folder));
    raw(&folder)
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    unusable(try_open(&folder), &["newer Doorstep", "99"]);
    raw(&folder)
        .execute_batch("PRAGMA user_version = 0")
        .unwrap();
    unusable(try_open(&folder), &["schema version 0"]);
}

#[test]
fn a_store_of_another_role_is_rejected() {
    let folder = Folder::new();
    drop(open(&folder));
    let from = SqliteStore::path(folder.path(), "tracking");
    // A copy, since the threads of the first one may still be closing it.
    raw(&folder)
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    fs::copy(from, SqliteStore::path(folder.path(), "orders")).unwrap();
    let rejected = SqliteStore::open(folder.path(), "orders", &Options::default());
    unusable(rejected, &["role tracking", "orders"]);
}

#[tokio::test]
async fn a_damaged_file_differs_from_a_locked_one() {
    let folder = Folder::new();
    let store = open(&folder);
    for n in 0..200 {
        advance(
            &store,
            1,
            &format!("order/{n}"),
            cursor(&format!("order/{n}"), 1),
        )
        .await;
    }
    drop(store);
    let file = SqliteStore::path(folder.path(), "tracking");
    let conn = raw(&folder);
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(conn);
    let damaged = Folder::new();
    let mut bytes = fs::read(file).unwrap();
    // The first page marks the file as a store and the second one names it. Everything after them is overwritten.
    bytes[4 * 4096..].fill(0xA5);
    fs::write(SqliteStore::path(damaged.path(), "tracking"), bytes).unwrap();
    let found = match try_open(&damaged) {
        Err(error) => Err(error),
        Ok(store) => store.streams(None, 1_000).await.map(|_| ()),
    };
    unusable(found, &["damaged"]);
}

#[tokio::test]
async fn a_restored_store_gets_a_new_source() {
    let folder = Folder::new();
    let store = open(&folder);
    let mut changes = WriteSet::at(at(1));
    changes.streams = vec![change_stream(&store, "order/1", Some(cursor("order/1", 3))).await];
    changes.emitted_sequences = vec![EmittedSequence {
        subject: subject("delivery/1"),
        before: 0,
        after: 7,
    }];
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("delivery/1", 7)),
    }];
    commit(&store, changes).await;
    let minted = {
        let (options, record) = (Options::default(), WriteSet::at(at(1)));
        let mint =
            |outbox| SqliteStore::mint_source(folder.path(), "tracking", outbox, &record, &options);
        unusable(
            mint(OldOutbox::MustBeEmpty),
            &["has 1 rows", "--keep-outbox"],
        );
        mint(OldOutbox::Keep).unwrap()
    };
    assert_ne!(minted, *store.source());

    let last = async |store: &SqliteStore| {
        let emitted_sequences = vec![Subject::new("delivery/1").unwrap()];
        let ask = ReadSet {
            emitted_sequences,
            ..ReadSet::default()
        };
        load(store, ask).await.emitted_sequences[0]
    };
    let again = open(&folder);
    assert_eq!(*again.source(), minted);
    assert_eq!(last(&again).await, 0);
    assert_eq!(stream_row(&again, &stream("order/1")).await.cursor, 3);
    assert_eq!(again.outbox(at(1), 9).await.unwrap().len(), 1);
    // A process that has opened the store before would number under the old source.
    let mut late = WriteSet::at(at(2));
    late.counts.applied = 1;
    unusable(store.commit(late.clone()).await, &["new source"]);
    let beat = store.beat_tasks(holder(1), vec![], at(2)).await;
    unusable(beat, &["new source"]);
    commit(&again, late).await;
}

/// Removes the changes of schema version 4.
const WITHOUT_SCHEMA_4: &str =
    "DROP TABLE replies; DROP TABLE scheduled; ALTER TABLE totals DROP COLUMN replies_rows;
    ALTER TABLE totals DROP COLUMN replies_bytes; ALTER TABLE totals DROP COLUMN scheduled_rows;
    ALTER TABLE totals DROP COLUMN scheduled_bytes; ALTER TABLE totals DROP COLUMN obeyed;";

/// Removes the changes of schema version 5.
const WITHOUT_SCHEMA_5: &str = "DROP TABLE source_owners; ALTER TABLE totals DROP COLUMN seen_pruned_to; ALTER TABLE totals DROP COLUMN replies_pruned_to;
    DROP TABLE own_epochs; ALTER TABLE store DROP COLUMN epoch; ALTER TABLE store DROP COLUMN epoch_random;
    ALTER TABLE store DROP COLUMN restored_since; ALTER TABLE store DROP COLUMN restored_detail;
    ALTER TABLE outbox DROP COLUMN epoch; ALTER TABLE outbox DROP COLUMN epoch_random;
    ALTER TABLE held DROP COLUMN epoch; ALTER TABLE held DROP COLUMN epoch_random;
    ALTER TABLE dead DROP COLUMN epoch; ALTER TABLE dead DROP COLUMN epoch_random;
    DROP TABLE source_epochs; DROP TABLE restored_sources; ALTER TABLE streams DROP COLUMN epoch;
    ALTER TABLE streams DROP COLUMN epoch_random; ALTER TABLE streams DROP COLUMN epoch_from;
    DROP TABLE streamless; DROP INDEX dead_streamless; ALTER TABLE dead DROP COLUMN streamless;";

/// Removes the changes of schema version 6.
const WITHOUT_SCHEMA_6: &str =
    "DROP TABLE tasks; DROP TABLE task_inputs; DROP TABLE task_holders; ALTER TABLE dead DROP COLUMN task;
    ALTER TABLE totals DROP COLUMN last_task; ALTER TABLE totals DROP COLUMN last_token; ALTER TABLE totals DROP COLUMN tasks_rows;
    ALTER TABLE totals DROP COLUMN tasks_bytes; ALTER TABLE totals DROP COLUMN tasks_done;";

#[tokio::test]
async fn a_store_of_schema_4_is_migrated() {
    let folder = Folder::new();
    let store = open(&folder);
    let mut changes = WriteSet::at(at(1));
    changes.streams = vec![change_stream(&store, "order/4", Some(cursor("order/4", 3))).await];
    changes.defer = vec![deferred(event("order/1", 2))];
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("order/2", 1)),
    }];
    let row = dead_letter("a-1", Some(event("order/3", 1)));
    changes.dead_letters = vec![NewDeadLetter { row }];
    let row = dead_letter("b-1", None);
    changes.streamless = vec![NewStreamless { row, seen: None }];
    commit(&store, changes).await;
    let least = TableUsage { rows: 1, bytes: 1 };
    let streamless = store.streamless(least, 9).await.unwrap();
    assert_eq!(streamless.usage.rows, 1);
    let mut before = contents(&store, ReadSet::default()).await;
    store.close().await;
    raw(&folder)
        .execute_batch(&format!(
            "{WITHOUT_SCHEMA_6} {WITHOUT_SCHEMA_5} PRAGMA user_version = 4"
        ))
        .unwrap();
    let store = open(&folder);
    let mut after = contents(&store, ReadSet::default()).await;
    // From now on the sources have no owner.
    before.sources.clear();
    after.sources.clear();
    assert_eq!(after, before);
    assert_eq!(store.streamless(least, 9).await.unwrap(), streamless);
    let epoch = begin_epoch(&store, at(2)).await.unwrap();
    assert_eq!(epoch.counter(), 1);
    assert!(store.epochs().await.unwrap().knows(epoch));
}

#[tokio::test]
async fn a_store_of_schema_3_is_migrated() {
    let folder = Folder::new();
    let store = open(&folder);
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    let mut before = contents(&store, ReadSet::default()).await;
    store.close().await;
    raw(&folder)
        .execute_batch(&format!(
            "{WITHOUT_SCHEMA_6} {WITHOUT_SCHEMA_5} {WITHOUT_SCHEMA_4} PRAGMA user_version = 3"
        ))
        .unwrap();
    let store = open(&folder);
    let mut after = contents(&store, ReadSet::default()).await;
    // Its events came without a user id.
    let known = std::mem::take(&mut after.sources);
    let owner = known[0].owner.as_ref().unwrap();
    assert_eq!((&owner.user, &owner.former), (&None, &None));
    assert_eq!((known.len(), known[0].streams), (1, 1));
    before.sources.clear();
    assert_eq!(after, before);
    let mut changes = WriteSet::at(at(2));
    changes.replies = vec![reply("a", 1, 2)];
    changes.timers = vec![scheduled("order/1", 9)];
    changes.counts.executed = 1;
    commit(&store, changes).await;
    store.close().await;
    let summary = open(&folder).summary(at(9)).await.unwrap();
    assert_eq!((summary.tally.executed, summary.scheduled_due), (1, 1));
    assert_eq!(summary.usage.replies.rows, 1);
}

#[tokio::test]
async fn schema_1_is_migrated_by_the_first_writer() {
    let folder = Folder::new();
    open(&folder).close().await;
    raw(&folder)
        .execute_batch(
            &format!(
                "DROP TABLE audit; DROP TABLE audit_totals; DROP TABLE trials; {WITHOUT_SCHEMA_6} {WITHOUT_SCHEMA_5} {WITHOUT_SCHEMA_4} PRAGMA user_version = 1"
            ),
        )
        .unwrap();
    let looked = SqliteStore::open_read_only(folder.path(), "tracking", &Options::default());
    let error = looked.unwrap_err().to_string();
    assert!(error.contains("run the role once"), "{error}");
    let store = open(&folder);
    let page = store.audit(AuditFilter::All, None, 1).await.unwrap();
    assert_eq!(page, AuditPage::default());
    let mut changes = WriteSet::at(at(2));
    changes.crash_counts = vec![CrashCountChange {
        source: source("shop/1"),
        id: event("order/1", 4).id,
        before: 0,
        after: 1,
    }];
    commit(&store, changes).await;
    store.close().await;
    raw(&folder)
        .execute_batch(&format!(
            "DROP TABLE trials; {WITHOUT_SCHEMA_6} {WITHOUT_SCHEMA_5} {WITHOUT_SCHEMA_4} PRAGMA user_version = 2"
        ))
        .unwrap();
    commit(&open(&folder), WriteSet::at(at(3))).await;
    SqliteStore::open_read_only(folder.path(), "tracking", &Options::default()).unwrap();
}
