//! Creates, checks and changes streams.

use doorstep_event::StreamKey;
use rusqlite::{Statement, params};

use super::{Writer, one_or_conflict};
use crate::{
    ExpectedVersion, RowRef, StreamChange, StreamState,
    sqlite::{
        columns::{last_id, nanos, signed, unsigned},
        deferred::WAITING_FOR,
        epochs::stream_epoch_columns,
        error::SqliteError,
    },
};

/// The version of a row that was just created.
const FIRST_VERSION: u64 = 1;

impl Writer<'_> {
    /// Creates missing streams in their new state. Returns the row of each stream.
    pub(super) fn create_streams(
        &mut self,
        changes: &[StreamChange],
    ) -> Result<Vec<i64>, SqliteError> {
        changes
            .iter()
            .map(|change| match change.expect.row {
                Some(row) => Ok(row.0),
                None => self
                    .create_stream(&change.key, change.after.as_ref())?
                    .ok_or(SqliteError::Conflict),
            })
            .collect()
    }

    /// Returns `None` if the stream exists already.
    pub(super) fn create_stream(
        &mut self,
        key: &StreamKey,
        state: Option<&StreamState>,
    ) -> Result<Option<i64>, SqliteError> {
        let source = self.sources.find_or_add(self.tx, &key.source)?;
        let id = self.totals.last_stream + 1;
        let created = self.execute(
            "INSERT INTO stream_keys(source_id, subject, id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![source, key.subject.as_str(), id],
        )?;
        if created == 0 {
            return Ok(None);
        }
        let cursor = state.map_or(0, |s| s.cursor);
        let (epoch, epoch_random, epoch_from) = stream_epoch_columns(state.and_then(|s| s.epoch));
        let at_cursor = state.and_then(|s| s.last_id.as_ref());
        self.execute(
            "INSERT INTO streams(id, version, cursor, held, last_id, blocked, epoch, epoch_random, epoch_from)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8)",
            params![
                id,
                signed(FIRST_VERSION),
                signed(cursor),
                last_id(at_cursor, &key.subject, cursor),
                state.and_then(|s| s.blocked.as_ref()).map(|dead| &dead.0),
                epoch,
                epoch_random,
                epoch_from,
            ],
        )?;
        self.totals.last_stream = id;
        self.totals.streams += 1;
        Ok(Some(id))
    }

    pub(super) fn write_streams(
        &mut self,
        changes: &[StreamChange],
        ids: &[i64],
    ) -> Result<Vec<ExpectedVersion>, SqliteError> {
        let tx = self.tx;
        // Prepared once for the hundreds of streams of a batch.
        let mut update = tx.prepare_cached(
            "UPDATE streams SET version = version + 1, cursor = ?3, last_id = ?4, blocked = ?5,
                                epoch = ?6, epoch_random = ?7, epoch_from = ?8
             WHERE id = ?1 AND version = ?2 AND cursor <= ?3",
        )?;
        let mut written = Vec::with_capacity(changes.len());
        for (change, id) in changes.iter().zip(ids) {
            let version = match (change.expect.row, &change.after) {
                (None, _) => FIRST_VERSION,
                (Some(_), None) => self.check_stream(*id, change.expect.version)?,
                (Some(_), Some(after)) => update_stream(&mut update, *id, change, after)?,
            };
            written.push(ExpectedVersion {
                row: Some(RowRef(*id)),
                version,
            });
        }
        for (id, more) in std::mem::take(&mut self.deferred_more) {
            self.add_deferred(id, more)?;
        }
        // Usually no event is deferred at all, and the streams need no second pass.
        if self.totals.usage.deferred.rows > 0 {
            for (change, id) in changes.iter().zip(ids) {
                if let Some(after) = &change.after {
                    self.advance_cursor(*id, after)?;
                }
            }
        }
        Ok(written)
    }

    fn check_stream(&mut self, id: i64, version: u64) -> Result<u64, SqliteError> {
        let same = self.exists(
            "SELECT 1 FROM streams WHERE id = ?1 AND version = ?2",
            params![id, signed(version)],
        )?;
        if same {
            Ok(version)
        } else {
            Err(SqliteError::Conflict)
        }
    }

    fn add_deferred(&mut self, id: i64, more: i64) -> Result<(), SqliteError> {
        if more != 0 {
            self.execute(
                "UPDATE streams SET held = held + ?2 WHERE id = ?1",
                params![id, more],
            )?;
        }
        Ok(())
    }

    /// Drops the events deferred at or below the cursor and makes the next one due.
    fn advance_cursor(&mut self, id: i64, after: &StreamState) -> Result<(), SqliteError> {
        let holds = self.exists("SELECT 1 FROM streams WHERE id = ?1 AND held > 0", [id])?;
        if !holds {
            return Ok(());
        }
        let mut dropped = 0;
        {
            let mut passed = self.tx.prepare_cached(
                "DELETE FROM held WHERE stream_id = ?1 AND sequence <= ?2 RETURNING bytes, reason",
            )?;
            let mut rows = passed.query(params![id, signed(after.cursor)])?;
            while let Some(row) = rows.next()? {
                let reason: i64 = row.get(1)?;
                dropped += 1;
                self.totals
                    .count_deferred_out(unsigned(row, 0)?, reason == WAITING_FOR);
            }
        }
        self.add_deferred(id, -dropped)?;
        if let (None, Some(next)) = (&after.blocked, after.cursor.checked_add(1)) {
            self.execute(
                "UPDATE held SET due = ?3 WHERE stream_id = ?1 AND sequence = ?2 AND due IS NULL",
                params![id, signed(next), nanos(self.now)],
            )?;
        }
        Ok(())
    }
}

fn update_stream(
    update: &mut Statement<'_>,
    id: i64,
    change: &StreamChange,
    after: &StreamState,
) -> Result<u64, SqliteError> {
    let (epoch, epoch_random, epoch_from) = stream_epoch_columns(after.epoch);
    let changed = update.execute(params![
        id,
        signed(change.expect.version),
        signed(after.cursor),
        last_id(after.last_id.as_ref(), &change.key.subject, after.cursor),
        after.blocked.as_ref().map(|dead| &dead.0),
        epoch,
        epoch_random,
        epoch_from,
    ])?;
    one_or_conflict(changed)?;
    Ok(change.expect.version + 1)
}
