//! Crash counts of poison candidates.

use rusqlite::params;

use super::{Writer, one_or_conflict};
use crate::{
    CrashCountChange,
    sqlite::{columns::nanos, error::SqliteError},
};

impl Writer<'_> {
    pub(super) fn set_crash_count(&mut self, change: &CrashCountChange) -> Result<(), SqliteError> {
        let source = self.sources.find_or_add(self.tx, &change.source)?;
        let id = change.id.as_str();
        let now = nanos(self.now);
        let changed = match (change.before, change.after) {
            // No count was read and none is to be written: a count in the store is still a conflict.
            (0, 0) => {
                let there = self.exists(
                    "SELECT 1 FROM trials WHERE source_id = ?1 AND event_id = ?2",
                    params![source, id],
                )?;
                usize::from(!there)
            }
            (0, after) => self.execute(
                "INSERT INTO trials(source_id, event_id, count, time) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![source, id, after, now],
            )?,
            (before, 0) => self.execute(
                "DELETE FROM trials WHERE source_id = ?1 AND event_id = ?2 AND count = ?3",
                params![source, id, before],
            )?,
            (before, after) => self.execute(
                "UPDATE trials SET count = ?4, time = ?5 WHERE source_id = ?1 AND event_id = ?2 AND count = ?3",
                params![source, id, before, after, now],
            )?,
        };
        one_or_conflict(changed)
    }
}
