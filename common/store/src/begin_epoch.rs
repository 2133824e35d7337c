//! The beginning of an epoch.

use doorstep_event::{Epoch, Timestamp};
use uuid::Uuid;

use crate::{Commit, Result, Store, StoreError, WriteSet};

/// Begins an epoch of the store. Each start of a role does so before it numbers an event; a command that only reads or
/// resolves does not.
///
/// Every event numbered by a later commit carries this epoch, whichever process commits. So the epochs of a stream
/// never go back, even with several processes on one store.
///
/// # Errors
/// As [`Store::commit`].
pub async fn begin_epoch<S: Store>(store: &S, now: Timestamp) -> Result<Epoch> {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half of a UUID has fixed bits; the rotation moves them onto random bits of the other half.
    let random = high ^ low.rotate_left(32);
    let changes = WriteSet {
        begin_epoch: Some(random),
        ..WriteSet::at(now)
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
