//! Deferred events: their columns and the due ones.

use doorstep_event::Timestamp;
use rusqlite::{Connection, Result, Row, params, types::Type};

use super::{
    columns::{self, nanos, optional_text, optional_time, signed, small, text},
    db::{Db, TxEnd},
    error::SqliteError,
    sources::Sources,
};
use crate::{DeadLetterId, DeferReason, DeferredEvent, DeferredId, EntityKey, size::ByteBudget};

/// The columns that [`deferred_row`] reads. A macro, so that each statement is one constant.
macro_rules! deferred_columns {
    () => {
        "id, since, attempts, reason, about, defect, event_id, source_id, type, subject, time, sequence, traceparent, data, epoch, epoch_random, bytes"
    };
}
pub(super) use deferred_columns;

/// The same columns of a timer.
macro_rules! timer_columns {
    () => {
        "id, since, 0, 3, NULL, NULL, 'scheduled-' || id, source_id, type, subject, time, NULL, traceparent, data, NULL, NULL, bytes"
    };
}
pub(super) use timer_columns;

pub(super) fn deferred_row(
    row: &Row<'_>,
    conn: &Connection,
    sources: &mut Sources,
) -> Result<DeferredEvent> {
    let about = || text(row, 4).map(ToOwned::to_owned);
    let reason = match row.get(3)? {
        OUT_OF_ORDER => DeferReason::OutOfOrder,
        WAITING_FOR => DeferReason::WaitingFor(EntityKey::new(about()?)),
        REPLAY => DeferReason::Replay(DeadLetterId(about()?)),
        SCHEDULED => DeferReason::Scheduled,
        _ => {
            return Err(rusqlite::Error::InvalidColumnType(
                3,
                "reason".into(),
                Type::Integer,
            ));
        }
    };
    Ok(DeferredEvent {
        id: DeferredId(row.get(0)?),
        event: columns::event(row, 6, sources.name(conn, row.get(7)?)?)?,
        defect: optional_text(row, 5)?,
        reason,
        since: columns::time(row, 1)?,
        attempts: small(row, 2)?,
    })
}

const OUT_OF_ORDER: i64 = 0;
pub(super) const WAITING_FOR: i64 = 1;
const REPLAY: i64 = 2;
/// Never in a row of `held`: denotes the rows of `scheduled`.
const SCHEDULED: i64 = 3;

pub(super) fn reason_columns(reason: &DeferReason) -> (i64, Option<&str>) {
    match reason {
        DeferReason::OutOfOrder => (OUT_OF_ORDER, None),
        DeferReason::WaitingFor(entity) => (WAITING_FOR, Some(entity.as_str())),
        DeferReason::Replay(dead) => (REPLAY, Some(&dead.0)),
        DeferReason::Scheduled => (SCHEDULED, None),
    }
}

/// The approximate bytes of the deferred event that [`deferred_row`] reads.
pub(super) fn held_bytes(row: &Row<'_>) -> Result<u64> {
    columns::unsigned(row, 16)
}

pub(super) fn due(
    db: &mut Db,
    now: Timestamp,
    limit: usize,
    max_bytes: u64,
) -> Result<Vec<DeferredEvent>, SqliteError> {
    db.read(|conn, sources| {
        let mut bytes = ByteBudget::new(max_bytes);
        let mut due = conn.prepare_cached(concat!(
            "SELECT ",
            deferred_columns!(),
            ", due FROM held INDEXED BY held_due WHERE due <= ?1 UNION ALL SELECT ",
            timer_columns!(),
            ", due FROM scheduled INDEXED BY scheduled_due WHERE due <= ?1 ORDER BY due, id LIMIT ?2"
        ))?;
        let mut rows = due.query(params![nanos(now), signed(limit as u64)])?;
        let mut deferred = Vec::new();
        while let Some(row) = rows.next()? {
            if !bytes.takes(held_bytes(row)?) && !deferred.is_empty() {
                break;
            }
            deferred.push(deferred_row(row, conn, sources)?);
        }
        Ok(deferred)
    })
}

pub(super) fn next_due(db: &mut Db) -> Result<Option<Timestamp>, SqliteError> {
    let due = db
        .conn
        .prepare_cached(
            "SELECT (SELECT due FROM held INDEXED BY held_due WHERE due IS NOT NULL ORDER BY due LIMIT 1),
                    (SELECT due FROM scheduled INDEXED BY scheduled_due ORDER BY due LIMIT 1)",
        )?
        .query_row([], |row| {
            Ok([optional_time(row, 0)?, optional_time(row, 1)?])
        })?;
    Ok(due.into_iter().flatten().min())
}

/// Returns at most `limit` deferred events that should have become due and did not. A sound store has none, so the
/// search must cost the writer nothing.
pub(super) fn missed_due(db: &mut Db, limit: usize) -> Result<Vec<DeferredId>, SqliteError> {
    let mut missed = db.conn.prepare_cached(
        "SELECT h.id FROM streams s INDEXED BY streams_holding CROSS JOIN held h INDEXED BY held_place
             ON h.stream_id = s.id AND h.sequence = s.cursor + 1
         WHERE s.held > 0 AND s.blocked IS NULL AND h.due IS NULL LIMIT ?1",
    )?;
    let ids = missed.query_map([signed(limit as u64)], |row| row.get(0).map(DeferredId))?;
    Ok(ids.collect::<Result<_>>()?)
}

/// Makes due those of these events that still should be.
pub(super) fn make_due(
    db: &mut Db,
    ids: &[DeferredId],
    now: Timestamp,
) -> Result<u64, SqliteError> {
    db.write(|tx, _| {
        let mut made_due = 0;
        for id in ids {
            made_due += tx
                .prepare_cached(
                    "UPDATE held SET due = ?2 WHERE id = ?1 AND due IS NULL AND EXISTS (
                         SELECT 1 FROM streams s
                         WHERE s.id = held.stream_id AND s.blocked IS NULL AND s.cursor + 1 = held.sequence)",
                )?
                .execute(params![id.0, nanos(now)])?;
        }
        if made_due == 0 {
            return Ok(TxEnd::Rollback(0));
        }
        tx.prepare_cached("UPDATE totals SET commits = commits + 1")?
            .execute([])?;
        Ok(TxEnd::Commit(made_due as u64))
    })
}

/// Makes due the deferred events and outbox rows due after `beyond`.
pub(super) fn clamp_due_times(
    db: &mut Db,
    now: Timestamp,
    beyond: Timestamp,
) -> Result<u64, SqliteError> {
    db.write(|tx, _| {
        let mut brought = 0;
        for late in [
            "UPDATE held SET due = ?1 WHERE due > ?2",
            "UPDATE outbox SET due = ?1 WHERE due > ?2",
        ] {
            brought += tx
                .prepare_cached(late)?
                .execute(params![nanos(now), nanos(beyond)])?;
        }
        if brought == 0 {
            return Ok(TxEnd::Rollback(0));
        }
        tx.prepare_cached("UPDATE totals SET commits = commits + 1")?
            .execute([])?;
        Ok(TxEnd::Commit(brought as u64))
    })
}
