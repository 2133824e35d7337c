//! A connection with its cached values and its transactions.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::{
    error::{SqliteError, StorePath},
    identity::Identity,
    sources::Sources,
};
use crate::StoreError;

/// A connection, owned by one thread.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) conn: Connection,
    pub(super) sources: Sources,
    /// The generation of the store's source when it was opened: after a change this handle must not write.
    pub(super) generation: i64,
    /// Every untried row of the outbox has at least this number, so that a scan passes retried rows only once.
    pub(super) outbox_untried_from: i64,
    pub(super) place: StorePath,
    pub(super) identity: Identity,
}

/// The end of a transaction that did not fail.
pub(super) enum TxEnd<T> {
    Commit(T),
    Rollback(T),
}

impl Db {
    /// Runs a write transaction. It takes the store's single write lock first, so nothing that it reads can change.
    pub(super) fn write<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>, &mut Sources) -> Result<TxEnd<T>, SqliteError>,
    ) -> Result<T, SqliteError> {
        self.identity.check_again()?;
        self.rollback_if_open();
        let sources = &mut self.sources;
        let result = (|| {
            let tx = self
                .conn
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            match body(&tx, sources)? {
                TxEnd::Commit(value) => {
                    tx.commit()?;
                    Ok((value, true))
                }
                TxEnd::Rollback(value) => {
                    tx.rollback()?;
                    Ok((value, false))
                }
            }
        })();
        match result {
            Ok((value, true)) => {
                self.sources.committed();
                // A commit into files that no process will find again does not count: the batch is processed again as
                // after a crash.
                self.identity.check()?;
                Ok(value)
            }
            Ok((value, false)) => {
                self.sources.rolled_back();
                Ok(value)
            }
            Err(stop) => {
                self.sources.rolled_back();
                Err(stop)
            }
        }
    }

    /// Runs a read transaction: all reads see the same moment.
    pub(super) fn read<T>(
        &mut self,
        body: impl FnOnce(&Connection, &mut Sources) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        self.identity.check_again()?;
        self.rollback_if_open();
        // Both statements come from the cache: preparing them would cost as much as most of the reads.
        self.conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        let read = body(&self.conn, &mut self.sources);
        // A failed read has nothing to undo, so it ends the same way; its own error takes precedence.
        let ended = self
            .conn
            .prepare_cached("COMMIT")
            .and_then(|mut end| end.execute([]));
        let value = read?;
        ended?;
        Ok(value)
    }

    /// Checkpoints the write-ahead log and truncates it, as far as no other connection reads from it; waits for none.
    pub(super) fn trim_log(&mut self) -> Result<(), SqliteError> {
        self.rollback_if_open();
        let busy_timeout: i64 = self
            .conn
            .pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
        self.conn.busy_timeout(Duration::ZERO)?;
        let trimmed = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let busy_timeout = u64::try_from(busy_timeout).unwrap_or_default();
        self.conn
            .busy_timeout(Duration::from_millis(busy_timeout))?;
        match trimmed {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
            trimmed => Ok(trimmed?),
        }
    }

    /// Rolls back a transaction left open by a failed rollback, so that the next one can begin.
    fn rollback_if_open(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(store = %self.place.file.display(), %error, "a transaction could not be rolled back");
        }
    }

    pub(super) fn failed(&self, stop: SqliteError) -> StoreError {
        match stop {
            // Callers that expect a conflict have already returned it as a result.
            SqliteError::Conflict => self
                .place
                .unavailable("it has changed meanwhile; try again"),
            SqliteError::Sql(error) => self.place.failed(&error),
            SqliteError::Unavailable(detail) => self.place.unavailable(detail),
            SqliteError::Unusable(detail) => self.place.unusable(detail),
        }
    }
}
