//! The store's own epochs, and its mark of having been restored.

use doorstep_event::{Epoch, Timestamp};

use super::Conflict;
use crate::{
    OwnEpoch, OwnEpochs, Restored, RestoredChange,
    epochs::{MAX_OWN_EPOCHS, next},
    memory::data::Data,
};

impl Data {
    pub(super) fn begin_epoch(&mut self, random: u64, now: Timestamp) -> Result<Epoch, Conflict> {
        let epoch = next(self.counters.epoch, random).ok_or(Conflict)?;
        let own = OwnEpoch { epoch, since: now };
        self.own_epochs.put(epoch.counter(), own);
        if let Some(gone) = epoch.counter().checked_sub(MAX_OWN_EPOCHS as u64) {
            self.own_epochs.remove(&gone);
        }
        self.counters.epoch = Some(epoch);
        Ok(epoch)
    }

    pub(super) fn mark_restored(&mut self, change: &RestoredChange, now: Timestamp) {
        let marked = change
            .detail()
            .map(|detail| Restored { since: now, detail });
        self.counters.restored = match (marked, self.counters.restored.take()) {
            (Some(_), Some(first)) => Some(first),
            (marked, _) => marked,
        };
    }

    pub(in crate::memory) fn epochs(&self) -> OwnEpochs {
        let newest_first = self.own_epochs.iter().rev();
        OwnEpochs(newest_first.map(|(_, own)| *own).collect())
    }
}
