//! Lists and counts in pages, on a connection of its own, so that no writer waits.

use doorstep_event::{Source, StreamKey, Subject, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{
    columns::{attribute, nanos, signed, table_usage, text, time, unsigned},
    db::Db,
    epochs,
    error::SqliteError,
    load::{entity_row, stream_row},
    tasks,
    totals::Totals,
};
use crate::{
    EntityKey, EntityRow, SequenceGap, StoreUsage, StreamRow, Streamless, StreamlessKind, Summary,
    TableUsage,
    rows::{age_millis, ahead_of},
};

pub(super) fn entities(
    db: &mut Db,
    after: Option<&EntityKey>,
    limit: usize,
) -> Result<Vec<EntityRow>, SqliteError> {
    let mut page = db.conn.prepare_cached(
        "SELECT e.id, e.version, e.state, k.key FROM entity_keys k CROSS JOIN entities e ON e.id = k.id
         WHERE k.key > ?1 AND e.state IS NOT NULL ORDER BY k.key LIMIT ?2",
    )?;
    let mut from_first = db.conn.prepare_cached(
        "SELECT e.id, e.version, e.state, k.key FROM entity_keys k CROSS JOIN entities e ON e.id = k.id
         WHERE e.state IS NOT NULL ORDER BY k.key LIMIT ?1",
    )?;
    let limit = signed(limit as u64);
    let mut rows = match after {
        Some(after) => page.query(params![after.as_str(), limit])?,
        None => from_first.query([limit])?,
    };
    let mut entities = Vec::new();
    while let Some(row) = rows.next()? {
        let key = EntityKey::new(text(row, 3)?);
        entities.push(entity_row(row, key)?);
    }
    Ok(entities)
}

/// Lists streams by source and subject in byte order. Source numbers follow the order of arrival, so each source is
/// listed separately, in the order of its name.
pub(super) fn streams(
    db: &mut Db,
    after: Option<&StreamKey>,
    limit: usize,
) -> Result<Vec<StreamRow>, SqliteError> {
    db.read(|conn, _| {
        let mut streams = Vec::new();
        let mut next = match after {
            None => next_source(conn, "")?,
            Some(after) => {
                if let Some((id, source)) = this_source(conn, &after.source)? {
                    let behind = Some(after.subject.as_str());
                    streams_of(conn, id, &source, behind, limit, &mut streams)?;
                }
                next_source(conn, after.source.as_str())?
            }
        };
        while let Some((id, source)) = next.take() {
            if streams.len() >= limit {
                break;
            }
            streams_of(conn, id, &source, None, limit, &mut streams)?;
            next = next_source(conn, source.as_str())?;
        }
        Ok(streams)
    })
}

fn this_source(conn: &Connection, source: &Source) -> Result<Option<(i64, Source)>> {
    conn.prepare_cached("SELECT id FROM sources WHERE source = ?1")?
        .query_row([source.as_str()], |row| Ok((row.get(0)?, source.clone())))
        .optional()
}

fn next_source(conn: &Connection, after: &str) -> Result<Option<(i64, Source)>> {
    conn.prepare_cached("SELECT id, source FROM sources WHERE source > ?1 ORDER BY source LIMIT 1")?
        .query_row([after], |row| {
            Ok((row.get(0)?, attribute(row, 1, Source::new)?))
        })
        .optional()
}

fn streams_of(
    conn: &Connection,
    id: i64,
    source: &Source,
    behind: Option<&str>,
    limit: usize,
    into: &mut Vec<StreamRow>,
) -> Result<()> {
    let mut page = conn.prepare_cached(
        "SELECT k.subject, s.id, s.version, s.cursor, s.held, s.last_id, s.blocked, s.epoch, s.epoch_random, s.epoch_from
         FROM stream_keys k CROSS JOIN streams s ON s.id = k.id
         WHERE k.source_id = ?1 AND k.subject > ?2 ORDER BY k.subject LIMIT ?3",
    )?;
    let rest = limit.saturating_sub(into.len()) as u64;
    // No subject is empty, so all of them follow the empty one.
    let mut rows = page.query(params![id, behind.unwrap_or(""), signed(rest)])?;
    while let Some(row) = rows.next()? {
        let key = StreamKey {
            source: source.clone(),
            subject: attribute(row, 0, Subject::new)?,
        };
        into.push(stream_row(row, 1, &key)?);
    }
    Ok(())
}

/// Unblocked streams with deferred events, but not the next one; each with its first deferred sequence.
const GAPS: &str = "(SELECT s.id, s.cursor, s.held, (
             SELECT min(h.sequence) FROM held h INDEXED BY held_place
             WHERE h.stream_id = s.id AND h.sequence > s.cursor) AS first
         FROM streams s INDEXED BY streams_holding WHERE s.held > 0 AND s.blocked IS NULL) g
     WHERE g.first > g.cursor + 1";

