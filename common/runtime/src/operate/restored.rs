//! Restored stores: their acceptance by an operator, and the record of a new source.

use doorstep_event::Source;
use doorstep_store::{AuditAction, RestoredChange, RestoredSourceChange, Result, Store, WriteSet};

use super::operator::Attribution;

/// Accepts that the role's store was restored or, with `source`, that the store of a source was. Returns whether there
/// was something to accept; otherwise nothing is written.
///
/// # Errors
/// The store could not be used.
pub async fn accept_restored<S: Store>(
    store: &S,
    source: Option<&Source>,
    by: impl Into<Attribution>,
) -> Result<bool> {
    let by = by.into();
    let summary = store.summary(by.at).await?;
    let is_listed = match source {
        None => summary.restored.is_some(),
        Some(source) => summary.restored_sources.iter().any(|s| s.source == *source),
    };
    if !is_listed {
        return Ok(false);
    }
    let about = source.map_or_else(|| "store".to_owned(), Source::to_string);
    let mut changes = record_of(AuditAction::AcceptRestored, about, &by);
    match source {
        None => changes.restored = Some(RestoredChange::Accept),
        Some(source) => changes
            .restored_sources
            .push(RestoredSourceChange::Accept(source.clone())),
    }
    // The changes depend on no row that was read, so there can be no conflict.
    store.commit(changes).await?;
    Ok(true)
}

/// Builds the record that a store gets a source of its own.
#[must_use]
pub fn record_of_new_source(by: impl Into<Attribution>) -> WriteSet {
    record_of(AuditAction::MintSource, "source".to_owned(), &by.into())
}

fn record_of(action: AuditAction, about: String, by: &Attribution) -> WriteSet {
    WriteSet {
        audit: vec![by.record(action, about)],
        ..WriteSet::at(by.at)
    }
}
