//! The store's own epochs, and its mark of having been restored.

use doorstep_event::Epoch;
use rusqlite::params;

use super::Writer;
use crate::{
    RestoredChange,
    epochs::{MAX_OWN_EPOCHS, next},
    sqlite::{
        columns::{nanos, signed},
        epochs::epoch_columns,
        error::Stop,
    },
};

impl Writer<'_> {
    pub(super) fn begin_epoch(&mut self, random: u64) -> Result<Epoch, Stop> {
        let epoch = next(self.totals.epoch, random).ok_or_else(|| {
            Stop::Unusable("it has begun as many epochs as can be counted".to_owned())
        })?;
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

    pub(super) fn mark_restored(&self, change: &RestoredChange) -> Result<(), Stop> {
        match change.detail() {
            Some(detail) => self.tx.execute(
                "UPDATE store SET restored_since = ?1, restored_detail = ?2 WHERE restored_since IS NULL",
                params![nanos(self.now), detail],
            )?,
            None => self.tx.execute(
                "UPDATE store SET restored_since = NULL, restored_detail = NULL",
                [],
            )?,
        };
        Ok(())
    }
}
