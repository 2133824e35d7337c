//! Transfers of a source to another broker user, as after a program's user was renamed.

use doorstep_event::{BrokerUser, Source};
use doorstep_store::{AuditAction, NewAudit, OwnerChange, SourceOwner, Store, WriteSet};

use super::{ATTEMPTS, Attribution, OperateError, owner_row, written};

/// The treatment of the former owner after a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// Its events are accepted for another [`Limits::former_owner_grace`](crate::Limits::former_owner_grace): they may
    /// still be queued.
    Accepted,
    /// Its events are rejected from now on.
    Refused,
}

/// Makes a user the owner of a source. Returns the former owner, if there was one.
///
/// # Errors
/// [`OperateError::UnknownSource`] if the store has no such source; [`OperateError::OwnedAlready`] if the user already
/// owns it.
pub async fn transfer<S: Store>(
    store: &S,
    source: &Source,
    to: &BrokerUser,
    former: Former,
    by: impl Into<Attribution>,
) -> Result<Option<BrokerUser>, OperateError> {
    let by = by.into();
    for _ in 0..ATTEMPTS {
        let row = owner_row(store, source).await?;
        let Some(owner) = row.owner else {
            return Err(OperateError::UnknownSource(source.clone()));
        };
        let is_owner = owner.user.as_ref() == Some(to);
        if is_owner && (former == Former::Accepted || owner.former.is_none()) {
            return Err(OperateError::OwnedAlready {
                source_name: source.clone(),
                user: to.clone(),
            });
        }
        let before = owner.user.clone();
        let after = match former {
            Former::Accepted => owner.succeeded_by(to.clone(), by.at),
            Former::Refused => SourceOwner::first(Some(to.clone()), by.at),
        };
        let mut changes = WriteSet::at(by.at);
        changes.audit.push(NewAudit {
            before: before.as_ref().map(|user| user.to_string().into()),
            after: Some(to.to_string().into()),
            ..by.record(AuditAction::Transfer, source.to_string())
        });
        changes.owners.push(OwnerChange {
            source: source.clone(),
            expect: row.version,
            after: Some(after),
        });
        if written(store, changes).await? {
            return Ok(before);
        }
    }
    Err(OperateError::Busy(source.to_string()))
}
