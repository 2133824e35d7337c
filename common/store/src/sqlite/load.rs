//! Reads all rows that a batch may change.

use doorstep_event::{Epoch, EventId, RequestId, Sequence, Source, StreamKey, Subject};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    columns::{
        attribute, bytes, optional, optional_epoch, optional_text, optional_time, read_last_id,
        signed, small, unsigned,
    },
    db::Db,
    deferred::{deferred_columns, deferred_row, held_bytes},
    epochs::{source_epochs, stream_epoch},
    error::SqliteError,
    source_owners::owner,
    sources::Sources,
    tasks::is_leased,
};
use crate::{
    DeadLetterId, DeferredEvent, EntityKey, EntityRow, PrunedTo, ReadResult, ReadSet, ReplyRow,
    RequestHash, RowRef, SourceEpochs, StreamRow, size::ByteBudget,
};

pub(super) fn load(db: &mut Db, ask: &ReadSet) -> Result<ReadResult, SqliteError> {
    db.read(|conn, sources| {
        let mut loaded = ReadResult::default();
        load_streams(conn, sources, ask, &mut loaded)?;
        load_entities(conn, &ask.entities, &mut loaded.entities)?;
        for (key, sequence) in &ask.deferred_at {
            loaded
                .deferred_at
                .push(deferred_at(conn, sources, key, *sequence)?);
        }
        for (source, id) in &ask.seen {
            loaded.seen.push(seen(conn, sources, source, id)?);
        }
        for (source, id) in &ask.crash_counts {
            loaded
                .crash_counts
                .push(crash_count(conn, sources, source, id)?);
        }
        for subject in &ask.emitted_sequences {
            loaded.emitted_sequences.push(outgoing(conn, subject)?);
        }
        for source in &ask.epochs {
            let epochs = match sources.find(conn, source)? {
                Some(id) => source_epochs(conn, id)?,
                None => SourceEpochs::default(),
            };
            loaded.epochs.push(epochs);
        }
        for source in &ask.owners {
            loaded.owners.push(owner(conn, sources, source)?);
        }
        for (caller, id) in &ask.replies {
            loaded.replies.push(reply(conn, caller, id)?);
        }
        for (id, token) in &ask.leases {
            loaded.leases.push(is_leased(conn, id, *token)?);
        }
        if !ask.seen.is_empty() || !ask.replies.is_empty() {
            loaded.pruned_to = pruned_to(conn)?;
        }
        Ok(loaded)
    })
}

/// Reads entities in one transaction.
pub(super) fn read_entities(
    db: &mut Db,
    keys: &[EntityKey],
) -> Result<Vec<EntityRow>, SqliteError> {
    db.read(|conn, _| {
        let mut rows = Vec::new();
        load_entities(conn, keys, &mut rows)?;
        Ok(rows)
    })
}

fn load_streams(
    conn: &Connection,
    sources: &mut Sources,
    ask: &ReadSet,
    loaded: &mut ReadResult,
) -> Result<()> {
    let mut found = conn.prepare_cached(
        "SELECT s.id, s.version, s.cursor, s.held, s.last_id, s.blocked, s.epoch, s.epoch_random, s.epoch_from
         FROM stream_keys k CROSS JOIN streams s ON s.id = k.id WHERE k.source_id = ?1 AND k.subject = ?2",
    )?;
    loaded.streams.reserve(ask.streams.len());
    let mut allowance = ByteBudget::new(ask.deferred_bytes);
    for key in &ask.streams {
        let source = sources.find(conn, &key.source)?;
        let row = match source {
            None => None,
            Some(source) => {
                let mut rows = found.query(params![source, key.subject.as_str()])?;
                rows.next()?
                    .map(|row| stream_row(row, 0, key))
                    .transpose()?
            }
        };
        let row = row.unwrap_or_else(|| StreamRow::absent(key.clone()));
        if let Some(stream) = row.row.filter(|_| row.deferred > 0) {
            deferred_next(
                conn,
                sources,
                stream,
                row.cursor,
                ask.deferred_per_stream,
                &mut allowance,
                &mut loaded.deferred,
            )?;
        }
        loaded.streams.push(row);
    }
    Ok(())
}

/// Reads a stream whose columns begin at `first`: id, version, cursor, held, last_id, blocked, and the three of its
/// epoch.
pub(super) fn stream_row(row: &Row<'_>, first: usize, key: &StreamKey) -> Result<StreamRow> {
    let cursor = unsigned(row, first + 2)?;
    Ok(StreamRow {
        key: key.clone(),
        row: Some(RowRef(row.get(first)?)),
        version: unsigned(row, first + 1)?,
        cursor,
        last_id: read_last_id(row, first + 4, &key.subject, cursor)?,
        blocked: optional_text(row, first + 5)?.map(DeadLetterId),
        deferred: unsigned(row, first + 3)?,
        epoch: stream_epoch(row, first + 6)?,
    })
}

