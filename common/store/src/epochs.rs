//! Epochs: the store's own, one for each start of a role on it, and those of the sources that the role consumes.

use std::collections::BTreeMap;

use doorstep_event::{Epoch, EventId, Source, Timestamp};
use serde::Serialize;

/// The number of a store's own epochs that are kept: the newest.
pub const MAX_OWN_EPOCHS: usize = 1_000;

/// The number of epochs kept for each source that the role consumes: the newest.
pub const MAX_SOURCE_EPOCHS: usize = 1_000;

/// The maximum number of sources listed as restored or copied.
pub const MAX_RESTORED_SOURCES: usize = 100;

/// The maximum of characters kept of [`Restored::detail`].
const MAX_DETAIL: usize = 1_000;

/// An epoch of the store itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnEpoch {
    pub epoch: Epoch,
    /// The time when it began, by the clock of the process that began it.
    pub since: Timestamp,
}

/// The store's own epochs, the newest first, at most [`MAX_OWN_EPOCHS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnEpochs(pub Vec<OwnEpoch>);

impl OwnEpochs {
    /// Returns the latest epoch, which is stored with every sequence that the next commit emits.
    #[must_use]
    pub fn latest(&self) -> Option<Epoch> {
        self.0.first().map(|own| own.epoch)
    }

    /// Returns true if an epoch is this store's. An epoch older than all kept ones is assumed to be.
    #[must_use]
    pub fn knows(&self, epoch: Epoch) -> bool {
        let same = |own: &OwnEpoch| own.epoch.counter() == epoch.counter();
        match self.0.iter().find(|own| same(own)) {
            Some(own) => own.epoch == epoch,
            None => {
                self.0.len() >= MAX_OWN_EPOCHS
                    && self
                        .0
                        .last()
                        .is_some_and(|oldest| epoch.counter() < oldest.epoch.counter())
            }
        }
    }
}

/// The mark of a store that was restored from a backup or copied. It stays until an operator accepts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The time of the restore or of its detection.
    pub since: Timestamp,
    /// The evidence: at most 1,000 characters.
    pub detail: String,
}

/// A change of the mark [`Restored`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoredChange {
    /// Marks the store with this evidence. A marked store keeps its first mark.
    Mark(String),
    Accept,
}

impl RestoredChange {
    /// Returns the evidence, truncated to its maximum; `None` if the mark is removed.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::Mark(detail) => Some(detail.chars().take(MAX_DETAIL).collect()),
            Self::Accept => None,
        }
    }
}

/// The relation of an epoch to the earlier epochs of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochStatus {
    /// Newer than all known epochs.
    InLine,
    /// Older than the newest known epoch. A delayed event of one lineage looks like that, and so may an event of a
    /// restored store.
    Late,
    /// Of another lineage: the same counter has two epochs, or a stream's epoch went back.
    Fork,
}

/// The known epochs of a source: those of its events that a role has applied or deferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceEpochs(BTreeMap<Epoch, EpochStatus>);

impl SourceEpochs {
    /// Returns the status of an epoch, `None` if it is unknown. One older than all kept ones counts as in line.
    #[must_use]
    pub fn standing(&self, epoch: Epoch) -> Option<EpochStatus> {
        let older = || {
            let oldest = self.0.keys().next()?;
            let forgotten = self.0.len() >= MAX_SOURCE_EPOCHS && epoch < *oldest;
            forgotten.then_some(EpochStatus::InLine)
        };
        self.0.get(&epoch).copied().or_else(older)
    }

    /// Records an epoch; `forks` if it is proven to be of another lineage. Returns its status if that changed.
    pub fn learn(&mut self, epoch: Epoch, forks: bool) -> Option<EpochStatus> {
        let standing = match self.standing(epoch) {
            None if forks || self.has_another(epoch) => EpochStatus::Fork,
            None => match self.0.keys().next_back() {
                Some(newest) if epoch < *newest => EpochStatus::Late,
                _ => EpochStatus::InLine,
            },
            Some(EpochStatus::InLine | EpochStatus::Late) if forks => EpochStatus::Fork,
            Some(_) => return None,
        };
        self.put(epoch, standing);
        Some(standing)
    }

    fn has_another(&self, epoch: Epoch) -> bool {
        let (first, last) = (
            Epoch::new(epoch.counter(), 0),
            Epoch::new(epoch.counter(), u64::MAX),
        );
        let (Some(first), Some(last)) = (first, last) else {
            return false;
        };
        self.0.range(first..=last).any(|(other, _)| *other != epoch)
    }

    pub(crate) fn put(&mut self, epoch: Epoch, standing: EpochStatus) {
        self.0.insert(epoch, standing);
        if self.0.len() > MAX_SOURCE_EPOCHS {
            self.0.pop_first();
        }
    }
}

/// The epoch of the last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEpoch {
    /// The epoch of the event at the cursor.
    pub epoch: Epoch,
    /// The first sequence of the stream applied under this epoch. All later ones up to the cursor were numbered under
    /// it, too.
    pub from: u64,
    /// True if events before `from` were skipped unseen, so their epochs are unknown.
    pub after_gap: bool,
}

