//! The store's own epochs, and its mark of having been restored.

use doorstep_event::Epoch;
use rusqlite::{
    Connection, Result, Row,
    types::{FromSqlError, Type},
};

use super::{
    columns::{signed, time},
    db::Db,
    error::Stop,
};
use crate::{OwnEpoch, OwnEpochs, Restored};

/// Reads an epoch whose columns, counter and random part, begin at `first`.
pub(super) fn optional_epoch(row: &Row<'_>, first: usize) -> Result<Option<Epoch>> {
    let Some(counter) = row.get::<_, Option<i64>>(first)? else {
        return Ok(None);
    };
    let random: i64 = row.get(first + 1)?;
    u64::try_from(counter)
        .ok()
        .and_then(|counter| Epoch::new(counter, random.cast_unsigned()))
        .map(Some)
        .ok_or_else(|| {
            let why = Box::new(FromSqlError::OutOfRange(counter));
            rusqlite::Error::FromSqlConversionFailure(first, Type::Integer, why)
        })
}

/// The two columns of an epoch.
pub(super) fn epoch_columns(epoch: Option<Epoch>) -> (Option<i64>, Option<i64>) {
    (
        epoch.map(|epoch| signed(epoch.counter())),
        epoch.map(|epoch| epoch.random().cast_signed()),
    )
}

pub(super) fn own_epochs(db: &mut Db) -> Result<OwnEpochs, Stop> {
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
            if row.get_ref(0)?.data_type() == Type::Null {
                return Ok(None);
            }
            Ok(Some(Restored {
                since: time(row, 0)?,
                detail: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            }))
        })
}
