//! Timers: events that the role schedules for itself.

use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more};
use crate::{
    DeferredEvent, DeferredId, NewTimer, size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        deferred::{deferred_row, timer_columns},
        error::SqliteError,
    },
};

impl Writer<'_> {
    pub(super) fn schedule(&mut self, new: &NewTimer) -> Result<(), SqliteError> {
        self.totals.last_deferred += 1;
        let DeferredEvent { id, event, .. } = new
            .clone()
            .into_row(DeferredId(self.totals.last_deferred), self.now);
        let source = self.sources.find_or_add(self.tx, &event.source)?;
        let bytes = size::deferred(&event, None);
        self.execute(
            "INSERT INTO scheduled(id, due, since, bytes, source_id, type, subject, time, traceparent, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                id.0,
                nanos(new.due),
                nanos(self.now),
                signed(bytes),
                source,
                event.event_type.as_str(),
                event.subject.as_str(),
                event.time.map(exact_time),
                event.traceparent,
                &event.data[..],
            ],
        )?;
        more(&mut self.totals.usage.timers, bytes);
        Ok(())
    }

    /// Deletes a timer. Returns true if it existed.
    pub(super) fn remove_timer(&mut self, id: DeferredId) -> Result<bool, SqliteError> {
        let bytes = self
            .query_row(
                "DELETE FROM scheduled WHERE id = ?1 RETURNING bytes",
                [id.0],
                |row| unsigned(row, 0),
            )
            .optional()?;
        if let Some(bytes) = bytes {
            less(&mut self.totals.usage.timers, 1, bytes);
        }
        Ok(bytes.is_some())
    }

    /// Takes a timer out of its table, to become a deferred event.
    pub(super) fn take_timer(
        &mut self,
        id: DeferredId,
    ) -> Result<Option<DeferredEvent>, SqliteError> {
        let row = {
            let mut found = self.tx.prepare_cached(concat!(
                "SELECT ",
                timer_columns!(),
                " FROM scheduled WHERE id = ?1"
            ))?;
            let mut rows = found.query([id.0])?;
            match rows.next()? {
                Some(row) => deferred_row(row, self.tx, self.sources)?,
                None => return Ok(None),
            }
        };
        self.remove_timer(id)?;
        Ok(Some(row))
    }
}
