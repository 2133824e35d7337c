//! The epochs of a store: one for each start of a role on it.

use doorstep_event::{Epoch, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::{Changes, Commit, Store, StoreError};

/// The number of its own epochs that a store keeps: the newest.
pub const MAX_OWN_EPOCHS: usize = 1_000;

/// The most characters of [`Restored::detail`] that are kept.
const MAX_DETAIL: usize = 1_000;

/// An epoch of the store itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// When it began, by the clock of the process that began it.
    pub since: Timestamp,
}

/// The store's own epochs, the newest first, at most [`MAX_OWN_EPOCHS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnEpochs(pub Vec<OwnEpoch>);

impl OwnEpochs {
    /// Returns the latest epoch: the one that is stored with what the next commit numbers.
    #[must_use]
    pub fn latest(&self) -> Option<Epoch> {
        self.0.first().map(|own| own.epoch)
    }

    /// Tells whether an epoch is this store's. An epoch older than all that are kept is taken for one.
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

/// The mark of a store that was restored from a backup or copied, until an operator accepts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// When this was found, or done.
    pub since: Timestamp,
    /// How it was found: at most 1,000 characters.
    pub detail: String,
}

/// A change of the mark [`Restored`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoredChange {
    /// Marks the store, for this reason. A store that is marked already keeps its first mark.
    Mark(String),
    /// Removes the mark.
    Accept,
}

impl RestoredChange {
    /// The reason in its bound, `None` if the mark is removed.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::Mark(detail) => Some(detail.chars().take(MAX_DETAIL).collect()),
            Self::Accept => None,
        }
    }
}

/// Begins an epoch of the store. Each start of a role does so, before it numbers an event; a command that only reads or resolves does not.
///
/// Every event that a commit numbers from then on carries it, whichever process commits. With several processes on one store the epochs
/// of a stream therefore never go back.
///
/// # Errors
/// As [`Store::commit`].
pub async fn begin_epoch<S: Store>(store: &S, now: Timestamp) -> Result<Epoch, StoreError> {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half has fixed bits; turned, they meet random ones.
    let random = high ^ low.rotate_left(32);
    let changes = Changes {
        begin_epoch: Some(random),
        ..Changes::at(now)
    };
    if let Commit::Written(written) = store.commit(changes).await?
        && let Some(epoch) = written.epoch
    {
        return Ok(epoch);
    }
    Err(StoreError::Unavailable {
        store: store.source().to_string(),
        detail: "no epoch could be begun; try again".to_owned(),
    })
}

/// The epoch that follows.
pub(crate) fn next(latest: Option<Epoch>, random: u64) -> Option<Epoch> {
    let counter = latest.map_or(0, Epoch::counter).checked_add(1)?;
    Epoch::new(counter, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_all_that_is_kept_counts_as_known() {
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
