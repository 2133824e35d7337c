//! Opens, creates and checks the file of a store.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use doorstep_event::Source;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, config::DbConfig, params,
};

use super::{
    columns::attribute,
    db::Db,
    error::{SqliteError, StorePath},
    identity::{FileId, Identity},
    options::{Options, PAGE_BYTES},
    sources::Sources,
};
use crate::{Result, StoreError, WriteSet, source_id::new_source_id};

/// The condition on the outbox of a store that gets a new source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldOutbox {
    /// There must be no rows.
    MustBeEmpty,
    /// Its rows are published under the old source, as they are.
    Keep,
}

/// Marks a file as a Doorstep store: "Door".
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"Door");

/// The statements that each schema version has added. Opening a file of an older version for writing migrates it; a
/// file of a newer version is rejected rather than misread.
const MIGRATIONS: [&str; 5] = [
    include_str!("migrations/0002_audit.sql"),
    include_str!("migrations/0003_crash_counts.sql"),
    include_str!("migrations/0004_replies_and_timers.sql"),
    include_str!("migrations/0005_epochs_and_owners.sql"),
    include_str!("migrations/0006_tasks.sql"),
];

/// The schema version that this program writes.
const SCHEMA_VERSION: i32 = 1 + MIGRATIONS.len() as i32;

/// The capacity of a connection's statement cache, more than there are statements.
const STATEMENTS: usize = 128;

/// The delay before a retry while other processes are opening the store.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// The access to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Create,
    /// Reads and writes an existing file.
    Existing,
    ReadOnly,
}

pub(super) struct Opened {
    pub(super) db: Db,
    pub(super) source: Source,
}

pub(super) fn place(folder: &Path, role: &str) -> Result<StorePath> {
    let place = StorePath {
        file: folder.join(format!("{role}.sqlite3")),
    };
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if role.is_empty() || role.len() > 64 || !role.bytes().all(ordinary) {
        return Err(place.unusable(format!(
            "the role {role:?} cannot name a file; use up to 64 letters, digits, - and _"
        )));
    }
    Ok(place)
}

/// Returns the path of an existing store.
pub(super) fn existing(folder: &Path, role: &str) -> Result<StorePath> {
    let place = place(folder, role)?;
    if place.file.exists() {
        return Ok(place);
    }
    Err(place.unusable(format!(
        "there is no such file: the role {role} has not run yet, or keeps its store in another folder"
    )))
}

/// Connects to a backup, in any schema version that this program knows, for reading only.
pub(super) fn connect_to_backup(place: &StorePath) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&place.file, flags)?;
    if number(&conn, "application_id")? == APPLICATION_ID
        && (1..SCHEMA_VERSION).contains(&number(&conn, "user_version")?)
    {
        return Ok(conn);
    }
    check(&conn, place)?;
    Ok(conn)
}

/// Returns true if opening the store for writing would migrate it.
pub(super) fn needs_migration(place: &StorePath) -> Result<bool, SqliteError> {
    let conn = connect_to_backup(place)?;
    Ok(schema_version(&conn)? < SCHEMA_VERSION)
}

/// The schema version of a file.
pub(super) fn schema_version(conn: &Connection) -> rusqlite::Result<i32> {
    number(conn, "user_version")
}

pub(super) fn open(folder: &Path, role: &str, access: Access, options: &Options) -> Result<Opened> {
    let place = place(folder, role)?;
    match access {
        Access::Create => {
            create_folder(folder, &place)?;
            left_alone(&place)?;
            create_file(&place);
        }
        Access::Existing | Access::ReadOnly => drop(existing(folder, role)?),
    }
    let before = Identity::before_opening(&place.file);
    let conn = connect(&place, access, options).map_err(|e| place.not_opened(&e))?;
    let opened =
        prepare(conn, &place, role, access, options, before).map_err(|stop| match stop {
            SqliteError::Sql(error) => place.not_opened(&error),
            SqliteError::Unavailable(detail) => place.unavailable(detail),
            SqliteError::Unusable(detail) => place.unusable(detail),
            SqliteError::Conflict => place.unavailable("another process is creating it; try again"),
        })?;
    Ok(opened)
}

/// Creates the folder with access for its owner alone. An existing folder keeps its permissions: they are its owner's
/// decision.
pub(super) fn create_folder(folder: &Path, place: &StorePath) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| {
        place.unusable(format!(
            "the folder {} cannot be created ({e}); name a folder that this user may write",
            folder.display()
        ))
    })
}

