//! Dead letters, listed.

use rusqlite::{OptionalExtension, Result, Row, named_params, types::ValueRef};

use super::{
    columns::{self, EVENT_COLUMNS, bytes, optional_text, signed, small, text},
    db::Db,
    error::Stop,
};
use crate::{DeadFilter, DeadId, DeadRow, DeadStatus};

pub(super) fn status_column(status: DeadStatus) -> i64 {
    match status {
        DeadStatus::Open => 0,
        DeadStatus::Replaying => 1,
    }
}

pub(super) fn dead(
    db: &mut Db,
    filter: &DeadFilter,
    after: Option<&DeadId>,
    limit: usize,
) -> Result<Vec<DeadRow>, Stop> {
    db.read(|conn, sources| {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => conn
                .prepare_cached("SELECT number FROM dead WHERE id = ?1")?
                .query_row([&id.0], |row| row.get(0))
                .optional()?,
        };
        let (condition, value) = match filter {
            DeadFilter::All => (":value IS NULL", None),
            DeadFilter::Id(id) => ("id = :value", Some(&id.0)),
            DeadFilter::Fingerprint(fingerprint) => ("fingerprint = :value", Some(fingerprint)),
        };
        let mut page = conn.prepare_cached(&format!(
            "SELECT id, status, blocks, attempts, since, fingerprint, reason, detail, defect, body, {EVENT_COLUMNS} FROM dead
             WHERE number > :after AND {condition} ORDER BY number LIMIT :limit"
        ))?;
        let mut rows = page.query(named_params! {
            ":after": after.unwrap_or(0),
            ":value": value,
            ":limit": signed(limit as u64),
        })?;
        let mut dead = Vec::new();
        while let Some(row) = rows.next()? {
            let event = match row.get_ref(FIRST_OF_EVENT)? {
                ValueRef::Null => None,
                _ => {
                    let source = sources.name(conn, row.get(FIRST_OF_EVENT + 1)?)?;
                    Some(columns::event(row, FIRST_OF_EVENT, source)?)
                }
            };
            dead.push(DeadRow {
                event,
                ..dead_row(row)?
            });
        }
        Ok(dead)
    })
}

const FIRST_OF_EVENT: usize = 10;

/// All but the event.
fn dead_row(row: &Row<'_>) -> Result<DeadRow> {
    let owned = |column| text(row, column).map(ToOwned::to_owned);
    Ok(DeadRow {
        id: DeadId(owned(0)?),
        event: None,
        body: bytes(row, 9)?,
        blocks: row.get(2)?,
        reason: owned(6)?,
        detail: owned(7)?,
        fingerprint: owned(5)?,
        attempts: small(row, 3)?,
        since: columns::time(row, 4)?,
        status: match row.get(1)? {
            0_i64 => DeadStatus::Open,
            _ => DeadStatus::Replaying,
        },
        defect: optional_text(row, 8)?,
    })
}
