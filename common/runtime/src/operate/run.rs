//! Replays of many dead letters that can be resumed after an interruption: the audit tells when an unfinished run
//! began.
//!
//! A dead letter rejected again during a run is a new one, and younger than the run. So leaving out those younger than
//! the run's start is enough to replay each at most once, in however many pieces the run is done.

use doorstep_event::Timestamp;
use doorstep_store::{AuditAction, AuditFilter, Result, Store, WriteSet};

use super::Attribution;

/// A run of replays that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRun {
    /// The start of the run. Younger dead letters are not part of it.
    pub started: Timestamp,
    /// Set if an earlier run is resumed.
    pub resumed: bool,
    about: String,
}

/// Starts to replay a selection, or resumes an interrupted run of the same one. `chosen` describes the selection,
/// always in the same words.
///
/// # Errors
/// The store could not be used.
pub async fn start_replay<S: Store>(
    store: &S,
    chosen: &str,
    by: impl Into<Attribution>,
) -> Result<ReplayRun> {
    let by = by.into();
    let about = format!("run {chosen}");
    let filter = AuditFilter::About(about.clone());
    let last = store.audit(filter, None, 1).await?.rows.into_iter().next();
    if let Some(last) = last
        && last.entry.action == AuditAction::RunBegun
    {
        return Ok(ReplayRun {
            started: last.at,
            resumed: true,
            about,
        });
    }
    audit_run(store, &about, AuditAction::RunBegun, &by).await?;
    Ok(ReplayRun {
        started: by.at,
        resumed: false,
        about,
    })
}

/// Records that the whole selection has been replayed, so that the next run of the same one starts anew. The reason of
/// `by` may sum up the run.
///
/// # Errors
/// The store could not be used.
pub async fn end_replay<S: Store>(
    store: &S,
    run: &ReplayRun,
    by: impl Into<Attribution>,
) -> Result<()> {
    audit_run(store, &run.about, AuditAction::RunEnded, &by.into()).await
}

async fn audit_run<S: Store>(
    store: &S,
    about: &str,
    action: AuditAction,
    by: &Attribution,
) -> Result<()> {
    let mut changes = WriteSet::at(by.at);
    changes.audit.push(by.record(action, about));
    // The changes depend on no row that was read, so there can be no conflict.
    store.commit(changes).await.map(drop)
}
