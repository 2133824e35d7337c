//! Conversions between values and columns.

use std::sync::Arc;

use bytes::Bytes;
use doorstep_event::{Epoch, Event, EventId, EventType, Sequence, Source, Subject, Timestamp};
use rusqlite::{
    Result, Row, ToSql,
    types::{FromSqlError, ToSqlOutput, Type, Value, ValueRef},
};

use crate::TableUsage;

/// Returns a time in nanoseconds since 1970, for comparisons. Times outside the years 1677 to 2262 become the nearest
/// value that fits.
pub(super) fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// Returns a time that can be read back exactly: as text if nanoseconds do not fit.
pub(super) fn exact_time(time: Timestamp) -> Value {
    i64::try_from(time.as_nanosecond())
        .map_or_else(|_| Value::Text(time.to_string()), Value::Integer)
}

/// Converts a number. `WriteSet::check` has already rejected numbers above SQLite's range.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn damaged(
    row: &Row<'_>,
    column: usize,
    why: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let kind = row.get_ref(column).map_or(Type::Null, |v| v.data_type());
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(why))
}

/// Reads a count or number that is never negative.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|e| damaged(row, column, e))
}

pub(super) fn small(row: &Row<'_>, column: usize) -> Result<u32> {
    let number: i64 = row.get(column)?;
    u32::try_from(number).map_err(|e| damaged(row, column, e))
}

pub(super) fn text<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str> {
    let value = row.get_ref(column)?;
    value.as_str().map_err(|e| damaged(row, column, e))
}

/// Reads a column, unless it is null.
pub(super) fn optional<T>(
    row: &Row<'_>,
    column: usize,
    read: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => read().map(Some),
    }
}

pub(super) fn optional_text(row: &Row<'_>, column: usize) -> Result<Option<String>> {
    optional(row, column, || text(row, column).map(ToOwned::to_owned))
}

/// Reads a number of rows, and of their bytes in the next column.
pub(super) fn table_usage(row: &Row<'_>, first: usize) -> Result<TableUsage> {
    Ok(TableUsage {
        rows: unsigned(row, first)?,
        bytes: unsigned(row, first + 1)?,
    })
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> Result<Bytes> {
    let value = row.get_ref(column)?;
    value
        .as_bytes()
        .map(Bytes::copy_from_slice)
        .map_err(|e| damaged(row, column, e))
}

pub(super) fn optional_bytes(row: &Row<'_>, column: usize) -> Result<Option<Bytes>> {
    optional(row, column, || bytes(row, column))
}

/// Reads an attribute of an event and validates it: another program may have changed the file.
pub(super) fn attribute<T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    new: impl FnOnce(Arc<str>) -> std::result::Result<T, E>,
) -> Result<T> {
    new(text(row, column)?.into()).map_err(|e| damaged(row, column, e))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    match row.get_ref(column)? {
        ValueRef::Integer(nanos) => {
            Timestamp::from_nanosecond(nanos.into()).map_err(|e| damaged(row, column, e))
        }
        _ => text(row, column)?
            .parse()
            .map_err(|e: jiff::Error| damaged(row, column, e)),
    }
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    optional(row, column, || time(row, column))
}

fn optional_sequence(row: &Row<'_>, column: usize) -> Result<Option<Sequence>> {
    optional(row, column, || {
        Sequence::new(unsigned(row, column)?)
            .ok_or_else(|| damaged(row, column, FromSqlError::InvalidType))
    })
}

/// The id at a stream's cursor. An id in the form of Doorstep's own sources is stored as a mark only.
pub(super) fn last_id<'a>(id: Option<&'a EventId>, subject: &Subject, cursor: u64) -> LastId<'a> {
    match id {
        None => LastId::None,
        Some(id) if is_numbered(id.as_str(), subject.as_str(), cursor) => LastId::Numbered,
        Some(id) => LastId::Text(id),
    }
}

fn is_numbered(id: &str, subject: &str, cursor: u64) -> bool {
    let number = id
        .strip_prefix(subject)
        .and_then(|rest| rest.strip_prefix('#'));
    // Accepts only the canonical form of the number: no sign, no leading zero.
    number.is_some_and(|n| {
        n.as_bytes()
            .first()
            .is_some_and(|b| (b'1'..=b'9').contains(b))
            && n.parse() == Ok(cursor)
    })
}

/// The value of [`last_id`] in its column.
pub(super) enum LastId<'a> {
    None,
    Numbered,
    Text(&'a EventId),
}

impl ToSql for LastId<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            LastId::None => ValueRef::Null,
            LastId::Numbered => ValueRef::Integer(1),
            LastId::Text(id) => ValueRef::Text(id.as_str().as_bytes()),
        }))
    }
}

pub(super) fn read_last_id(
    row: &Row<'_>,
    column: usize,
    subject: &Subject,
    cursor: u64,
) -> Result<Option<EventId>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(_) => Sequence::new(cursor)
            .ok_or_else(|| damaged(row, column, FromSqlError::InvalidType))
            .and_then(|n| Event::id_for(subject, n).map_err(|e| damaged(row, column, e)))
            .map(Some),
        _ => attribute(row, column, EventId::new).map(Some),
    }
}

/// The columns of an event, in the order in which [`event`] reads them. A macro, so that each statement is one
/// constant.
macro_rules! event_columns {
    () => {
        "event_id, source_id, type, subject, time, sequence, traceparent, data, epoch, epoch_random"
    };
}
pub(super) use event_columns;

/// Reads an event from the columns of `event_columns`, which begin at `first`.
pub(super) fn event(row: &Row<'_>, first: usize, source: Source) -> Result<Event> {
    Ok(Event {
        id: attribute(row, first, EventId::new)?,
        source,
        event_type: attribute(row, first + 2, EventType::new)?,
        subject: attribute(row, first + 3, Subject::new)?,
        time: optional_time(row, first + 4)?,
        sequence: optional_sequence(row, first + 5)?,
        epoch: optional_epoch(row, first + 8)?,
        traceparent: optional_text(row, first + 6)?,
        data: bytes(row, first + 7)?,
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_canonical_id_is_marked() {
        assert!(is_numbered("order/1#7", "order/1", 7));
        for id in [
            "order/1#07",
            "order/1#+7",
            "order/1#8",
            "order/17",
            "order/1#",
            "x/1#7",
        ] {
            assert!(!is_numbered(id, "order/1", 7), "{id}");
        }
        assert!(!is_numbered("order/1#0", "order/1", 0));
    }

    #[test]
    fn times_beyond_nanoseconds_are_kept_as_text() {
        assert!(matches!(exact_time(Timestamp::MAX), Value::Text(_)));
        assert!(matches!(
            exact_time(Timestamp::UNIX_EPOCH),
            Value::Integer(0)
        ));
        assert_eq!(nanos(Timestamp::MAX), i64::MAX);
        assert_eq!(nanos(Timestamp::MIN), i64::MIN);
    }
}
