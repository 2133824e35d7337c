//! Putting other data in place of a dead letter's. Only the role sees it: nothing is published, and what came first is kept.

use bytes::Bytes;
use doorstep_event::MAX_DATA_BYTES;
use doorstep_store::{
    AuditAction, DeadLetter, DeadLetterEdit, DeadLetterStatus, NewAudit, Store, WriteSet,
};

use super::{ATTEMPTS, Attribution, OperateError, found, record, replayable, written};

/// How an edit is called in the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// By hand or by a patch.
    Edit,
    /// Read back from what was exported.
    Import,
}

/// Puts `after` in place of the data of a dead letter as it was looked at. Source, subject, sequence and id cannot be changed: they
/// are not given. Whether a handler would take the data is told by [`crate::Engine::dry_run`], which is to be asked before.
///
/// # Errors
/// See [`OperateError`]; [`OperateError::EditedMeanwhile`] where the data is no longer what was looked at.
pub async fn edit<S: Store>(
    store: &S,
    dead: &DeadLetter,
    after: Bytes,
    how: Edit,
    by: impl Into<Attribution>,
) -> Result<(), OperateError> {
    let by = by.into();
    let before = replayable(dead)?.data.clone();
    if after.len() > MAX_DATA_BYTES {
        return Err(OperateError::NotReplayable {
            id: dead.id.clone(),
            why: "its new data has more than 1 MiB",
        });
    }
    let action = match how {
        Edit::Edit => AuditAction::Edit,
        Edit::Import => AuditAction::Import,
    };
    for _ in 0..ATTEMPTS {
        let now = found(store, &dead.id, &[DeadLetterStatus::Open]).await?;
        if replayable(&now)?.data != before {
            return Err(OperateError::EditedMeanwhile(dead.id.clone()));
        }
        let mut changes = WriteSet::at(by.at);
        changes.edit.push(DeadLetterEdit {
            id: dead.id.clone(),
            before: before.clone(),
            after: after.clone(),
        });
        changes.audit.push(NewAudit {
            before: Some(before.clone()),
            after: Some(after.clone()),
            ..record(&by, action, dead)
        });
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(dead.id.to_string()))
}
