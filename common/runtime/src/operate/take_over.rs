//! The record that the queues of a role were given to its store.

use bytes::Bytes;
use doorstep_store::{AuditAction, NewAudit, Result, Store, WriteSet};

use super::operator::Attribution;

/// Records in a store that it has taken over the queues of its role, with the former owner, if there was one, and the
/// new owner, each in JSON.
///
/// # Errors
/// The store could not be used.
pub async fn record_take_over<S: Store>(
    store: &S,
    queue: &str,
    before: Option<Bytes>,
    after: Bytes,
    by: impl Into<Attribution>,
) -> Result<()> {
    let by = by.into();
    let mut changes = WriteSet::at(by.at);
    changes.audit.push(NewAudit {
        before,
        after: Some(after),
        ..by.record(AuditAction::TakeOver, queue)
    });
    // The changes depend on no row that was read, so there can be no conflict.
    store.commit(changes).await.map(drop)
}
