//! Dead letters that belong to no stream, within their bounds.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, params};

use super::{Writer, less, more};
use crate::{
    NewStreamless, StreamlessBounds, TableUsage, overflow, size,
    sqlite::{
        columns::{signed, table_usage, unsigned},
        error::SqliteError,
        overflow::OverflowFile,
    },
};

/// The dead letters of no stream that a commit adds.
#[derive(Default)]
pub(super) struct Added {
    /// The number kept in the store.
    pub(super) kept: u64,
    /// The row of counts; `None` if the commit has no such dead letters.
    totals: Option<Totals>,
    /// The lines for the overflow file.
    lines: Vec<u8>,
}

struct Totals {
    usage: TableUsage,
    overflowed: u64,
    dropped: u64,
}

impl Writer<'_> {
    pub(super) fn add_streamless(
        &mut self,
        new: &[NewStreamless],
        bounds: &StreamlessBounds,
    ) -> Result<Added, SqliteError> {
        let mut added = Added::default();
        if new.is_empty() {
            return Ok(added);
        }
        let mut totals = self.streamless_totals()?;
        let mut kinds: HashMap<&str, TableUsage> = HashMap::new();
        for NewStreamless { row, seen } in new {
            if self.is_dead(&row.id.0)? {
                self.totals.tally.duplicates += 1;
                self.known_dead_letters.insert(row.id.clone());
            } else {
                let fingerprint = row.fingerprint.as_str();
                let kind = match kinds.get(fingerprint) {
                    Some(kind) => *kind,
                    None => self.streamless_of(fingerprint)?,
                };
                let bytes = size::dead_letter(row);
                if !bounds.has_room(kind, totals.usage, bytes) {
                    totals.overflowed += 1;
                    self.overflowed += 1;
                    let line =
                        overflow::line(totals.overflowed, row).map_err(SqliteError::Unusable)?;
                    added.lines.extend(line);
                    // An overflowed dead letter gets no copy.
                    self.known_dead_letters.insert(row.id.clone());
                    kinds.insert(fingerprint, kind);
                    continue;
                }
                self.add_dead_row(row)?;
                self.execute(
                    "UPDATE dead SET streamless = ?2 WHERE id = ?1",
                    params![row.id.0, signed(bytes)],
                )?;
                self.totals.tally.dead_letters += 1;
                added.kept += 1;
                more(&mut totals.usage, bytes);
                let mut kind = kind;
                more(&mut kind, bytes);
                kinds.insert(fingerprint, kind);
            }
            if let Some((source, id, time)) = seen {
                self.see(source, id, *time)?;
            }
        }
        added.totals = Some(totals);
        Ok(added)
    }

    /// Appends to the overflow file, flushes it to disk, and writes the counts.
    pub(super) fn append(
        &self,
        added: &mut Added,
        file: &OverflowFile,
        bounds: &StreamlessBounds,
    ) -> Result<(), SqliteError> {
        let Some(totals) = &mut added.totals else {
            return Ok(());
        };
        if !added.lines.is_empty()
            && let Some(oldest) = file.append(&added.lines, bounds)?
        {
            totals.dropped = oldest.saturating_sub(1);
        }
        self.execute(
            "UPDATE streamless SET rows = ?1, bytes = ?2, overflowed = ?3, dropped = ?4",
            [
                signed(totals.usage.rows),
                signed(totals.usage.bytes),
                signed(totals.overflowed),
                signed(totals.dropped),
            ],
        )?;
        Ok(())
    }

    /// Removes a resolved dead letter from the counts.
    pub(super) fn forget_streamless(&self, bytes: u64) -> Result<(), SqliteError> {
        let mut totals = self.streamless_totals()?;
        less(&mut totals.usage, 1, bytes);
        self.execute(
            "UPDATE streamless SET rows = ?1, bytes = ?2",
            [signed(totals.usage.rows), signed(totals.usage.bytes)],
        )?;
        Ok(())
    }

    fn streamless_totals(&self) -> Result<Totals, SqliteError> {
        let totals = self.query_row(
            "SELECT rows, bytes, overflowed, dropped FROM streamless",
            [],
            |row| {
                Ok(Totals {
                    usage: table_usage(row, 0)?,
                    overflowed: unsigned(row, 2)?,
                    dropped: unsigned(row, 3)?,
                })
            },
        )?;
        Ok(totals)
    }

    fn streamless_of(&self, fingerprint: &str) -> Result<TableUsage, SqliteError> {
        let usage = self.query_row(
            "SELECT count(*), coalesce(sum(streamless), 0) FROM dead INDEXED BY dead_streamless
                 WHERE fingerprint = ?1 AND streamless > 0",
            [fingerprint],
            |row| table_usage(row, 0),
        )?;
        Ok(usage)
    }

    fn is_dead(&self, id: &str) -> Result<bool, SqliteError> {
        let found = self
            .query_row("SELECT 1 FROM dead WHERE id = ?1", [id], |_| Ok(()))
            .optional()?;
        Ok(found.is_some())
    }
}
