//! Adds, deletes and postpones outbox rows.

use doorstep_event::{Event, Sequence};
use rusqlite::params;

use super::{Writer, less, more};
use crate::{
    NewOutbox, OutboxId, OutboxKind, OutboxRetry, size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        epochs::epoch_columns,
        error::SqliteError,
    },
};

impl Writer<'_> {
    pub(super) fn enqueue(&mut self, new: &[NewOutbox]) -> Result<(), SqliteError> {
        for NewOutbox { kind } in new {
            if kind.copies_one_of(&self.known_dead_letters) {
                continue;
            }
            let bytes = size::outbox(kind);
            self.totals.last_outbox += 1;
            match kind {
                OutboxKind::Event(event) => self.enqueue_event(event, bytes)?,
                OutboxKind::DeadCopy { id, headers, body } => {
                    let headers = serde_json::to_string(headers).map_err(|e| {
                        SqliteError::Unusable(format!("headers cannot be written: {e}"))
                    })?;
                    self.execute(
                        "INSERT INTO outbox(id, attempts, since, bytes, dead_id, headers, data)
                             VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6)",
                        params![
                            self.totals.last_outbox,
                            nanos(self.now),
                            signed(bytes),
                            id.0,
                            headers,
                            &body[..],
                        ],
                    )?;
                }
            }
            more(&mut self.totals.usage.outbox, bytes);
        }
        Ok(())
    }

    fn enqueue_event(&mut self, event: &Event, bytes: u64) -> Result<(), SqliteError> {
        let source = self.sources.find_or_add(self.tx, &event.source)?;
        let numbered_now = event.sequence.and(self.totals.epoch);
        let (epoch, epoch_random) = epoch_columns(event.epoch.or(numbered_now));
        self.execute(
            "INSERT INTO outbox(id, attempts, since, bytes, event_id, source_id, type, subject, time, sequence, traceparent,
                                    data, epoch, epoch_random)
                 VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                self.totals.last_outbox,
                nanos(self.now),
                signed(bytes),
                event.id.as_str(),
                source,
                event.event_type.as_str(),
                event.subject.as_str(),
                event.time.map(exact_time),
                event.sequence.map(Sequence::get).map(signed),
                event.traceparent,
                &event.data[..],
                epoch,
                epoch_random,
            ],
        )?;
        Ok(())
    }

    /// Deletes published rows. A missing row was published by another relay.
    pub(super) fn mark_published(&mut self, ids: &[OutboxId]) -> Result<(), SqliteError> {
        // A relay mostly publishes rows that were written together: a run of numbers takes two statements at any
        // length.
        for run in ids.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let (rows, bytes) = self.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM outbox WHERE id BETWEEN ?1 AND ?2",
                [first.0, last.0],
                |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
            )?;
            self.execute(
                "DELETE FROM outbox WHERE id BETWEEN ?1 AND ?2",
                [first.0, last.0],
            )?;
            less(&mut self.totals.usage.outbox, rows, bytes);
        }
        Ok(())
    }

    pub(super) fn postpone(&mut self, retries: &[OutboxRetry]) -> Result<(), SqliteError> {
        for retry in retries {
            self.execute(
                "UPDATE outbox SET due = ?2, attempts = attempts + 1 WHERE id = ?1",
                params![retry.id.0, nanos(retry.due)],
            )?;
        }
        Ok(())
    }
}
