//! Reads the owners of sources.

use doorstep_event::{BrokerUser, Source};
use rusqlite::{Connection, OptionalExtension, Result, Row};

use super::{
    columns::{attribute, optional_text, signed, time, unsigned},
    db::Db,
    error::SqliteError,
    sources::Sources,
};
use crate::{FormerOwner, OwnerRow, SourceOwner, SourceRow};

/// The values of the column `former`.
pub(super) const FORMER_NONE: i64 = 0;
pub(super) const FORMER_NOBODY: i64 = 1;
pub(super) const FORMER_USER: i64 = 2;

pub(super) fn owner(conn: &Connection, sources: &mut Sources, source: &Source) -> Result<OwnerRow> {
    let Some(id) = sources.find(conn, source)? else {
        return Ok(OwnerRow::default());
    };
    let row = conn
        .prepare_cached(
            "SELECT version, user, since, former, former_user FROM source_owners WHERE source_id = ?1",
        )?
        .query_row([id], |row| {
            Ok(OwnerRow {
                version: unsigned(row, 0)?,
                owner: Some(owner_from(row, 1)?),
            })
        })
        .optional()?;
    Ok(row.unwrap_or_default())
}

/// Reads an owner whose columns begin at `first`: user, since, former, former_user.
fn owner_from(row: &Row<'_>, first: usize) -> Result<SourceOwner> {
    let user = |column| optional_text(row, column).map(|name| name.map(BrokerUser::new));
    let former = match row.get::<_, i64>(first + 2)? {
        FORMER_NOBODY => Some(FormerOwner::Nobody),
        FORMER_USER => user(first + 3)?.map(FormerOwner::User),
        _ => None,
    };
    Ok(SourceOwner {
        user: user(first)?,
        since: time(row, first + 1)?,
        former,
    })
}

pub(super) fn sources(
    db: &mut Db,
    after: Option<&Source>,
    limit: usize,
) -> std::result::Result<Vec<SourceRow>, SqliteError> {
    db.read(|conn, _| {
        let mut found = conn.prepare_cached(
            "SELECT s.source, o.version, o.user, o.since, o.former, o.former_user, k.streams
             FROM sources s LEFT JOIN source_owners o ON o.source_id = s.id
             LEFT JOIN (SELECT source_id, count(*) AS streams FROM stream_keys GROUP BY source_id) k
                 ON k.source_id = s.id
             WHERE s.source > ?1 AND (o.source_id IS NOT NULL OR k.streams > 0) ORDER BY s.source LIMIT ?2",
        )?;
        // No source is empty, so all of them follow the empty one.
        let after = after.map_or("", Source::as_str);
        let rows = found.query_map((after, signed(limit as u64)), |row| {
            let is_recorded = row.get::<_, Option<i64>>(1)?.is_some();
            Ok(SourceRow {
                source: attribute(row, 0, Source::new)?,
                owner: is_recorded.then(|| owner_from(row, 2)).transpose()?,
                streams: row
                    .get::<_, Option<i64>>(6)?
                    .map_or(0, |count| u64::try_from(count).unwrap_or_default()),
            })
        })?;
        Ok(rows.collect::<Result<_>>()?)
    })
}
