//! A cache of the epochs of sources, and the meaning of an epoch for an event whose sequence is taken.

use std::collections::HashMap;

use doorstep_event::{Epoch, Sequence, Source};
use doorstep_store::{EpochStatus, LearnedEpoch, SourceEpochs, StreamState};

/// The maximum of sources whose epochs are cached; beyond it, the cache is cleared and filled again.
const MAX_SOURCES: usize = 1_000;

/// Epochs of sources. Their rows are only ever added, so the cache may be incomplete but never wrong.
#[derive(Default)]
pub(super) struct KnownEpochs {
    sources: HashMap<Source, SourceEpochs>,
    /// The last epoch found: mostly the next event has the same.
    recent: Option<(Source, Epoch)>,
}

impl KnownEpochs {
    /// Returns whether the source is known to have had this epoch. If it returns false, the store has to be read.
    pub(super) fn has(&mut self, source: &Source, epoch: Epoch) -> bool {
        if let Some((recent, same)) = &self.recent
            && *same == epoch
            && recent == source
        {
            return true;
        }
        let known = self.sources.get(source);
        let has = known.is_some_and(|epochs| epochs.standing(epoch).is_some());
        if has {
            self.recent = Some((source.clone(), epoch));
        }
        has
    }

    pub(super) fn fill(&mut self, source: &Source, epochs: SourceEpochs) {
        if self.sources.len() >= MAX_SOURCES {
            self.sources.clear();
            self.recent = None;
        }
        self.sources.insert(source.clone(), epochs);
    }

    /// Takes in the epoch of an event that is applied or deferred. Returns the change to store, if the epoch is new.
    pub(super) fn learn(
        &mut self,
        source: &Source,
        epoch: Epoch,
        forks: bool,
    ) -> Option<LearnedEpoch> {
        if !forks && self.has(source, epoch) {
            return None;
        }
        let known = self.sources.entry(source.clone()).or_default();
        known.learn(epoch, forks)?;
        Some(LearnedEpoch {
            source: source.clone(),
            epoch,
            forks,
        })
    }

    fn is_in_line(&self, source: &Source, epoch: Epoch) -> bool {
        let known = self.sources.get(source);
        known.and_then(|epochs| epochs.standing(epoch)) == Some(EpochStatus::InLine)
    }

    /// Returns whether an event at or below the cursor of its stream is the one that was applied there, as far as
    /// epochs tell.
    ///
    /// Within one lineage, the epochs of a stream never go back. So all events since `from` have the cursor's epoch.
    /// Earlier ones have an older epoch, which the source is known to have had since its event was applied.
    pub(super) fn is_same(
        &self,
        source: &Source,
        stream: &StreamState,
        sequence: Sequence,
        epoch: Epoch,
    ) -> bool {
        // The events of a skipped gap were never seen.
        let is_skipped = stream.last_id.is_none();
        let Some(at) = stream.epoch else {
            return is_skipped;
        };
        if is_skipped || sequence.get() >= at.from {
            return is_skipped || epoch == at.epoch;
        }
        if at.after_gap {
            return epoch.counter() < at.epoch.counter() || epoch == at.epoch;
        }
        epoch.counter() < at.epoch.counter() && self.is_in_line(source, epoch)
    }
}

/// Returns whether two events with the same id and sequence are the same, as far as epochs tell.
pub(super) fn are_same(one: Option<Epoch>, other: Option<Epoch>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}
