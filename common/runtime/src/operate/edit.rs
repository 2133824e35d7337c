//! Edits of a dead letter's data. Only the role sees the new data: nothing is published, and the original is kept.

use bytes::Bytes;
use doorstep_event::MAX_DATA_BYTES;
use doorstep_store::{
    AuditAction, DeadLetter, DeadLetterEdit, DeadLetterStatus, NewAudit, Store, WriteSet,
};

use super::{ATTEMPTS, Attribution, OperateError, found, record, replayable, written};

/// The kind of an edit in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// By hand or by a patch.
    Edit,
    /// Read back from an export.
    Import,
}

/// Replaces the data of a dead letter as it was read by `after`. Source, subject, sequence and id cannot be changed.
/// [`crate::Engine::dry_run`] tells whether the handler would accept the data, and should be called first.
///
/// # Errors
/// See [`OperateError`]; [`OperateError::EditedMeanwhile`] if the data is no longer as it was read.
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
