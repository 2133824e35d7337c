//! Defers, releases and reschedules events.

use std::collections::HashMap;

use doorstep_event::{Sequence, StreamKey};
use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more};
use crate::{
    DeferReason, DeferredId, DeferredRetry, NewDeferred, StreamChange, size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        deferred::{WAITING_FOR, reason_columns},
        epochs::epoch_columns,
        error::SqliteError,
        totals::Totals,
    },
};

impl Totals {
    pub(super) fn count_deferred_out(&mut self, bytes: u64, awaits: bool) {
        less(&mut self.usage.deferred, 1, bytes);
        self.awaiting = self.awaiting.saturating_sub(u64::from(awaits));
    }
}

impl Writer<'_> {
    pub(super) fn defer(
        &mut self,
        new: &[NewDeferred],
        changes: &[StreamChange],
        ids: &[i64],
    ) -> Result<(), SqliteError> {
        if new.is_empty() {
            return Ok(());
        }
        let keys = changes.iter().map(|change| change.key.clone());
        let mut known: HashMap<StreamKey, i64> = keys.zip(ids.iter().copied()).collect();
        for deferred in new {
            let stream = match deferred.event.sequence {
                None => None,
                Some(_) => Some(self.stream_of(deferred.event.stream(), &mut known)?),
            };
            self.defer_one(deferred, stream)?;
        }
        Ok(())
    }

    /// Returns the row of a deferred event's stream and creates a missing one.
    fn stream_of(
        &mut self,
        key: StreamKey,
        known: &mut HashMap<StreamKey, i64>,
    ) -> Result<i64, SqliteError> {
        if let Some(id) = known.get(&key) {
            return Ok(*id);
        }
        let id = match self.create_stream(&key, None)? {
            Some(id) => id,
            None => {
                let source = self.sources.find_or_add(self.tx, &key.source)?;
                self.query_row(
                    "SELECT id FROM stream_keys WHERE source_id = ?1 AND subject = ?2",
                    params![source, key.subject.as_str()],
                    |row| row.get(0),
                )?
            }
        };
        known.insert(key, id);
        Ok(id)
    }

    fn defer_one(
        &mut self,
        deferred: &NewDeferred,
        stream: Option<i64>,
    ) -> Result<(), SqliteError> {
        self.totals.last_deferred += 1;
        self.defer_as(DeferredId(self.totals.last_deferred), deferred, stream)
    }

    /// Defers an event under this number.
    fn defer_as(
        &mut self,
        id: DeferredId,
        deferred: &NewDeferred,
        stream: Option<i64>,
    ) -> Result<(), SqliteError> {
        let event = &deferred.event;
        let source = self.sources.find_or_add(self.tx, &event.source)?;
        let (reason, about) = reason_columns(&deferred.reason);
        let bytes = size::deferred(event, deferred.defect.as_deref());
        let (epoch, epoch_random) = epoch_columns(event.epoch);
        self.execute_one(
            "INSERT INTO held(id, stream_id, sequence, due, since, attempts, bytes, reason, about, defect, event_id, source_id,
                                  type, subject, time, traceparent, data, epoch, epoch_random)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19) ON CONFLICT DO NOTHING",
            params![
                id.0,
                stream,
                event.sequence.map(Sequence::get).map(signed),
                deferred.due.map(nanos),
                nanos(deferred.since),
                deferred.attempts,
                signed(bytes),
                reason,
                about,
                deferred.defect,
                event.id.as_str(),
                source,
                event.event_type.as_str(),
                event.subject.as_str(),
                event.time.map(exact_time),
                event.traceparent,
                &event.data[..],
                epoch,
                epoch_random,
            ],
        )?;
        if let Some(stream) = stream {
            *self.deferred_more.entry(stream).or_default() += 1;
        }
        more(&mut self.totals.usage.deferred, bytes);
        self.totals.awaiting += u64::from(matches!(deferred.reason, DeferReason::WaitingFor(_)));
        Ok(())
    }

    pub(super) fn release(&mut self, ids: &[DeferredId]) -> Result<(), SqliteError> {
        for id in ids {
            let deferred = self
                .query_row(
                    "DELETE FROM held WHERE id = ?1 RETURNING stream_id, bytes, reason",
                    [id.0],
                    |row| {
                        let stream: Option<i64> = row.get(0)?;
                        let reason: i64 = row.get(2)?;
                        Ok((stream, unsigned(row, 1)?, reason == WAITING_FOR))
                    },
                )
                .optional()?;
            let Some((stream, bytes, awaits)) = deferred else {
                if !self.remove_timer(*id)? {
                    return Err(SqliteError::Conflict);
                }
                continue;
            };
            if let Some(stream) = stream {
                *self.deferred_more.entry(stream).or_default() -= 1;
            }
            self.totals.count_deferred_out(bytes, awaits);
        }
        Ok(())
    }

    pub(super) fn reschedule(&mut self, retries: &[DeferredRetry]) -> Result<(), SqliteError> {
        for retry in retries {
            let awaited: Option<i64> = self
                .query_row(
                    "SELECT reason FROM held WHERE id = ?1",
                    [retry.id.0],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(awaited) = awaited else {
                self.defer_timer(retry)?;
                continue;
            };
            let (reason, about) = reason_columns(&retry.reason);
            self.execute(
                "UPDATE held SET reason = ?2, about = ?3, due = ?4, attempts = ?5, since = ?6 WHERE id = ?1",
                params![
                    retry.id.0,
                    reason,
                    about,
                    retry.due.map(nanos),
                    retry.attempts,
                    nanos(retry.since),
                ],
            )?;
            let awaiting = self.totals.awaiting + u64::from(reason == WAITING_FOR);
            self.totals.awaiting = awaiting.saturating_sub(u64::from(awaited == WAITING_FOR));
        }
        Ok(())
    }

    /// Defers a timer that could not be applied when it fell due.
    fn defer_timer(&mut self, retry: &DeferredRetry) -> Result<(), SqliteError> {
        let row = self.take_timer(retry.id)?.ok_or(SqliteError::Conflict)?;
        let deferred = NewDeferred {
            event: row.event,
            defect: row.defect,
            reason: retry.reason.clone(),
            due: retry.due,
            attempts: retry.attempts,
            since: retry.since,
        };
        self.defer_as(retry.id, &deferred, None)
    }
}
