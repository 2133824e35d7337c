//! The store's own epochs and the mark of a restored store; the epochs of sources, and the list of restored ones.

use doorstep_event::{Epoch, Source};
use rusqlite::params;

use super::Writer;
use crate::{
    EpochStatus, LearnedEpoch, MAX_RESTORED_SOURCES, MAX_SOURCE_EPOCHS, RestoredChange,
    RestoredSourceChange,
    epochs::{MAX_OWN_EPOCHS, next},
    sqlite::{
        columns::{nanos, signed},
        epochs::{epoch_columns, source_epochs, standing_column},
        error::SqliteError,
    },
    tasks::leases::make_all_unknown,
};

impl Writer<'_> {
    pub(super) fn begin_epoch(&mut self, random: u64) -> Result<Epoch, SqliteError> {
        let epoch = next(self.totals.epoch, random)
            .ok_or_else(|| SqliteError::Unusable("its epoch counter is exhausted".to_owned()))?;
        let (counter, random) = epoch_columns(Some(epoch));
        self.tx.execute(
            "INSERT INTO own_epochs(counter, random, since) VALUES (?1, ?2, ?3)",
            params![counter, random, nanos(self.now)],
        )?;
        self.tx.execute(
            "DELETE FROM own_epochs WHERE counter <= ?1 - ?2",
            params![counter, signed(MAX_OWN_EPOCHS as u64)],
        )?;
        self.tx.execute(
            "UPDATE store SET epoch = ?1, epoch_random = ?2",
            params![counter, random],
        )?;
        self.totals.epoch = Some(epoch);
        Ok(epoch)
    }

    pub(super) fn mark_restored(&mut self, change: &RestoredChange) -> Result<(), SqliteError> {
        let Some(detail) = change.detail() else {
            self.tx.execute(
                "UPDATE store SET restored_since = NULL, restored_detail = NULL",
                [],
            )?;
            return Ok(());
        };
        let marked = self.tx.execute(
            "UPDATE store SET restored_since = ?1, restored_detail = ?2 WHERE restored_since IS NULL",
            params![nanos(self.now), detail],
        )?;
        if marked > 0 {
            make_all_unknown(&mut self.tasks())?;
        }
        Ok(())
    }

    /// Records an epoch of a source. Rare: once for each start of a source's store.
    pub(super) fn learn(&mut self, learned: &LearnedEpoch) -> Result<(), SqliteError> {
        let LearnedEpoch {
            source,
            epoch,
            forks,
        } = learned;
        let source_id = self.sources.find_or_add(self.tx, source)?;
        let mut epochs = source_epochs(self.tx, source_id)?;
        let Some(standing) = epochs.learn(*epoch, *forks) else {
            return Ok(());
        };
        let (counter, random) = epoch_columns(Some(*epoch));
        self.execute(
            "INSERT INTO source_epochs(source_id, counter, random, standing) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET standing = excluded.standing",
            params![source_id, counter, random, standing_column(standing)],
        )?;
        // Random parts are stored as signed numbers, whose order does not matter here: the oldest counters are deleted.
        self.execute(
            "DELETE FROM source_epochs WHERE source_id = ?1 AND (counter, random) IN (
                     SELECT counter, random FROM source_epochs WHERE source_id = ?1
                     ORDER BY counter DESC, random DESC LIMIT -1 OFFSET ?2)",
            params![source_id, signed(MAX_SOURCE_EPOCHS as u64)],
        )?;
        if standing == EpochStatus::Fork {
            self.list_restored(source, *epoch, 0)?;
        }
        Ok(())
    }

    pub(super) fn change_restored_source(
        &self,
        change: &RestoredSourceChange,
    ) -> Result<(), SqliteError> {
        match change {
            RestoredSourceChange::Found {
                source,
                epoch,
                dead,
            } if !self.known_dead_letters.contains(dead) => {
                self.list_restored(source, *epoch, 1)?;
            }
            RestoredSourceChange::Found { .. } => {}
            RestoredSourceChange::Accept(source) => {
                self.tx.execute(
                    "DELETE FROM restored_sources WHERE source = ?1",
                    [source.as_str()],
                )?;
            }
        }
        Ok(())
    }

    fn list_restored(
        &self,
        source: &Source,
        epoch: Epoch,
        conflicts: u64,
    ) -> Result<(), SqliteError> {
        let (counter, random) = epoch_columns(Some(epoch));
        self.execute(
            "INSERT INTO restored_sources(source, since, last, epoch, epoch_random, conflicts)
                 SELECT ?1, ?2, ?2, ?3, ?4, ?5
                 WHERE (SELECT count(*) FROM restored_sources) < ?6 OR ?1 IN (SELECT source FROM restored_sources)
                 ON CONFLICT DO UPDATE SET last = excluded.last, epoch = excluded.epoch, epoch_random = excluded.epoch_random,
                                           conflicts = conflicts + excluded.conflicts",
            params![
                source.as_str(),
                nanos(self.now),
                counter,
                random,
                signed(conflicts),
                signed(MAX_RESTORED_SOURCES as u64),
            ],
        )?;
        Ok(())
    }
}