pub(super) fn gaps(
    db: &mut Db,
    older_than: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<SequenceGap>, SqliteError> {
    db.read(|conn, sources| {
        // The stream's key is in each of its deferred events.
        let mut found = conn.prepare_cached(&format!(
            "SELECT h.source_id, h.subject, g.cursor, g.first, g.held, g.since
             FROM (SELECT g.*, (SELECT min(h.since) FROM held h INDEXED BY held_place
                                WHERE h.stream_id = g.id AND h.sequence > g.cursor) AS since
                   FROM {GAPS}) g
             CROSS JOIN held h INDEXED BY held_place ON h.stream_id = g.id AND h.sequence = g.first
             WHERE g.since < ?1 OR g.since > ?2 ORDER BY g.id LIMIT ?3"
        ))?;
        let mut rows = found.query(params![nanos(older_than), nanos(now), signed(limit as u64)])?;
        let mut gaps = Vec::new();
        while let Some(row) = rows.next()? {
            gaps.push(SequenceGap {
                stream: StreamKey {
                    source: sources.name(conn, row.get(0)?)?,
                    subject: attribute(row, 1, Subject::new)?,
                },
                from: unsigned(row, 2)? + 1,
                to: unsigned(row, 3)?.saturating_sub(1),
                deferred: unsigned(row, 4)?,
                since: time(row, 5)?,
            });
        }
        Ok(gaps)
    })
}

pub(super) fn streamless(
    db: &mut Db,
    least: TableUsage,
    limit: usize,
) -> Result<Streamless, SqliteError> {
    db.read(|conn, _| {
        let mut streamless = conn
            .prepare_cached("SELECT rows, bytes, overflowed, dropped FROM streamless")?
            .query_row([], |row| {
                Ok(Streamless {
                    usage: table_usage(row, 0)?,
                    overflowed: unsigned(row, 2)?,
                    dropped: unsigned(row, 3)?,
                    kinds: Vec::new(),
                })
            })?;
        // No kind exceeds the total, which is mostly below the bounds.
        if streamless.usage.rows >= least.rows || streamless.usage.bytes >= least.bytes {
            streamless.kinds = conn
                .prepare_cached(
                    "SELECT k.fingerprint, k.rows, k.bytes, (SELECT reason FROM dead WHERE fingerprint = k.fingerprint LIMIT 1)
                     FROM (SELECT fingerprint, count(*) AS rows, sum(streamless) AS bytes FROM dead INDEXED BY dead_streamless
                           WHERE streamless > 0 GROUP BY fingerprint) k
                     WHERE k.rows >= ?1 OR k.bytes >= ?2 ORDER BY k.rows DESC, k.fingerprint LIMIT ?3",
                )?
                .query_map(
                    [signed(least.rows), signed(least.bytes), signed(limit as u64)],
                    |row| {
                        Ok(StreamlessKind {
                            fingerprint: row.get(0)?,
                            usage: table_usage(row, 1)?,
                            reason: row.get(3)?,
                        })
                    },
                )?
                .collect::<Result<_>>()?;
        }
        Ok(streamless)
    })
}

pub(super) fn usage(db: &mut Db) -> Result<StoreUsage, SqliteError> {
    db.read(|conn, _| Ok(Totals::read(conn)?.usage))
}

pub(super) fn summary(db: &mut Db, now: Timestamp) -> Result<Summary, SqliteError> {
    let log_bytes = db.place.log_bytes();
    db.read(|conn, _| {
        let totals = Totals::read(conn)?;
        let count = |sql: &str| -> Result<u64> {
            conn.prepare_cached(sql)?
                .query_row([], |row| unsigned(row, 0))
        };
        let first = |sql: &str| -> Result<Option<Timestamp>> {
            conn.prepare_cached(sql)?
                .query_row([], |row| time(row, 0))
                .optional()
        };
        let oldest_outbox = first("SELECT since FROM outbox ORDER BY id LIMIT 1")?;
        let oldest_held = first("SELECT since FROM held ORDER BY since LIMIT 1")?;
        // Numbers follow the order of creation.
        let oldest_dead = first("SELECT since FROM dead ORDER BY number LIMIT 1")?;
        let ahead = ahead_of(now);
        let held_ahead = conn
            .prepare_cached("SELECT count(*) FROM held INDEXED BY held_since WHERE since > ?1")?
            .query_row([nanos(ahead)], |row| unsigned(row, 0))?;
        Ok(Summary {
            entities: totals.entities,
            streams: totals.streams,
            blocked: count(
                "SELECT count(*) FROM streams INDEXED BY streams_blocked WHERE blocked IS NOT NULL",
            )?,
            gaps: count(&format!("SELECT count(*) FROM {GAPS}"))?,
            held_due: count("SELECT count(*) FROM held INDEXED BY held_due WHERE due IS NOT NULL")?,
            scheduled_due: conn
                .prepare_cached(
                    "SELECT count(*) FROM scheduled INDEXED BY scheduled_due WHERE due <= ?1",
                )?
                .query_row([nanos(now)], |row| unsigned(row, 0))?,
            usage: totals.usage,
            tally: totals.tally,
            commits: totals.commits,
            tasks: tasks::kinds(conn, now)?,
            oldest_outbox_ms: oldest_outbox.map(|since| age_millis(since, now)),
            oldest_held_ms: oldest_held.map(|since| age_millis(since, now)),
            oldest_dead_ms: oldest_dead.map(|since| age_millis(since, now)),
            oldest_outbox,
            oldest_deferred: oldest_held,
            oldest_dead,
            dated_ahead: held_ahead + u64::from(oldest_outbox.is_some_and(|since| since > ahead)),
            log_bytes,
            restored: epochs::restored(conn)?,
            restored_sources: epochs::restored_sources(conn)?,
        })
    })
}
