//! Events that the role has scheduled to itself.

use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more};
use crate::{
    DeferredEvent, DeferredId, NewTimer, size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        deferred::{held_row, scheduled_columns},
        error::SqliteError,
    },
};

impl Writer<'_> {
    pub(super) fn schedule(&mut self, new: &NewTimer) -> Result<(), SqliteError> {
        self.totals.last_held += 1;
        let DeferredEvent { id, event, .. } = new
            .clone()
            .into_row(DeferredId(self.totals.last_held), self.now);
        let source = self.sources.find_or_add(self.tx, &event.source)?;
        let bytes = size::held(&event, None);
        self.tx
            .prepare_cached(
                "INSERT INTO scheduled(id, due, since, bytes, source_id, type, subject, time, traceparent, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
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
            ])?;
        more(&mut self.totals.usage.scheduled, bytes);
        Ok(())
    }

    /// Takes one out, if it is there. Returns whether it was.
    pub(super) fn unschedule(&mut self, id: DeferredId) -> Result<bool, SqliteError> {
        let bytes = self
            .tx
            .prepare_cached("DELETE FROM scheduled WHERE id = ?1 RETURNING bytes")?
            .query_row([id.0], |row| unsigned(row, 0))
            .optional()?;
        if let Some(bytes) = bytes {
            less(&mut self.totals.usage.scheduled, 1, bytes);
        }
        Ok(bytes.is_some())
    }

    /// Takes one out to be held like any other from now on.
    pub(super) fn take_scheduled(
        &mut self,
        id: DeferredId,
    ) -> Result<Option<DeferredEvent>, SqliteError> {
        let row = {
            let mut found = self.tx.prepare_cached(concat!(
                "SELECT ",
                scheduled_columns!(),
                " FROM scheduled WHERE id = ?1"
            ))?;
            let mut rows = found.query([id.0])?;
            match rows.next()? {
                Some(row) => held_row(row, self.tx, self.sources)?,
                None => return Ok(None),
            }
        };
        self.unschedule(id)?;
        Ok(Some(row))
    }
}