/// Refuses to create a store beside the log of another. SQLite would delete that log, and with it the last commits of a
/// store that was moved away without it.
fn left_alone(place: &StorePath) -> Result<()> {
    let mut log = place.file.clone().into_os_string();
    log.push("-wal");
    let log = PathBuf::from(log);
    let is_left = fs::metadata(&log).is_ok_and(|found| found.len() > 0);
    if is_left && matches!(place.file.try_exists(), Ok(false)) {
        return Err(place.unusable(format!(
            "the file is missing and its log {} was left behind with the last commits: put the file back beside it, or move the log away, \
             too, to begin with a new store",
            log.display()
        )));
    }
    Ok(())
}

/// Creates the file with access for its owner alone, since states may contain secrets such as password hashes. SQLite
/// gives its companion files the same permissions. An existing file is left as it is. Errors are ignored, since SQLite
/// opens the file next and reports them.
fn create_file(place: &StorePath) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(&place.file);
}

pub(super) fn connect(
    place: &StorePath,
    access: Access,
    options: &Options,
) -> rusqlite::Result<Connection> {
    // Opens even a reader's connection for writing where that is permitted, since reading beside a writer needs the
    // shared index file. SQLite falls back to read-only by itself, and `query_only` prevents writes.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if access == Access::Create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = Connection::open_with_flags(&place.file, flags)?;
    conn.busy_timeout(options.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without this, SQLite uses the values of limits and bounds to choose a plan, and re-prepares a statement for each
    // of them.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

fn prepare(
    mut conn: Connection,
    place: &StorePath,
    role: &str,
    access: Access,
    options: &Options,
    before: Option<FileId>,
) -> Result<Opened, SqliteError> {
    if access == Access::Create && is_blank(&conn)? {
        create(&mut conn, role, options)?;
    }
    if access != Access::ReadOnly {
        migrate(&mut conn)?;
    }
    check(&conn, place)?;
    settings(&conn, access, options)?;
    let (of, source, generation): (String, Source, i64) =
        conn.query_row("SELECT role, source, generation FROM store", [], |row| {
            Ok((row.get(0)?, attribute(row, 1, Source::new)?, row.get(2)?))
        })?;
    if of != role {
        return Err(SqliteError::Unusable(format!(
            "it belongs to the role {of}, not to {role}; name it {of}.sqlite3 again, or move it away"
        )));
    }
    let identity = Identity::identify(&conn, &place.file, before).map_err(|e| {
        SqliteError::Unavailable(format!("its file cannot be identified: {e}; try again"))
    })?;
    Ok(Opened {
        db: Db {
            conn,
            sources: Sources::default(),
            generation,
            outbox_untried_from: 0,
            place: place.clone(),
            identity,
        },
        source,
    })
}

/// Returns true if there is a store, or may be one.
pub(super) fn exists(folder: &Path, role: &str) -> bool {
    let file = path(folder, role);
    if matches!(file.try_exists(), Ok(false)) {
        return false;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let blank = Connection::open_with_flags(&file, flags).and_then(|conn| is_blank(&conn));
    !blank.unwrap_or(false)
}

/// Returns true if nothing was ever written to the file.
fn is_blank(conn: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && number(conn, "application_id")? == 0)
}

fn create(conn: &mut Connection, role: &str, options: &Options) -> Result<(), SqliteError> {
    let source = new_source_id(role).map_err(|e| SqliteError::Unusable(e.to_string()))?;
    // These two cannot be part of a transaction. A file that contains nothing else still counts as blank.
    conn.pragma_update(None, "page_size", PAGE_BYTES)?;
    write_ahead(conn, options)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have created it meanwhile.
    if is_blank(&tx)? {
        tx.execute_batch(include_str!("schema.sql"))?;
        tx.execute(
            "INSERT INTO store(one, role, source, generation) VALUES (1, ?1, ?2, 1)",
            params![role, source.as_str()],
        )?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", 1)?;
        apply_migrations(&tx, 1)?;
    }
    tx.commit()?;
    Ok(())
}

/// Applies the migrations that follow this schema version.
fn apply_migrations(tx: &Transaction<'_>, from: i32) -> rusqlite::Result<()> {
    for (version, added) in (2..).zip(MIGRATIONS) {
        if version > from {
            tx.execute_batch(added)?;
            tx.pragma_update(None, "user_version", version)?;
        }
    }
    Ok(())
}

/// Migrates a store of an older schema version.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), SqliteError> {
    let older = |conn: &Connection| -> rusqlite::Result<Option<i32>> {
        let ours = number(conn, "application_id")? == APPLICATION_ID;
        let version = number(conn, "user_version")?;
        Ok(Some(version).filter(|version| ours && (1..SCHEMA_VERSION).contains(version)))
    };
    if older(conn)?.is_none() {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated it meanwhile.
    if let Some(version) = older(&tx)? {
        apply_migrations(&tx, version)?;
    }
    tx.commit()?;
    Ok(())
}

pub(super) fn check(conn: &Connection, place: &StorePath) -> Result<(), SqliteError> {
    if number(conn, "application_id")? != APPLICATION_ID {
        return match place.not_a_store() {
            StoreError::Unusable { detail, .. } | StoreError::Unavailable { detail, .. } => {
                Err(SqliteError::Unusable(detail))
            }
        };
    }
    match number(conn, "user_version")? {
        SCHEMA_VERSION => Ok(()),
        newer if newer > SCHEMA_VERSION => Err(SqliteError::Unusable(format!(
            "it was written by a newer Doorstep (schema version {newer}, this one knows {SCHEMA_VERSION}); use that version, or name another folder"
        ))),
        older @ 1..SCHEMA_VERSION => Err(SqliteError::Unusable(format!(
            "it has schema version {older} and must be migrated to {SCHEMA_VERSION}: run the role once"
        ))),
        older => Err(SqliteError::Unusable(format!(
            "it has schema version {older}, which this version (schema {SCHEMA_VERSION}) no longer reads; open it with the version that wrote it"
        ))),
    }
}

fn settings(conn: &Connection, access: Access, options: &Options) -> Result<(), SqliteError> {
    if access == Access::ReadOnly {
        conn.pragma_update(None, "query_only", true)?;
    } else {
        write_ahead(conn, options)?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", options.checkpoint_pages)?;
        // After a time in which checkpoints were blocked, the log is truncated to twice its usual size.
        let log_bytes = i64::from(options.checkpoint_pages) * i64::from(PAGE_BYTES) * 2;
        returning(conn, "journal_size_limit", log_bytes)?;
        if let Some(pages) = options.max_pages {
            returning(conn, "max_page_count", i64::from(pages))?;
        }
    }
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    returning(conn, "mmap_size", 0)?;
    Ok(())
}

fn write_ahead(conn: &Connection, options: &Options) -> Result<(), SqliteError> {
    let until = Instant::now() + options.busy_timeout;
    // If several connections switch to WAL at once, SQLite rejects all but one immediately as locked: each has read the
    // file already, and they would wait for each other for ever. The busy timeout does not apply to this case.
    let mode: String = loop {
        match conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if Instant::now() >= until {
                    return Err(e.into());
                }
                thread::sleep(RETRY_DELAY);
            }
            done => break done?,
        }
    };
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(SqliteError::Unusable(format!(
        "its file system does not support a write-ahead log (journal mode {mode:?}); use a folder on a local disk"
    )))
}

