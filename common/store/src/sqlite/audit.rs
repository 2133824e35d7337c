//! Lists the audit records of operators' actions, and the dead letters and gaps that await a decision.

use doorstep_event::{EventType, Sequence, Source, StreamKey, Subject};
use rusqlite::{Result, Row, params, types::Type};

use super::{
    columns::{
        attribute, bytes, optional, optional_text, signed, table_usage, text, time, unsigned,
    },
    db::Db,
    error::SqliteError,
};
use crate::{
    AuditAction, AuditFilter, AuditId, AuditPage, AuditRow, DeadLetterGroup, DeadLetterId, NewAudit,
};

/// A page of the records that match a condition, as one constant.
macro_rules! page {
    ($condition:literal) => {
        concat!(
            "SELECT number, at, operator, action, about, dead_id, source, subject, first, last, reason, before, after
             FROM audit WHERE number < ?1 AND ",
            $condition,
            " ORDER BY number DESC LIMIT ?3"
        )
    };
}

pub(super) fn audit(
    db: &mut Db,
    filter: &AuditFilter,
    before: Option<AuditId>,
    limit: usize,
) -> Result<AuditPage, SqliteError> {
    db.read(|conn, _| {
        let (sql, about) = match filter {
            AuditFilter::All => (page!("?2 IS NULL"), None),
            AuditFilter::About(about) => (page!("about = ?2"), Some(about)),
        };
        let before = before.map_or(i64::MAX, |id| id.0);
        let (kept, forgotten) = conn
            .prepare_cached("SELECT rows, bytes, forgotten FROM audit_totals")?
            .query_row([], |row| Ok((table_usage(row, 0)?, unsigned(row, 2)?)))?;
        let rows = conn
            .prepare_cached(sql)?
            .query_map(params![before, about, signed(limit as u64)], audit_row)?
            .collect::<Result<_>>()?;
        Ok(AuditPage {
            rows,
            kept,
            forgotten,
        })
    })
}

/// The number of an action in its column.
pub(super) fn action_column(action: AuditAction) -> i64 {
    i64::from(action as u8)
}

fn audit_row(row: &Row<'_>) -> Result<AuditRow> {
    let action: u8 = row.get(3)?;
    let optional_bytes = |column| optional(row, column, || bytes(row, column));
    let stream = || {
        Ok(StreamKey {
            source: attribute(row, 6, Source::new)?,
            subject: attribute(row, 7, Subject::new)?,
        })
    };
    let sequences = || Ok((unsigned(row, 8)?, unsigned(row, 9)?));
    Ok(AuditRow {
        id: AuditId(row.get(0)?),
        at: time(row, 1)?,
        entry: NewAudit {
            operator: text(row, 2)?.to_owned(),
            action: AuditAction::from_repr(action).ok_or_else(|| {
                rusqlite::Error::InvalidColumnType(3, "action".into(), Type::Integer)
            })?,
            about: text(row, 4)?.to_owned(),
            dead: optional_text(row, 5)?.map(DeadLetterId),
            stream: optional(row, 6, stream)?,
            sequences: optional(row, 8, sequences)?,
            reason: optional_text(row, 10)?,
            before: optional_bytes(11)?,
            after: optional_bytes(12)?,
        },
    })
}

pub(super) fn dead_letter_groups(
    db: &mut Db,
    limit: usize,
) -> Result<Vec<DeadLetterGroup>, SqliteError> {
    let mut groups = db.conn.prepare_cached(
        "SELECT g.fingerprint, g.count, g.open, g.first, g.last, d.reason, d.type, d.id, d.detail
         FROM (SELECT fingerprint, count(*) AS count, sum(status = 0) AS open, min(since) AS first, max(since) AS last,
                      min(number) AS oldest
               FROM dead GROUP BY fingerprint) g
         JOIN dead d ON d.number = g.oldest ORDER BY g.oldest LIMIT ?1",
    )?;
    let groups = groups.query_map([signed(limit as u64)], |row| {
        Ok(DeadLetterGroup {
            fingerprint: text(row, 0)?.to_owned(),
            count: unsigned(row, 1)?,
            open: unsigned(row, 2)?,
            first: time(row, 3)?,
            last: time(row, 4)?,
            reason: text(row, 5)?.to_owned(),
            kind: optional(row, 6, || attribute(row, 6, EventType::new))?,
            example: DeadLetterId(text(row, 7)?.to_owned()),
            detail: text(row, 8)?.to_owned(),
        })
    })?;
    Ok(groups.collect::<Result<_>>()?)
}

pub(super) fn deferred_sequences(
    db: &mut Db,
    stream: &StreamKey,
    after: u64,
    limit: usize,
) -> Result<Vec<Sequence>, SqliteError> {
    let mut deferred = db.conn.prepare_cached(
        "SELECT h.sequence FROM sources s
         JOIN stream_keys k ON k.source_id = s.id AND k.subject = ?2
         JOIN held h INDEXED BY held_place ON h.stream_id = k.id AND h.sequence > ?3
         WHERE s.source = ?1 AND h.sequence IS NOT NULL ORDER BY h.sequence LIMIT ?4",
    )?;
    let deferred = deferred.query_map(
        params![
            stream.source.as_str(),
            stream.subject.as_str(),
            signed(after),
            signed(limit as u64)
        ],
        |row| unsigned(row, 0),
    )?;
    let deferred: Vec<u64> = deferred.collect::<Result<_>>()?;
    Ok(deferred.into_iter().filter_map(Sequence::new).collect())
}
