//! Dead letters: made and settled.

use doorstep_event::{Event, Sequence};
use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more, one_or_conflict};
use crate::{
    DeadFate, DeadId, DeadRow, DeadStatus, NewDead, size,
    sqlite::{
        columns::{exact_time, nanos, signed, unsigned},
        dead::status_column,
        error::Stop,
    },
};

impl Writer<'_> {
    pub(super) fn settle(&mut self, fates: &[(DeadId, DeadStatus, DeadFate)]) -> Result<(), Stop> {
        for (id, expected, fate) in fates {
            let expected = status_column(*expected);
            match fate {
                DeadFate::Replaying => {
                    let changed = self
                        .tx
                        .prepare_cached(
                            "UPDATE dead SET status = ?3 WHERE id = ?1 AND status = ?2",
                        )?
                        .execute(params![
                            id.0,
                            expected,
                            status_column(DeadStatus::Replaying)
                        ])?;
                    one_or_conflict(changed)?;
                }
                DeadFate::Gone => {
                    let bytes = self
                        .tx
                        .prepare_cached(
                            "DELETE FROM dead WHERE id = ?1 AND status = ?2 RETURNING bytes",
                        )?
                        .query_row(params![id.0, expected], |row| unsigned(row, 0))
                        .optional()?
                        .ok_or(Stop::Conflict)?;
                    less(&mut self.totals.usage.dead, 1, bytes);
                }
            }
        }
        Ok(())
    }

    pub(super) fn add_dead(&mut self, new: &[NewDead]) -> Result<(), Stop> {
        for NewDead { row } in new {
            if !self.add_dead_row(row)? {
                return Err(Stop::Conflict);
            }
        }
        Ok(())
    }

    pub(super) fn add_dead_if_absent(&mut self, new: &[NewDead]) -> Result<(), Stop> {
        for NewDead { row } in new {
            // Whether it was there already does not matter.
            self.add_dead_row(row)?;
        }
        Ok(())
    }

    /// Adds a dead letter unless it is there already. Returns whether it was added.
    fn add_dead_row(&mut self, row: &DeadRow) -> Result<bool, Stop> {
        let event: Option<&Event> = row.event.as_ref();
        let source = match event {
            Some(event) => Some(self.sources.find_or_add(self.tx, &event.source)?),
            None => None,
        };
        let bytes = size::dead(row);
        let added = self
            .tx
            .prepare_cached(
                "INSERT INTO dead(id, status, blocks, attempts, since, bytes, fingerprint, reason, detail, defect, body, event_id,
                                  source_id, type, subject, time, sequence, traceparent, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![
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
                &row.body[..],
                event.map(|e| e.id.as_str()),
                source,
                event.map(|e| e.kind.as_str()),
                event.map(|e| e.subject.as_str()),
                event.and_then(|e| e.time).map(exact_time),
                event.and_then(|e| e.sequence).map(Sequence::get).map(signed),
                event.and_then(|e| e.traceparent.as_deref()),
                event.map(|e| &e.data[..]),
            ])?;
        if added == 0 {
            return Ok(false);
        }
        more(&mut self.totals.usage.dead, bytes);
        Ok(true)
    }
}
