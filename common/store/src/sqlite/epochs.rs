//! The store's own epochs, and the mark of a restored store.

use doorstep_event::{Epoch, Source};
use rusqlite::{Connection, Result, Row};

use super::{
    columns::{attribute, optional, optional_epoch, optional_text, signed, time, unsigned},
    db::Db,
    error::SqliteError,
};
use crate::{
    EpochStatus, OwnEpoch, OwnEpochs, Restored, RestoredSource, SourceEpochs, StreamEpoch,
};

/// The two columns of an epoch.
pub(super) fn epoch_columns(epoch: Option<Epoch>) -> (Option<i64>, Option<i64>) {
    (
        epoch.map(|epoch| signed(epoch.counter())),
        epoch.map(|epoch| epoch.random().cast_signed()),
    )
}

pub(super) fn own_epochs(db: &mut Db) -> Result<OwnEpochs, SqliteError> {
    let mut newest = db
        .conn
        .prepare_cached("SELECT counter, random, since FROM own_epochs ORDER BY counter DESC")?;
    let mut rows = newest.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(epoch) = optional_epoch(row, 0)? {
            let since = time(row, 2)?;
            epochs.push(OwnEpoch { epoch, since });
        }
    }
    Ok(OwnEpochs(epochs))
}

pub(super) fn restored(conn: &Connection) -> Result<Option<Restored>> {
    conn.prepare_cached("SELECT restored_since, restored_detail FROM store")?
        .query_row([], |row| {
            optional(row, 0, || {
                Ok(Restored {
                    since: time(row, 0)?,
                    detail: optional_text(row, 1)?.unwrap_or_default(),
                })
            })
        })
}

/// Reads the epoch of a stream, whose three columns begin at `first`.
pub(super) fn stream_epoch(row: &Row<'_>, first: usize) -> Result<Option<StreamEpoch>> {
    let Some(epoch) = optional_epoch(row, first)? else {
        return Ok(None);
    };
    let from: i64 = row.get(first + 2)?;
    Ok(Some(StreamEpoch {
        epoch,
        from: from.unsigned_abs(),
        after_gap: from < 0,
    }))
}

/// The three columns of a stream's epoch.
pub(super) fn stream_epoch_columns(
    at: Option<StreamEpoch>,
) -> (Option<i64>, Option<i64>, Option<i64>) {
    let (counter, random) = epoch_columns(at.map(|at| at.epoch));
    let from = at.map(|at| match at.after_gap {
        true => -signed(at.from),
        false => signed(at.from),
    });
    (counter, random, from)
}

pub(super) fn standing_column(standing: EpochStatus) -> i64 {
    match standing {
        EpochStatus::InLine => 0,
        EpochStatus::Late => 1,
        EpochStatus::Fork => 2,
    }
}

/// Reads the known epochs of a source.
pub(super) fn source_epochs(conn: &Connection, source_id: i64) -> Result<SourceEpochs> {
    let mut epochs = SourceEpochs::default();
    let mut found = conn.prepare_cached(
        "SELECT counter, random, standing FROM source_epochs WHERE source_id = ?1",
    )?;
    let mut rows = found.query([source_id])?;
    while let Some(row) = rows.next()? {
        let standing = match row.get(2)? {
            0_i64 => EpochStatus::InLine,
            1 => EpochStatus::Late,
            _ => EpochStatus::Fork,
        };
        if let Some(epoch) = optional_epoch(row, 0)? {
            epochs.put(epoch, standing);
        }
    }
    Ok(epochs)
}

pub(super) fn restored_sources(conn: &Connection) -> Result<Vec<RestoredSource>> {
    let mut found = conn.prepare_cached(
        "SELECT source, since, last, epoch, epoch_random, conflicts FROM restored_sources ORDER BY since, source",
    )?;
    let mut rows = found.query([])?;
    let mut sources = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(epoch) = optional_epoch(row, 3)? {
            sources.push(RestoredSource {
                source: attribute(row, 0, Source::new)?,
                since: time(row, 1)?,
                last: time(row, 2)?,
                epoch,
                conflicts: unsigned(row, 5)?,
            });
        }
    }
    Ok(sources)
}
