//! Trying a dead letter again.

use doorstep_event::Event;
use doorstep_store::{
    AuditAction, Changes, DeadFate, DeadId, DeadRow, DeadStatus, HeldReason, NewHeld, Store,
    StreamState,
};

use super::{ATTEMPTS, By, OperateError, blocked_stream, changed, found, record, written};
use crate::dead_letter::reason;

/// Makes a dead letter due again: the role will try it, and what follows it in its stream, within moments.
///
/// # Errors
/// See [`OperateError`].
pub async fn replay<S: Store>(
    store: &S,
    id: &DeadId,
    by: impl Into<By>,
) -> Result<(), OperateError> {
    let by = by.into();
    let now = by.at;
    for _ in 0..ATTEMPTS {
        let dead = found(store, id, &[DeadStatus::Open]).await?;
        let event = replayable(&dead)?.clone();
        let mut changes = Changes::at(now);
        if dead.blocks {
            let stream = blocked_stream(store, &dead, &event).await?;
            changes.streams.push(changed(
                &stream,
                StreamState {
                    cursor: stream.cursor,
                    last_id: stream.last_id.clone(),
                    blocked: stream.blocked.clone(),
                    epoch: stream.epoch,
                },
            ));
        }
        changes.audit.push(record(&by, AuditAction::Replay, &dead));
        changes.hold.push(NewHeld {
            event,
            defect: dead.defect.clone(),
            reason: HeldReason::Replay(id.clone()),
            due: Some(now),
            attempts: dead.attempts,
            since: now,
        });
        changes
            .settle
            .push((id.clone(), DeadStatus::Open, DeadFate::Replaying));
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(id.to_string()))
}

/// Whether processes have died of it, rather than that a handler has refused it. A role tries such a thing under a trial; in any other
/// process it may end that process.
#[must_use]
pub fn is_poison(dead: &DeadRow) -> bool {
    dead.reason == reason::POISON
}

/// The event that a replay of a dead letter would try.
///
/// # Errors
/// [`OperateError::NotReplayable`] where there is none, or where it has no place any more.
pub fn replayable(dead: &DeadRow) -> Result<&Event, OperateError> {
    let not = |why| OperateError::NotReplayable {
        id: dead.id.clone(),
        why,
    };
    match &dead.event {
        None => Err(not("it could not be read as an event")),
        Some(event) if !dead.blocks && event.sequence.is_some() => {
            Err(not("another event has taken its number"))
        }
        Some(event) => Ok(event),
    }
}
