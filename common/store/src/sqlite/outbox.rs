//! Reads due outbox rows.

use std::collections::BTreeMap;

use doorstep_event::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};

use super::{
    columns::{self, bytes, event_columns, nanos, optional_text, signed, small, text},
    db::Db,
    error::SqliteError,
    sources::Sources,
};
use crate::{DeadLetterId, OutboxId, OutboxKind, OutboxRow, rows::retry_share};

/// Returns the due rows in the order of writing. Retried and untried rows are read separately, so that any number of
/// rows waiting for a retry costs the others nothing.
pub(super) fn outbox(
    db: &mut Db,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<OutboxRow>, SqliteError> {
    let from = db.outbox_untried_from;
    let (rows, untried_from) = db.read(|conn, sources| {
        let mut retried = numbers(
            conn,
            "SELECT id FROM outbox INDEXED BY outbox_again WHERE due <= ?1 ORDER BY id LIMIT ?2",
            nanos(now),
            limit,
        )?;
        let untried = numbers(
            conn,
            "SELECT id FROM outbox WHERE id >= ?1 AND due IS NULL ORDER BY id LIMIT ?2",
            from,
            limit,
        )?;
        let untried_from = match untried.first() {
            Some(first) => *first,
            None if limit == 0 => from,
            None => last_number(conn)?.map_or(from, |last| last.saturating_add(1).max(from)),
        };
        retried.truncate(retry_share(limit, retried.len(), untried.len()));
        let mut ids = untried;
        ids.truncate(limit - retried.len());
        ids.extend(retried);
        ids.sort_unstable();
        let rows = ids
            .into_iter()
            .map(|id| read(conn, sources, id))
            .collect::<Result<Vec<_>>>()?;
        Ok((rows, untried_from))
    })?;
    db.outbox_untried_from = untried_from;
    Ok(rows)
}

fn numbers(conn: &Connection, sql: &str, bound: i64, limit: usize) -> Result<Vec<i64>> {
    let mut numbers = conn.prepare_cached(sql)?;
    let ids = numbers.query_map(params![bound, signed(limit as u64)], |row| row.get(0))?;
    ids.collect()
}

/// Returns the last number assigned: later rows have higher ones.
fn last_number(conn: &Connection) -> Result<Option<i64>> {
    conn.prepare_cached("SELECT last_outbox FROM totals")?
        .query_row([], |row| row.get(0))
        .optional()
}

fn read(conn: &Connection, sources: &mut Sources, id: i64) -> Result<OutboxRow> {
    conn.prepare_cached(concat!(
        "SELECT id, attempts, since, dead_id, headers, ",
        event_columns!(),
        " FROM outbox WHERE id = ?1"
    ))?
    .query_row([id], |row| {
        Ok(OutboxRow {
            id: OutboxId(row.get(0)?),
            attempts: small(row, 1)?,
            since: columns::time(row, 2)?,
            kind: kind(row, conn, sources)?,
        })
    })
}

fn kind(row: &Row<'_>, conn: &Connection, sources: &mut Sources) -> Result<OutboxKind> {
    let Some(dead) = optional_text(row, 3)? else {
        let source = sources.name(conn, row.get(6)?)?;
        return columns::event(row, 5, source).map(OutboxKind::Event);
    };
    let headers: BTreeMap<String, String> = serde_json::from_str(text(row, 4)?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(4, Type::Text, Box::new(e)))?;
    Ok(OutboxKind::DeadCopy {
        id: DeadLetterId(dead),
        headers,
        body: bytes(row, 12)?,
    })
}