/// Sets a pragma that returns the value that it has set, or no row.
fn returning(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.pragma(None, name, value, |_| Ok(()))
}

fn number(conn: &Connection, name: &str) -> rusqlite::Result<i32> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// Gives a store that was restored from a copy a new source: the original has gone on numbering under the old one.
pub(super) fn mint_source(
    folder: &Path,
    role: &str,
    outbox: OldOutbox,
    record: &WriteSet,
    options: &Options,
) -> Result<Source> {
    let mut opened = open(folder, role, Access::Existing, options)?;
    let place = opened.db.place.clone();
    let source = new_source_id(role).map_err(|e| place.unusable(e.to_string()))?;
    let minted = super::commit::mint(&mut opened.db, &source, outbox, record);
    minted.map_err(|stop| opened.db.failed(stop))?;
    Ok(source)
}

/// Returns the path of a role's store.
pub(super) fn path(folder: &Path, role: &str) -> PathBuf {
    folder.join(format!("{role}.sqlite3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a flush of the log, an answered commit does not survive a power failure.
    #[test]
    fn each_commit_is_flushed_to_disk() {
        const FULL: i32 = 2;
        let folder = std::env::temp_dir().join(format!("doorstep-flush-{}", std::process::id()));
        let options = Options::default();
        for access in [Access::Create, Access::Create, Access::Existing] {
            let opened = open(&folder, "ledger", access, &options).unwrap();
            let conn = opened.db.conn;
            assert_eq!(number(&conn, "synchronous").unwrap(), FULL, "{access:?}");
            let mode: String = conn
                .pragma_query_value(None, "journal_mode", |row| row.get(0))
                .unwrap();
            assert_eq!(mode, "wal", "{access:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