/// Returns the epoch of a stream after its next event. `last_id` is `None` if a gap was skipped or nothing was applied
/// yet. An event without an epoch leaves the stream without one.
#[must_use]
pub fn stream_epoch(
    before: Option<StreamEpoch>,
    cursor: u64,
    last_id: Option<&EventId>,
    next: Option<Epoch>,
) -> Option<StreamEpoch> {
    let after_gap = before.is_some_and(|at| at.after_gap) || (cursor > 0 && last_id.is_none());
    let epoch = next?;
    match before {
        Some(at) if at.epoch == epoch && at.after_gap == after_gap => Some(at),
        _ => Some(StreamEpoch {
            epoch,
            from: cursor.saturating_add(1),
            after_gap,
        }),
    }
}

/// A source found to be restored from a backup or copied. It is listed until an operator accepts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredSource {
    pub source: Source,
    /// The time of the first detection.
    pub since: Timestamp,
    /// The time of the last detection.
    pub last: Timestamp,
    /// The epoch of the event detected last.
    #[serde(serialize_with = "as_text")]
    pub epoch: Epoch,
    /// The number of its events that were dead-lettered for a numbering conflict.
    pub conflicts: u64,
}

fn as_text<S: serde::Serializer>(epoch: &Epoch, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(epoch)
}

/// An epoch of a source under which an event was applied or deferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedEpoch {
    pub source: Source,
    pub epoch: Epoch,
    /// True if it is proven to be of another lineage than the earlier ones.
    pub forks: bool,
}

/// A change to the list of restored sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoredSourceChange {
    /// An event conflicts with the numbering of its source. No change if its dead letter exists already.
    Found {
        source: Source,
        epoch: Epoch,
        /// The event's dead letter, which the same changes write.
        dead: crate::DeadLetterId,
    },
    /// An operator has accepted it.
    Accept(Source),
}

pub(crate) fn next(latest: Option<Epoch>, random: u64) -> Option<Epoch> {
    let counter = latest.map_or(0, Epoch::counter).checked_add(1)?;
    Epoch::new(counter, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_epochs_of_one_counter_are_a_fork() {
        let epoch = |counter, random| Epoch::new(counter, random).unwrap();
        let mut had = SourceEpochs::default();
        assert_eq!(had.learn(epoch(3, 1), false), Some(EpochStatus::InLine));
        assert_eq!(had.learn(epoch(3, 1), false), None);
        assert_eq!(had.learn(epoch(2, 9), false), Some(EpochStatus::Late));
        assert_eq!(had.learn(epoch(4, 1), false), Some(EpochStatus::InLine));
        assert_eq!(had.learn(epoch(3, 2), false), Some(EpochStatus::Fork));
        assert_eq!(had.learn(epoch(3, 2), true), None);
        assert_eq!(had.learn(epoch(2, 9), true), Some(EpochStatus::Fork));
        assert_eq!(had.standing(epoch(2, 9)), Some(EpochStatus::Fork));
        assert_eq!(had.standing(epoch(1, 1)), None);
    }

    #[test]
    fn the_newest_epochs_of_a_source_are_kept() {
        let epoch = |counter| Epoch::new(counter, 1).unwrap();
        let mut had = SourceEpochs::default();
        let last = 10 + MAX_SOURCE_EPOCHS as u64;
        for counter in 1..=last {
            had.learn(epoch(counter), false);
        }
        assert_eq!(had.0.len(), MAX_SOURCE_EPOCHS);
        assert_eq!(had.standing(epoch(1)), Some(EpochStatus::InLine));
        assert_eq!(had.learn(epoch(1), false), None);
        let other = Epoch::new(last, 2).unwrap();
        assert_eq!(had.standing(other), None);
    }

    #[test]
    fn a_stream_keeps_where_its_epoch_began() {
        let epoch = |counter| Epoch::new(counter, 1);
        let id = EventId::new("a").unwrap();
        let first = stream_epoch(None, 0, None, epoch(1)).unwrap();
        assert_eq!((first.from, first.after_gap), (1, false));
        let same = stream_epoch(Some(first), 7, Some(&id), epoch(1));
        assert_eq!(same, Some(first));
        let next = stream_epoch(same, 8, Some(&id), epoch(2)).unwrap();
        assert_eq!((next.from, next.after_gap), (9, false));
        let beyond = stream_epoch(Some(next), 20, None, epoch(2)).unwrap();
        assert_eq!((beyond.from, beyond.after_gap), (21, true));
        assert_eq!(stream_epoch(Some(next), 20, Some(&id), None), None);
    }

    #[test]
    fn an_epoch_older_than_all_counts_as_known() {
        let own = |counters: std::ops::Range<u64>| {
            OwnEpochs(
                counters
                    .rev()
                    .map(|counter| OwnEpoch {
                        epoch: Epoch::new(counter, counter).unwrap(),
                        since: Timestamp::UNIX_EPOCH,
                    })
                    .collect(),
            )
        };
        let epoch = |counter, random| Epoch::new(counter, random).unwrap();
        let few = own(5..9);
        assert_eq!(few.latest(), Some(epoch(8, 8)));
        assert!(few.knows(epoch(8, 8)) && few.knows(epoch(5, 5)));
        assert!(!few.knows(epoch(8, 7)) && !few.knows(epoch(9, 9)) && !few.knows(epoch(4, 4)));
        let many = own(5..5 + MAX_OWN_EPOCHS as u64);
        assert!(many.knows(epoch(4, 0)) && !many.knows(epoch(5, 0)));
        assert!(!OwnEpochs::default().knows(epoch(1, 1)));
    }
}
