//! Creates, checks and changes entities, and makes events that wait for them due.

use rusqlite::{Statement, params};

use super::{Writer, one_or_conflict};
use crate::{
    EntityChange, EntityKey, ExpectedVersion, RowRef, WriteSet,
    sqlite::{
        columns::{nanos, signed},
        error::SqliteError,
    },
};

/// The version of a row created without a state. A row with a first state has version 2, so the version alone shows if
/// an entity counts as one with a state.
const WITHOUT_STATE: u64 = 1;

impl Writer<'_> {
    pub(super) fn write_entities(
        &mut self,
        changes: &[EntityChange],
    ) -> Result<Vec<ExpectedVersion>, SqliteError> {
        let tx = self.tx;
        // Prepared once for the hundreds of entities of a batch.
        let mut update = tx.prepare_cached(
            "UPDATE entities SET version = version + 1, state = ?3 WHERE id = ?1 AND version = ?2",
        )?;
        changes
            .iter()
            .map(|change| match (change.expect.row, &change.after) {
                (None, _) => self.create_entity(change),
                (Some(row), None) => self.check_entity(row, change.expect.version),
                (Some(row), Some(state)) => {
                    self.update_entity(&mut update, row, change.expect.version, state)
                }
            })
            .collect()
    }

    fn create_entity(&mut self, change: &EntityChange) -> Result<ExpectedVersion, SqliteError> {
        let id = self.totals.last_entity + 1;
        self.execute_one(
            "INSERT INTO entity_keys(key, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![change.key.as_str(), id],
        )?;
        let version = WITHOUT_STATE + u64::from(change.after.is_some());
        self.execute(
            "INSERT INTO entities(id, version, state) VALUES (?1, ?2, ?3)",
            params![id, signed(version), change.after.as_deref()],
        )?;
        self.totals.last_entity = id;
        self.totals.entities += u64::from(change.after.is_some());
        Ok(ExpectedVersion {
            row: Some(RowRef(id)),
            version,
        })
    }

    fn check_entity(&mut self, row: RowRef, version: u64) -> Result<ExpectedVersion, SqliteError> {
        let same = self.exists(
            "SELECT 1 FROM entities WHERE id = ?1 AND version = ?2",
            params![row.0, signed(version)],
        )?;
        if !same {
            return Err(SqliteError::Conflict);
        }
        Ok(ExpectedVersion {
            row: Some(row),
            version,
        })
    }

    fn update_entity(
        &mut self,
        update: &mut Statement<'_>,
        row: RowRef,
        version: u64,
        state: &[u8],
    ) -> Result<ExpectedVersion, SqliteError> {
        let changed = update.execute(params![row.0, signed(version), state])?;
        one_or_conflict(changed)?;
        self.totals.entities += u64::from(version == WITHOUT_STATE);
        Ok(ExpectedVersion {
            row: Some(row),
            version: version + 1,
        })
    }

    /// Removes rows and their keys. Row numbers are never given again, so a stale handle denotes no other entity.
    pub(super) fn remove_entities(
        &mut self,
        removed: &[(EntityKey, ExpectedVersion)],
    ) -> Result<(), SqliteError> {
        for (key, ExpectedVersion { row, version }) in removed {
            let deleted = self.execute(
                "DELETE FROM entities WHERE id = ?1 AND version = ?2",
                params![row.map(|row| row.0), signed(*version)],
            )?;
            one_or_conflict(deleted)?;
            self.execute("DELETE FROM entity_keys WHERE key = ?1", [key.as_str()])?;
            self.totals.entities -= u64::from(*version > WITHOUT_STATE);
        }
        Ok(())
    }

    /// Makes due the events that wait for an entity that has changed.
    pub(super) fn wake(&mut self, changes: &WriteSet) -> Result<(), SqliteError> {
        if self.totals.awaiting == 0 {
            return Ok(());
        }
        let written = changes.entities.iter().filter(|c| c.after.is_some());
        let removed = changes.removed_entities.iter().map(|(key, _)| key);
        for key in written.map(|change| &change.key).chain(removed) {
            self.execute(
                "UPDATE held SET due = ?2 WHERE reason = 1 AND about = ?1 AND (due IS NULL OR due > ?2)",
                params![key.as_str(), nanos(self.now)],
            )?;
        }
        Ok(())
    }
}