/// Reads the deferred events right after the cursor, up to the first gap.
fn deferred_next(
    conn: &Connection,
    sources: &mut Sources,
    stream: RowRef,
    cursor: u64,
    most: usize,
    allowance: &mut ByteBudget,
    into: &mut Vec<DeferredEvent>,
) -> Result<()> {
    let mut places = conn.prepare_cached(
        "SELECT id, sequence FROM held INDEXED BY held_place WHERE stream_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let mut events = conn.prepare_cached(concat!(
        "SELECT ",
        deferred_columns!(),
        " FROM held WHERE id = ?1"
    ))?;
    let mut rows = places.query(params![stream.0, signed(cursor), signed(most as u64)])?;
    let mut next = cursor;
    while let Some(row) = rows.next()? {
        next = next.saturating_add(1);
        // The index alone shows the gap: the event behind it is not read.
        if unsigned(row, 1)? != next {
            break;
        }
        let id: i64 = row.get(0)?;
        let mut event = events.query([id])?;
        let Some(row) = event.next()? else { break };
        if !allowance.takes(held_bytes(row)?) {
            break;
        }
        into.push(deferred_row(row, conn, sources)?);
    }
    Ok(())
}

fn load_entities(conn: &Connection, keys: &[EntityKey], into: &mut Vec<EntityRow>) -> Result<()> {
    let mut found = conn.prepare_cached(
        "SELECT e.id, e.version, e.state FROM entity_keys k CROSS JOIN entities e ON e.id = k.id WHERE k.key = ?1",
    )?;
    into.reserve(keys.len());
    for key in keys {
        let mut rows = found.query([key.as_str()])?;
        let row = rows
            .next()?
            .map(|row| entity_row(row, key.clone()))
            .transpose()?;
        into.push(row.unwrap_or_else(|| EntityRow::absent(key.clone())));
    }
    Ok(())
}

/// Reads an entity whose columns are id, version, state.
pub(super) fn entity_row(row: &Row<'_>, key: EntityKey) -> Result<EntityRow> {
    Ok(EntityRow {
        key,
        row: Some(RowRef(row.get(0)?)),
        version: unsigned(row, 1)?,
        state: optional(row, 2, || bytes(row, 2))?,
    })
}

fn deferred_at(
    conn: &Connection,
    sources: &mut Sources,
    key: &StreamKey,
    sequence: Sequence,
) -> Result<Option<(EventId, Option<Epoch>)>> {
    let Some(source) = sources.find(conn, &key.source)? else {
        return Ok(None);
    };
    conn.prepare_cached(
        "SELECT h.event_id, h.epoch, h.epoch_random FROM stream_keys k CROSS JOIN held h ON h.stream_id = k.id
         WHERE k.source_id = ?1 AND k.subject = ?2 AND h.sequence = ?3",
    )?
    .query_row(
        params![source, key.subject.as_str(), signed(sequence.get())],
        |row| Ok((attribute(row, 0, EventId::new)?, optional_epoch(row, 1)?)),
    )
    .optional()
}

fn seen(conn: &Connection, sources: &mut Sources, source: &Source, id: &EventId) -> Result<bool> {
    let Some(source) = sources.find(conn, source)? else {
        return Ok(false);
    };
    conn.prepare_cached("SELECT 1 FROM seen WHERE source_id = ?1 AND event_id = ?2")?
        .exists(params![source, id.as_str()])
}

fn crash_count(
    conn: &Connection,
    sources: &mut Sources,
    source: &Source,
    id: &EventId,
) -> Result<u32> {
    let Some(source) = sources.find(conn, source)? else {
        return Ok(0);
    };
    let crash_count = conn
        .prepare_cached("SELECT count FROM trials WHERE source_id = ?1 AND event_id = ?2")?
        .query_row(params![source, id.as_str()], |row| small(row, 0))
        .optional()?;
    Ok(crash_count.unwrap_or(0))
}

fn reply(conn: &Connection, caller: &Source, id: &RequestId) -> Result<Option<ReplyRow>> {
    conn.prepare_cached("SELECT hash, reply FROM replies WHERE caller = ?1 AND request_id = ?2")?
        .query_row(params![caller.as_str(), id.as_str()], |row| {
            Ok(ReplyRow {
                hash: RequestHash(row.get(0)?),
                reply: bytes(row, 1)?,
            })
        })
        .optional()
}

fn pruned_to(conn: &Connection) -> Result<PrunedTo> {
    conn.prepare_cached("SELECT seen_pruned_to, replies_pruned_to FROM totals")?
        .query_row([], |row| {
            Ok(PrunedTo {
                seen: optional_time(row, 0)?,
                replies: optional_time(row, 1)?,
            })
        })
}

fn outgoing(conn: &Connection, subject: &Subject) -> Result<u64> {
    let last = conn
        .prepare_cached("SELECT last FROM outgoing WHERE subject = ?1")?
        .query_row([subject.as_str()], |row| unsigned(row, 0))
        .optional()?;
    Ok(last.unwrap_or(0))
}
