//! Lists dead letters.

use rusqlite::{OptionalExtension, Result, Row, params};

use super::{
    columns::{self, bytes, event_columns, optional, optional_text, signed, small, text},
    db::Db,
    error::SqliteError,
    tasks::task_id,
};
use crate::{DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStatus};

pub(super) fn status_column(status: DeadLetterStatus) -> i64 {
    match status {
        DeadLetterStatus::Open => 0,
        DeadLetterStatus::Replaying => 1,
        DeadLetterStatus::Awaiting => 2,
    }
}

/// A page of the dead letters that match a condition, as one constant.
macro_rules! page {
    ($condition:literal) => {
        concat!(
            "SELECT id, status, blocks, attempts, since, fingerprint, reason, detail, defect, body, ",
            event_columns!(),
            ", task FROM dead WHERE number > ?1 AND ",
            $condition,
            " ORDER BY number LIMIT ?3"
        )
    };
}

pub(super) fn dead(
    db: &mut Db,
    filter: &DeadLetterFilter,
    after: Option<&DeadLetterId>,
    limit: usize,
) -> Result<Vec<DeadLetter>, SqliteError> {
    db.read(|conn, sources| {
        let after: Option<i64> = match after {
            None => None,
            Some(id) => conn
                .prepare_cached("SELECT number FROM dead WHERE id = ?1")?
                .query_row([&id.0], |row| row.get(0))
                .optional()?,
        };
        let (sql, value) = match filter {
            DeadLetterFilter::All => (page!("?2 IS NULL"), None),
            DeadLetterFilter::Id(id) => (page!("id = ?2"), Some(&id.0)),
            DeadLetterFilter::Fingerprint(fingerprint) => {
                (page!("fingerprint = ?2"), Some(fingerprint))
            }
            // `.` is the character after `-`, so the range covers the event's digest with any number.
            DeadLetterFilter::Letter(letter) => (
                page!(
                    "number IN (SELECT number FROM dead WHERE id > ?2 || '-' AND id < ?2 || '.'
                                AND instr(substr(id, length(?2) + 2), '-') = 0)"
                ),
                Some(letter),
            ),
        };
        let mut page = conn.prepare_cached(sql)?;
        let mut rows = page.query(params![after.unwrap_or(0), value, signed(limit as u64)])?;
        let mut dead = Vec::new();
        while let Some(row) = rows.next()? {
            let event = optional(row, FIRST_OF_EVENT, || {
                let source = sources.name(conn, row.get(FIRST_OF_EVENT + 1)?)?;
                columns::event(row, FIRST_OF_EVENT, source)
            })?;
            dead.push(DeadLetter {
                event,
                ..dead_row(row)?
            });
        }
        Ok(dead)
    })
}

const FIRST_OF_EVENT: usize = 10;
const TASK: usize = FIRST_OF_EVENT + 10;

/// Reads all columns except the event's.
fn dead_row(row: &Row<'_>) -> Result<DeadLetter> {
    let owned = |column| text(row, column).map(ToOwned::to_owned);
    Ok(DeadLetter {
        id: DeadLetterId(owned(0)?),
        event: None,
        body: bytes(row, 9)?,
        blocks: row.get(2)?,
        reason: owned(6)?,
        detail: owned(7)?,
        fingerprint: owned(5)?,
        attempts: small(row, 3)?,
        since: columns::time(row, 4)?,
        status: match row.get(1)? {
            0_i64 => DeadLetterStatus::Open,
            1 => DeadLetterStatus::Replaying,
            _ => DeadLetterStatus::Awaiting,
        },
        defect: optional_text(row, 8)?,
        task: optional(row, TASK, || task_id(row, TASK))?,
    })
}
