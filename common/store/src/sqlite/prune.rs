//! Prunes rows whose retention has ended.

use doorstep_event::{EventId, Timestamp};
use rusqlite::{Result, Transaction, params};

use super::{
    columns::{attribute, nanos, signed, unsigned},
    db::{Db, TxEnd},
    error::SqliteError,
    totals::Totals,
};
use crate::size;

pub(super) fn prune_crash_counts(
    db: &mut Db,
    older_than: Timestamp,
    limit: usize,
) -> Result<u64, SqliteError> {
    db.write(|tx, _| {
        let forgotten = tx
            .prepare_cached(
                "DELETE FROM trials WHERE (source_id, event_id) IN (
                     SELECT source_id, event_id FROM trials INDEXED BY trials_time WHERE time < ?1 ORDER BY time LIMIT ?2)",
            )?
            .execute(params![nanos(older_than), signed(limit as u64)])?;
        if forgotten == 0 {
            return Ok(TxEnd::Rollback(0));
        }
        tx.prepare_cached("UPDATE totals SET commits = commits + 1")?
            .execute([])?;
        Ok(TxEnd::Commit(forgotten as u64))
    })
}

pub(super) fn prune_replies(
    db: &mut Db,
    older_than: Timestamp,
    limit: usize,
) -> Result<u64, SqliteError> {
    db.write(|tx, _| {
        let mut forget = tx.prepare_cached(
            "DELETE FROM replies WHERE number IN (
                 SELECT number FROM replies INDEXED BY replies_time WHERE time < ?1 ORDER BY time LIMIT ?2)
             RETURNING bytes, time",
        )?;
        let forgotten = forget
            .query_map(params![nanos(older_than), signed(limit as u64)], |row| {
                Ok((unsigned(row, 0)?, row.get::<_, i64>(1)?))
            })?
            .collect::<Result<Vec<_>>>()?;
        let Some(latest) = forgotten.iter().map(|(_, time)| *time).max() else {
            return Ok(TxEnd::Rollback(0));
        };
        raise(tx, "replies_pruned_to", latest)?;
        let mut totals = Totals::read(tx)?;
        let replies = &mut totals.usage.replies;
        replies.rows = replies.rows.saturating_sub(forgotten.len() as u64);
        replies.bytes = replies.bytes.saturating_sub(forgotten.iter().map(|(bytes, _)| *bytes).sum());
        totals.commits += 1;
        totals.write(tx)?;
        Ok(TxEnd::Commit(forgotten.len() as u64))
    })
}

pub(super) fn prune_seen(
    db: &mut Db,
    older_than: Timestamp,
    limit: usize,
) -> Result<u64, SqliteError> {
    db.write(|tx, sources| {
        let mut old = tx.prepare_cached(
            "SELECT source_id, event_id, time FROM seen INDEXED BY seen_time WHERE time < ?1 ORDER BY time LIMIT ?2",
        )?;
        let ids = old
            .query_map(params![nanos(older_than), signed(limit as u64)], |row| {
                let id = attribute(row, 1, EventId::new)?;
                Ok((row.get::<_, i64>(0)?, id, row.get::<_, i64>(2)?))
            })?
            .collect::<Result<Vec<_>>>()?;
        let Some((_, _, latest)) = ids.last() else {
            return Ok(TxEnd::Rollback(0));
        };
        raise(tx, "seen_pruned_to", *latest)?;
        let mut totals = Totals::read(tx)?;
        for (source, id, _) in &ids {
            tx.prepare_cached("DELETE FROM seen WHERE source_id = ?1 AND event_id = ?2")?
                .execute(params![source, id.as_str()])?;
            let seen = &mut totals.usage.seen;
            seen.rows = seen.rows.saturating_sub(1);
            seen.bytes = seen
                .bytes
                .saturating_sub(size::seen(&sources.name(tx, *source)?, id));
        }
        totals.commits += 1;
        totals.write(tx)?;
        Ok(TxEnd::Commit(ids.len() as u64))
    })
}

/// Raises the time up to which rows were pruned.
fn raise(tx: &Transaction<'_>, column: &str, latest: i64) -> Result<()> {
    tx.prepare_cached(&format!(
        "UPDATE totals SET {column} = ?1 WHERE {column} IS NULL OR {column} < ?1"
    ))?
    .execute([latest])
    .map(drop)
}
