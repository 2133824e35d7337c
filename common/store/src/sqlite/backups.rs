//! Backup and restore: copies of a store in use, and restored copies that become stores of their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use doorstep_event::{Epoch, Source, Timestamp};
use rusqlite::{Connection, TransactionBehavior};

use super::{
    columns::{attribute, nanos, optional_epoch},
    error::{SqliteError, StorePath},
    file::{self, Access},
    options::Options,
    tasks::SqliteTasks,
    totals::Totals,
};
use crate::{Result, tasks::leases::make_all_unknown};

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub bytes: u64,
    /// The source of its store.
    pub source: Source,
    /// The latest epoch of its store.
    pub epoch: Option<Epoch>,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredFrom {
    pub file: PathBuf,
    /// The new paths of the files that it has replaced.
    pub aside: Vec<PathBuf>,
    /// The contents of the backup.
    pub backup: Backup,
}

/// The treatment of an existing store when a backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    Refuse,
    /// Renames the files of the existing store: `ROLE.sqlite3.before-TIME` and the like.
    MoveAside,
}

/// The suffix of a backup's name until it is complete.
const PARTIAL: &str = "partial";

pub(super) fn backup(folder: &Path, role: &str, to: &Path, options: &Options) -> Result<Backup> {
    let from = file::existing(folder, role)?;
    let target = StorePath {
        file: to.to_owned(),
    };
    if fs::symlink_metadata(to).is_ok() {
        return Err(target.unusable("the file exists already; name another one"));
    }
    let partial = Partial::create(to, PARTIAL).map_err(|e| target.file_failed(&e))?;
    let conn = file::connect(&from, Access::Existing, options).map_err(|e| from.not_opened(&e))?;
    file::check(&conn, &from).map_err(|stop| from.stopped(stop))?;
    // One read transaction: the copy is of one moment, and no writer waits for it. SQLite's online backup would restart
    // with each commit of another connection unless it kept such a transaction open, too.
    let written = conn.execute("VACUUM INTO ?1", [partial.name(&target)?]);
    written.map_err(|e| from.failed(&e))?;
    let copied = StorePath {
        file: partial.0.clone(),
    };
    let backup = verify(&copied, role)?;
    partial.complete(to).map_err(|e| target.file_failed(&e))?;
    Ok(backup)
}

/// The bytes written so far of a backup.
pub(super) fn written(to: &Path) -> u64 {
    fs::metadata(with_end(to, &format!(".{PARTIAL}"))).map_or(0, |file| file.len())
}

/// The bytes of a database and its log.
pub(super) fn size(file: &Path) -> u64 {
    let all = ["", "-wal"].map(|end| fs::metadata(with_end(file, end)));
    all.into_iter().flatten().map(|file| file.len()).sum()
}

fn verify(place: &StorePath, role: &str) -> Result<Backup> {
    let refused = |e: &io::Error| place.file_failed(e);
    let bytes = fs::metadata(&place.file).map_err(|e| refused(&e))?.len();
    let read = file::connect_to_backup(place).and_then(|conn| contents(&conn, role, bytes));
    read.map_err(|stop| place.stopped(stop))
}

fn contents(conn: &Connection, role: &str, bytes: u64) -> Result<Backup, SqliteError> {
    let found: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(SqliteError::Unusable(format!(
            "it is damaged ({found}); use another backup"
        )));
    }
    let (of, source) = conn.query_row("SELECT role, source FROM store", [], |row| {
        Ok((row.get::<_, String>(0)?, attribute(row, 1, Source::new)?))
    })?;
    if of != role {
        return Err(SqliteError::Unusable(format!(
            "it is a backup of the role {of}, not of {role}"
        )));
    }
    // Backups before schema version 5 have no epochs.
    let has_epochs = file::schema_version(conn)? >= 5;
    let epoch = match has_epochs {
        true => conn.query_row("SELECT epoch, epoch_random FROM store", [], |row| {
            optional_epoch(row, 0)
        })?,
        false => None,
    };
    Ok(Backup {
        bytes,
        source,
        epoch,
    })
}

