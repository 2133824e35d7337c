//! Replaying many so that whoever is interrupted can go on: the records tell when a run began that has not come to its end.
//!
//! A dead letter that is refused anew while a run goes on is a new one, and younger than the run. Leaving out what is younger than the
//! beginning is therefore all that it takes to replay each at most once, in however many pieces the run is done.

use doorstep_event::Timestamp;
use doorstep_store::{AuditAction, AuditFilter, NewAudit, Store, StoreError, WriteSet};

use super::Attribution;

/// A run that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRun {
    /// When. What died later is none of its business.
    pub begun: Timestamp,
    /// Whether it was begun before and is now gone on with.
    pub resumed: bool,
    about: String,
}

/// Begins to replay what is chosen, or goes on where somebody who chose the same was interrupted. `chosen` says what, and is the same
/// whenever the same is chosen.
///
/// # Errors
/// The store could not be used.
pub async fn start_replay<S: Store>(
    store: &S,
    chosen: &str,
    by: impl Into<Attribution>,
) -> Result<ReplayRun, StoreError> {
    let by = by.into();
    let about = format!("run {chosen}");
    let filter = AuditFilter::About(about.clone());
    let last = store.audit(filter, None, 1).await?.rows.into_iter().next();
    if let Some(last) = last
        && last.entry.action == AuditAction::RunBegun
    {
        return Ok(ReplayRun {
            begun: last.at,
            resumed: true,
            about,
        });
    }
    audit_run(store, &about, AuditAction::RunBegun, &by).await?;
    Ok(ReplayRun {
        begun: by.at,
        resumed: false,
        about,
    })
}

/// Notes that all that was chosen has been replayed: whoever chooses the same again begins anew. The reason of `by` may sum it up.
///
/// # Errors
/// The store could not be used.
pub async fn end_replay<S: Store>(
    store: &S,
    run: &ReplayRun,
    by: impl Into<Attribution>,
) -> Result<(), StoreError> {
    audit_run(store, &run.about, AuditAction::RunEnded, &by.into()).await
}

async fn audit_run<S: Store>(
    store: &S,
    about: &str,
    action: AuditAction,
    by: &Attribution,
) -> Result<(), StoreError> {
    let mut changes = WriteSet::at(by.at);
    changes.audit.push(NewAudit {
        operator: by.operator.to_string(),
        action,
        about: about.to_owned(),
        dead: None,
        stream: None,
        sequences: None,
        reason: by.reason.clone(),
        before: None,
        after: None,
    });
    // It rests on nothing that was read, so it cannot meet a conflict.
    store.commit(changes).await.map(drop)
}
