//! Writes and resolves dead letters.

use doorstep_event::{Event, Sequence};
use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more};
use crate::{
    DeadLetter, DeadLetterEdit, DeadLetterId, DeadLetterStatus, NewDeadLetter, Resolution, TaskId,
    size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        dead_letters::status_column,
        epochs::epoch_columns,
        error::SqliteError,
    },
};

impl Writer<'_> {
    pub(super) fn resolve(
        &mut self,
        fates: &[(DeadLetterId, DeadLetterStatus, Resolution)],
    ) -> Result<(), SqliteError> {
        for (id, expected, fate) in fates {
            let expected = status_column(*expected);
            match fate {
                Resolution::Replaying => {
                    self.set_status(id, expected, DeadLetterStatus::Replaying)?;
                }
                Resolution::Awaiting => {
                    self.set_status(id, expected, DeadLetterStatus::Awaiting)?;
                }
                Resolution::Gone => {
                    let (bytes, original, streamless) = self
                        .query_row(
                            "DELETE FROM dead WHERE id = ?1 AND status = ?2
                             RETURNING bytes, CASE WHEN data <> body THEN body END, streamless",
                            params![id.0, expected],
                            |row| {
                                let original: Option<Vec<u8>> = row.get(1)?;
                                Ok((unsigned(row, 0)?, original, unsigned(row, 2)?))
                            },
                        )
                        .optional()?
                        .ok_or(SqliteError::Conflict)?;
                    less(&mut self.totals.usage.dead_letters, 1, bytes);
                    if streamless > 0 {
                        self.forget_streamless(streamless)?;
                    }
                    if let Some(original) = original {
                        self.originals.remember(id, original.into());
                    }
                }
            }
        }
        Ok(())
    }

    fn set_status(
        &self,
        id: &DeadLetterId,
        expected: i64,
        status: DeadLetterStatus,
    ) -> Result<(), SqliteError> {
        self.execute_one(
            "UPDATE dead SET status = ?3 WHERE id = ?1 AND status = ?2",
            params![id.0, expected, status_column(status)],
        )
    }

    pub(super) fn edit(&mut self, edits: &[DeadLetterEdit]) -> Result<(), SqliteError> {
        for DeadLetterEdit { id, before, after } in edits {
            let (bytes_before, defect) = self.query_row(
                "SELECT bytes, coalesce(length(CAST(defect AS BLOB)), 0) FROM dead WHERE id = ?1 AND status = ?2 AND data = ?3",
                params![id.0, status_column(DeadLetterStatus::Open), &before[..]],
                |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
            )
                .optional()?
                .ok_or(SqliteError::Conflict)?;
            let without = bytes_before.saturating_sub(defect + before.len() as u64);
            let bytes = without + after.len() as u64;
            self.execute(
                "UPDATE dead SET data = ?2, defect = NULL, bytes = ?3 WHERE id = ?1",
                params![id.0, &after[..], signed(bytes)],
            )?;
            less(&mut self.totals.usage.dead_letters, 1, bytes_before);
            more(&mut self.totals.usage.dead_letters, bytes);
        }
        Ok(())
    }

    pub(super) fn add_dead(&mut self, new: &[NewDeadLetter]) -> Result<(), SqliteError> {
        for NewDeadLetter { row } in new {
            if !self.add_dead_row(row)? {
                return Err(SqliteError::Conflict);
            }
        }
        Ok(())
    }

    /// Returns the number of those that were new.
    pub(super) fn add_dead_if_absent(&mut self, new: &[NewDeadLetter]) -> Result<u64, SqliteError> {
        let mut dead_lettered = 0;
        for NewDeadLetter { row } in new {
            if self.add_dead_row(row)? {
                dead_lettered += 1;
                self.totals.tally.dead_letters += 1;
            } else {
                self.totals.tally.duplicates += 1;
                self.known_dead_letters.insert(row.id.clone());
            }
        }
        Ok(dead_lettered)
    }

    /// Adds a dead letter unless it exists already. Returns true if it was added.
    pub(super) fn add_dead_row(&mut self, row: &DeadLetter) -> Result<bool, SqliteError> {
        let event: Option<&Event> = row.event.as_ref();
        let source = match event {
            Some(event) => Some(self.sources.find_or_add(self.tx, &event.source)?),
            None => None,
        };
        let (epoch, epoch_random) = epoch_columns(event.and_then(|e| e.epoch));
        let body = self.originals.get(&row.id).unwrap_or(&row.body).clone();
        let bytes =
            size::dead_letter(row).saturating_sub(row.body.len() as u64) + body.len() as u64;
        let added = self.execute(
            "INSERT INTO dead(id, status, blocks, attempts, since, bytes, fingerprint, reason, detail, defect, body, event_id,
                                  source_id, type, subject, time, sequence, traceparent, data, epoch, epoch_random, task)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
                 ON CONFLICT DO NOTHING",
            params![
                row.id.0,
                status_column(row.status),
                row.blocks,
                row.attempts,
                nanos(row.since),
                signed(bytes),
                row.fingerprint,
                row.reason,
                row.detail,
                row.defect,
                &body[..],
                event.map(|e| e.id.as_str()),
                source,
                event.map(|e| e.event_type.as_str()),
                event.map(|e| e.subject.as_str()),
                event.and_then(|e| e.time).map(exact_time),
                event.and_then(|e| e.sequence).map(Sequence::get).map(signed),
                event.and_then(|e| e.traceparent.as_deref()),
                event.map(|e| &e.data[..]),
                epoch,
                epoch_random,
                row.task.as_ref().map(TaskId::as_str),
            ],
        )?;
        if added == 0 {
            return Ok(false);
        }
        more(&mut self.totals.usage.dead_letters, bytes);
        Ok(true)
    }
}
