//! The store's own epochs and the mark of a restored store; the epochs of sources, and the list of restored ones.

use std::collections::HashSet;

use doorstep_event::{Epoch, Source, Timestamp};

use super::Conflict;
use crate::{
    DeadLetterId, EpochStatus, LearnedEpoch, MAX_RESTORED_SOURCES, OwnEpoch, OwnEpochs, Restored,
    RestoredChange, RestoredSource, RestoredSourceChange,
    epochs::{MAX_OWN_EPOCHS, next},
    memory::data::Data,
    tasks::leases::make_all_unknown,
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
        let first = self.counters.restored.take();
        if first.is_none() && marked.is_some() {
            let Ok(()) = make_all_unknown(self);
        }
        self.counters.restored = match (marked, first) {
            (Some(_), Some(first)) => Some(first),
            (marked, _) => marked,
        };
    }

    pub(in crate::memory) fn epochs(&self) -> OwnEpochs {
        let newest_first = self.own_epochs.iter().rev();
        OwnEpochs(newest_first.map(|(_, own)| *own).collect())
    }

    pub(super) fn learn(&mut self, learned: LearnedEpoch, now: Timestamp) {
        let LearnedEpoch {
            source,
            epoch,
            forks,
        } = learned;
        let known = self.source_epochs.get(&source).cloned();
        let mut epochs = known.unwrap_or_default();
        let standing = epochs.learn(epoch, forks);
        if standing.is_some() {
            self.source_epochs.put(source.clone(), epochs);
        }
        if standing == Some(EpochStatus::Fork) {
            self.list_restored(source, epoch, 0, now);
        }
    }

    pub(super) fn change_restored_source(
        &mut self,
        change: RestoredSourceChange,
        known_dead_letters: &HashSet<DeadLetterId>,
        now: Timestamp,
    ) {
        match change {
            RestoredSourceChange::Found {
                source,
                epoch,
                dead,
            } if !known_dead_letters.contains(&dead) => self.list_restored(source, epoch, 1, now),
            RestoredSourceChange::Found { .. } => {}
            RestoredSourceChange::Accept(source) => {
                self.restored_sources.remove(&source);
            }
        }
    }

    fn list_restored(&mut self, source: Source, epoch: Epoch, conflicts: u64, now: Timestamp) {
        let listed = self.restored_sources.get(&source).cloned();
        if listed.is_none() && self.restored_sources.len() >= MAX_RESTORED_SOURCES {
            return;
        }
        let mut row = listed.unwrap_or(RestoredSource {
            source: source.clone(),
            since: now,
            last: now,
            epoch,
            conflicts: 0,
        });
        row.last = now;
        row.epoch = epoch;
        row.conflicts += conflicts;
        self.restored_sources.put(source, row);
    }

    pub(in crate::memory) fn restored_sources(&self) -> Vec<RestoredSource> {
        let rows = self.restored_sources.iter().map(|(_, row)| row.clone());
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| (a.since, &a.source).cmp(&(b.since, &b.source)));
        rows
    }
}