pub(super) fn restore(
    folder: &Path,
    role: &str,
    from: &Path,
    in_place: InPlace,
    now: Timestamp,
    options: &Options,
) -> Result<RestoredFrom> {
    let place = file::place(folder, role)?;
    let backup = verify(
        &StorePath {
            file: from.to_owned(),
        },
        role,
    )?;
    file::create_folder(folder, &place)?;
    let there: Vec<PathBuf> = ["", "-wal", "-shm"]
        .iter()
        .map(|end| with_end(&place.file, end))
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .collect();
    if !there.is_empty() && in_place == InPlace::Refuse {
        return Err(place.unusable(
            "a store exists already; stop its processes and move it away, or let this command move it aside (--move-aside)",
        ));
    }
    if place.file.exists() {
        // Also checkpoints the log, so that the files moved aside are complete.
        drop(alone(&place, options)?);
    }
    let partial = Partial::create(&place.file, "restoring").map_err(|e| place.file_failed(&e))?;
    fs::copy(from, &partial.0).map_err(|e| place.file_failed(&e))?;
    let copied = StorePath {
        file: partial.0.clone(),
    };
    let detail = format!(
        "it was restored from {} at {now}: events that it had received or emitted since that backup are missing",
        from.display()
    );
    mark(&copied, &detail, now, options)?;
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let mut aside = Vec::new();
    for path in there.iter().filter(|path| path.exists()) {
        let moved = with_end(path, &format!(".before-{stamp}"));
        if fs::symlink_metadata(&moved).is_ok() {
            return Err(place.unusable(format!("{} exists already; move it away", moved.display())));
        }
        fs::rename(path, &moved).map_err(|e| place.file_failed(&e))?;
        aside.push(moved);
    }
    partial
        .complete(&place.file)
        .map_err(|e| place.file_failed(&e))?;
    Ok(RestoredFrom {
        file: place.file,
        aside,
        backup,
    })
}

/// Marks a copy as restored before it replaces the store. Its tasks wait for an operator: they may have run since.
fn mark(place: &StorePath, detail: &str, now: Timestamp, options: &Options) -> Result<()> {
    let marked = || -> Result<(), SqliteError> {
        let mut conn = file::connect(place, Access::Existing, options)?;
        file::migrate(&mut conn)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute(
            "UPDATE store SET restored_since = ?1, restored_detail = ?2",
            rusqlite::params![nanos(now), detail.chars().take(1_000).collect::<String>()],
        )?;
        let mut totals = Totals::read(&tx)?;
        make_all_unknown(&mut SqliteTasks {
            conn: &tx,
            totals: &mut totals,
        })?;
        totals.write(&tx)?;
        tx.commit()?;
        Ok(())
    };
    marked().map_err(|stop| place.stopped(stop))
}

/// Checks that no process has the store open.
pub(super) fn require_alone(folder: &Path, role: &str, options: &Options) -> Result<()> {
    let place = file::existing(folder, role)?;
    alone(&place, options).map(drop)
}

/// Connects to a store that no other connection of any process has open.
fn alone(place: &StorePath, options: &Options) -> Result<Connection> {
    let opened = || -> Result<Connection, SqliteError> {
        let mut conn = file::connect(place, Access::Existing, options)?;
        conn.busy_timeout(std::time::Duration::ZERO)?;
        file::migrate(&mut conn)?;
        file::check(&conn, place)?;
        // Only the sole connection can leave the write-ahead log; the next one to open the store creates a new log.
        conn.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        conn.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
        Ok(conn)
    };
    opened().map_err(|stop| match stop {
        SqliteError::Sql(error)
            if matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ) =>
        {
            place.unavailable("a process has it open; stop the role first, and end every other command on this store")
        }
        stop => place.stopped(stop),
    })
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A file written under a temporary name in the same folder, and removed unless it is completed.
struct Partial(PathBuf);

impl Partial {
    /// Creates the file with access for its owner alone. Replaces the leftover of an interrupted command.
    fn create(target: &Path, end: &str) -> io::Result<Self> {
        let path = with_end(target, &format!(".{end}"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path)?;
        Ok(Self(path))
    }

    fn name(&self, place: &StorePath) -> Result<&str> {
        self.0.to_str().ok_or_else(|| {
            place.unusable("its name is not UTF-8, which SQLite cannot take; name another file")
        })
    }

    /// Flushes the file to disk and gives it its final name, which must be free.
    fn complete(self, target: &Path) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()?;
        fs::hard_link(&self.0, target)?;
        fs::remove_file(&self.0)?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A completed file has nothing left to remove.
        let _ = fs::remove_file(&self.0);
        for end in ["-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(with_end(&self.0, end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_backup_has_its_partial_size() {
        let folder = std::env::temp_dir().join(format!("doorstep-written-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let to = folder.join("orders.backup");
        assert_eq!(written(&to), 0);
        let partial = Partial::create(&to, PARTIAL).unwrap();
        fs::write(&partial.0, "seven b").unwrap();
        assert_eq!(written(&to), 7);
        partial.complete(&to).unwrap();
        assert_eq!(written(&to), 0);
        assert_eq!(size(&to), 7);
        fs::remove_dir_all(&folder).unwrap();
    }
}
