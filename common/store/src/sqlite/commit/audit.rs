//! Writes audit records of operators' actions, within their bound.

use rusqlite::params;

use super::{Writer, less, more};
use crate::{
    NewAudit, TableUsage, size,
    sqlite::{
        audit::action_column,
        columns::{nanos, signed, table_usage, unsigned},
        error::SqliteError,
    },
};

impl Writer<'_> {
    /// Totals of the records are in a row of their own, which batches of a role neither read nor write.
    pub(super) fn record(
        &mut self,
        entries: &[NewAudit],
        most: TableUsage,
    ) -> Result<(), SqliteError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (mut kept, mut forgotten) = self.query_row(
            "SELECT rows, bytes, forgotten FROM audit_totals",
            [],
            |row| Ok((table_usage(row, 0)?, unsigned(row, 2)?)),
        )?;
        for entry in entries {
            let bytes = size::audit(entry);
            self.insert_record(entry, bytes)?;
            more(&mut kept, bytes);
            while kept.rows > 1 && kept.is_above(most) {
                let bytes = self.query_row(
                    "DELETE FROM audit WHERE number = (SELECT min(number) FROM audit) RETURNING bytes",
                    [],
                    |row| unsigned(row, 0),
                )?;
                less(&mut kept, 1, bytes);
                forgotten += 1;
            }
        }
        self.execute(
            "UPDATE audit_totals SET rows = ?1, bytes = ?2, forgotten = ?3",
            [signed(kept.rows), signed(kept.bytes), signed(forgotten)],
        )?;
        Ok(())
    }

    fn insert_record(&self, entry: &NewAudit, bytes: u64) -> Result<(), SqliteError> {
        let stream = entry.stream.as_ref();
        self.execute(
            "INSERT INTO audit(at, operator, action, about, dead_id, source, subject, first, last, reason, before, after, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                nanos(self.now),
                entry.operator,
                action_column(entry.action),
                entry.about,
                entry.dead.as_ref().map(|id| &id.0),
                stream.map(|s| s.source.as_str()),
                stream.map(|s| s.subject.as_str()),
                entry.sequences.map(|(first, _)| signed(first)),
                entry.sequences.map(|(_, last)| signed(last)),
                entry.reason,
                entry.before.as_deref(),
                entry.after.as_deref(),
                signed(bytes),
            ],
        )?;
        Ok(())
    }
}
