//! Translates SQLite's errors into store errors, each with its remedy.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::StoreError;

/// The reason why a transaction stopped.
#[derive(Debug)]
pub(super) enum SqliteError {
    /// A row that the batch had read has changed.
    Conflict,
    Sql(rusqlite::Error),
    /// A condition that may pass.
    Unavailable(String),
    /// A condition that needs an operator.
    Unusable(String),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The file of a store, as errors name it.
#[derive(Debug, Clone)]
pub(super) struct StorePath {
    pub(super) file: PathBuf,
}

impl StorePath {
    fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// Bytes of the write-ahead log beside the file, 0 if there is none.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        match std::fs::metadata(log) {
            Ok(log) => Some(log.len()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(0),
            Err(_) => None,
        }
    }

    fn folder(&self) -> String {
        self.file
            .parent()
            .unwrap_or(Path::new("."))
            .display()
            .to_string()
    }

    pub(super) fn unavailable(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Unavailable {
            store: self.name(),
            detail: detail.into(),
        }
    }

    pub(super) fn unusable(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Unusable {
            store: self.name(),
            detail: detail.into(),
        }
    }

    /// Translates a failure of an open store.
    pub(super) fn failed(&self, error: &rusqlite::Error) -> StoreError {
        let Some(code) = error.sqlite_error_code() else {
            return self.damaged(error);
        };
        match code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed => self.unavailable(format!(
                "another process has kept it locked for too long ({error}); end the process that holds it, such as a backup or a \
                 database shell with an open transaction"
            )),
            ErrorCode::DiskFull => self.unavailable(format!(
                "no space is left for it ({error}); free space in {}",
                self.folder()
            )),
            ErrorCode::SystemIoFailure => self.unavailable(format!(
                "reading or writing has failed ({error}); check the disk under {}",
                self.folder()
            )),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => self.unavailable(format!(
                "it cannot be written ({error}); make the file and its folder {} writable for this user",
                self.folder()
            )),
            ErrorCode::CannotOpen => self.unavailable(format!(
                "it cannot be opened ({error}); check that {} is a folder that this user may write, and the limit of open files",
                self.folder()
            )),
            ErrorCode::NotADatabase => self.not_a_store(),
            ErrorCode::DatabaseCorrupt | ErrorCode::TypeMismatch => self.damaged(error),
            ErrorCode::OutOfMemory => self.unavailable(format!("memory is short ({error})")),
            _ => self.unusable(format!("SQLite has failed unexpectedly: {error}")),
        }
    }

    /// Translates a failure to open a store: if the file cannot be opened or written at all, waiting does not help.
    pub(super) fn not_opened(&self, error: &rusqlite::Error) -> StoreError {
        match (error.sqlite_error_code(), self.failed(error)) {
            (
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied),
                StoreError::Unavailable { store, detail },
            ) => StoreError::Unusable { store, detail },
            (_, other) => other,
        }
    }

    /// Translates the end of a transaction outside a role's normal work.
    pub(super) fn stopped(&self, stop: SqliteError) -> StoreError {
        match stop {
            SqliteError::Conflict => self.unavailable("it has changed meanwhile; try again"),
            SqliteError::Sql(error) => self.not_opened(&error),
            SqliteError::Unavailable(detail) => self.unavailable(detail),
            SqliteError::Unusable(detail) => self.unusable(detail),
        }
    }

    /// Translates an error of the file system.
    pub(super) fn file_failed(&self, error: &std::io::Error) -> StoreError {
        self.unusable(format!("the file cannot be read or written: {error}"))
    }

    pub(super) fn not_a_store(&self) -> StoreError {
        self.unusable("it is not a Doorstep store; move that file away or name another folder")
    }

    fn damaged(&self, error: &rusqlite::Error) -> StoreError {
        self.unusable(format!(
            "it is damaged ({error}); restore a backup, or move the file away and publish the events again"
        ))
    }
}
