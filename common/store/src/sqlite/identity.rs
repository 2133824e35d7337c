//! The identity of an open store's files: checks that the path still leads to them.
//!
//! An open file stays usable after it was moved or deleted, so SQLite would go on committing into files that no later
//! process finds. So device and inode of the database file, its write-ahead log and its index are compared after each
//! commit, before it is answered. None of the three changes while the store is open: SQLite overwrites the log in place
//! and deletes it with the last connection, though never beside a database that has moved. Only `stat` examines the
//! files, since closing any descriptor of them would drop the locks of the whole process.

#[cfg(all(unix, not(target_os = "linux")))]
use std::fs;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::Connection;

use super::error::SqliteError;

/// Device and inode of a file.
pub(super) type FileId = (u64, u64);

/// The files of one connection, as they were when it was opened.
#[derive(Debug)]
pub(super) struct Identity {
    /// `None` if the system has no inodes.
    database: Option<(PathBuf, FileId)>,
    /// The write-ahead log and its index.
    companions: Vec<(PathBuf, FileId)>,
    /// Set while the files are displaced; shared by all connections of a store.
    displaced: Arc<AtomicBool>,
}

/// The way in which a file is displaced.
enum Displaced {
    /// No file is at the path.
    Gone,
    /// Another file is at the path.
    Replaced,
    /// The path cannot be examined.
    Hidden(io::Error),
}

impl Identity {
    /// Returns the id of the file at a database's path, to compare it with the opened one.
    pub(super) fn before_opening(file: &Path) -> Option<FileId> {
        file_id(file).ok().flatten()
    }

    /// Records the files of a connection that has read from its database, so that all of them exist.
    ///
    /// # Errors
    /// The database file was replaced while it was opened, or the files cannot be examined: a retry may help.
    pub(super) fn identify(
        conn: &Connection,
        file: &Path,
        before: Option<FileId>,
    ) -> io::Result<Self> {
        // Absolute, since a relative path follows a moved working directory. SQLite follows links and the path does
        // not: if a link leads elsewhere later, that is another file, too.
        let path = std::path::absolute(file)?;
        let id = file_id(&path)?;
        if before.is_some() && before != id {
            return Err(io::Error::other("the file was replaced meanwhile"));
        }
        let resolved = conn.path().unwrap_or_default();
        let mut companions = Vec::with_capacity(2);
        for companion in ["-wal", "-shm"] {
            let path = PathBuf::from(format!("{resolved}{companion}"));
            if let Some(id) = file_id(&path)? {
                companions.push((path, id));
            }
        }
        Ok(Self {
            database: id.map(|id| (path, id)),
            companions,
            displaced: Arc::default(),
        })
    }

    /// Lets two connections of one store share their findings.
    ///
    /// # Errors
    /// They have opened different files.
    pub(super) fn share(&mut self, other: &Self) -> io::Result<()> {
        if self.database != other.database {
            return Err(io::Error::other("the file was replaced meanwhile"));
        }
        self.displaced = Arc::clone(&other.displaced);
        Ok(())
    }

    /// Checks the files if they were found displaced before. Otherwise free.
    pub(super) fn check_again(&self) -> Result<(), SqliteError> {
        if self.displaced.load(Ordering::Relaxed) {
            self.check()
        } else {
            Ok(())
        }
    }

    /// Checks that the path still leads to the files.
    pub(super) fn check(&self) -> Result<(), SqliteError> {
        let of_database = self.database.iter().map(|file| (file, true));
        let of_companions = self.companions.iter().map(|file| (file, false));
        let checked = of_database
            .chain(of_companions)
            .try_for_each(|((path, id), is_database)| {
                compare(path, *id).map_err(|displaced| displaced.into_error(path, is_database))
            });
        self.displaced.store(checked.is_err(), Ordering::Relaxed);
        checked
    }
}

fn compare(path: &Path, id: FileId) -> Result<(), Displaced> {
    match file_id(path) {
        Ok(Some(found)) if found == id => Ok(()),
        Ok(Some(_)) => Err(Displaced::Replaced),
        Ok(None) => Err(Displaced::Gone),
        Err(error) => Err(Displaced::Hidden(error)),
    }
}

impl Displaced {
    fn into_error(self, path: &Path, is_database: bool) -> SqliteError {
        const MEANING: &str = "nothing more is committed or acknowledged";
        let shown = path.display();
        match self {
            // The next start opens the new file, so waiting does not help.
            Self::Replaced => SqliteError::Unusable(format!(
                "{shown} was replaced by another file under this process, so {MEANING}: start again to use the new one"
            )),
            Self::Gone if is_database => SqliteError::Unavailable(format!(
                "{shown} was moved away or deleted under this process, so {MEANING}: put it back in its place, or stop this process \
                 before you restore a backup"
            )),
            Self::Gone => SqliteError::Unavailable(format!(
                "{shown} was moved away or deleted under this process, so {MEANING}: put it back in its place, or stop this process, \
                 which checkpoints it into the database"
            )),
            Self::Hidden(error) => SqliteError::Unavailable(format!(
                "{shown} cannot be examined ({error}) and may have been moved away, so {MEANING}: let this user read its folder again"
            )),
        }
    }
}

/// Requests the inode alone. `stat` also requests the times, which makes Linux write finer ones at the next change,
/// with a journal commit at the next sync: one more disk wait for each commit.
#[cfg(target_os = "linux")]
fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(found) => {
            let device = makedev(found.stx_dev_major, found.stx_dev_minor);
            Ok(Some((device, found.stx_ino)))
        }
        Err(error) => match io::Error::from(error) {
            error if is_gone(&error) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Other systems do not allow an open file to be moved or deleted.
#[cfg(not(unix))]
fn file_id(_: &Path) -> io::Result<Option<FileId>> {
    Ok(None)
}

#[cfg(unix)]
fn is_gone(error: &io::Error) -> bool {
    // The second kind occurs if a folder of the path was replaced by a file.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
