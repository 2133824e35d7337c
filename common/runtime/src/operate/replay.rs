//! Replays of dead letters.

use doorstep_event::{Event, Sequence};
use doorstep_store::{
    AuditAction, DeadLetter, DeadLetterId, DeadLetterStatus, DeferReason, IfLive, LearnedEpoch,
    NewDeferred, NewTask, OwnerChange, ReadSet, Resolution, Result, Store, StoreError,
    StreamChange, StreamRow, StreamState, TaskChange, TaskId, WriteSet,
};

use super::{
    ATTEMPTS, Attribution, OperateError, blocked_stream, changed, found, owner_row, record, written,
};
use crate::{
    dead_letter::reason,
    engine::{is_foreign, is_from_owner},
};

/// Makes a dead letter due again: the role processes it, and its successors in the stream, within moments.
///
/// An event of another user's source is replayed only if its sender owns the source by now. It then takes its position
/// in its stream as if it were just delivered, and waits there for missing predecessors.
///
/// A task that has failed starts again under its id, with the present data as its input.
///
/// # Errors
/// See [`OperateError`].
pub async fn replay<S: Store>(
    store: &S,
    id: &DeadLetterId,
    by: impl Into<Attribution>,
) -> Result<(), OperateError> {
    let by = by.into();
    let now = by.at;
    for _ in 0..ATTEMPTS {
        let dead = found(store, id, &[DeadLetterStatus::Open]).await?;
        let event = replayable(&dead)?.clone();
        let mut changes = WriteSet::at(now);
        changes.audit.push(record(&by, AuditAction::Replay, &dead));
        if let Some(task) = &dead.task {
            start_again(store, &dead, task, event, &mut changes).await?;
            if written(store, changes).await? {
                return Ok(());
            }
            continue;
        }
        if is_foreign(&dead) {
            check_owner(store, &dead, &event, &mut changes).await?;
            if let Some(sequence) = event.sequence {
                take_place(store, &dead, event, sequence, &mut changes).await?;
                if written(store, changes).await? {
                    return Ok(());
                }
                continue;
            }
        }
        if dead.blocks {
            let stream = blocked_stream(store, &dead, &event).await?;
            changes.streams.push(raised(&stream));
        }
        changes.defer.push(NewDeferred {
            event,
            defect: dead.defect.clone(),
            reason: DeferReason::Replay(id.clone()),
            due: Some(now),
            attempts: dead.attempts,
            since: now,
        });
        changes
            .resolve
            .push((id.clone(), DeadLetterStatus::Open, Resolution::Replaying));
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(id.to_string()))
}

/// Starts a task that has failed, and resolves its dead letter.
async fn start_again<S: Store>(
    store: &S,
    dead: &DeadLetter,
    task: &TaskId,
    event: Event,
    changes: &mut WriteSet,
) -> Result<(), OperateError> {
    if store.read_tasks(vec![task.clone()]).await? != [None] {
        return Err(OperateError::NotReplayable {
            id: dead.id.clone(),
            why: "its task was started again and is live",
        });
    }
    changes.tasks.push(TaskChange::Start(NewTask {
        id: task.clone(),
        kind: event.event_type,
        subject: event.subject,
        traceparent: event.traceparent,
        input: event.data,
        dead: dead.attempts,
        if_live: IfLive::Conflict,
    }));
    changes
        .resolve
        .push((dead.id.clone(), DeadLetterStatus::Open, Resolution::Gone));
    Ok(())
}

/// Returns a change that raises the version of a stream and nothing else.
fn raised(stream: &StreamRow) -> StreamChange {
    let after = StreamState {
        cursor: stream.cursor,
        last_id: stream.last_id.clone(),
        blocked: stream.blocked.clone(),
        epoch: stream.epoch,
    };
    changed(stream, after)
}

/// Makes the changes depend on the source's owner, who has to be the event's sender.
async fn check_owner<S: Store>(
    store: &S,
    dead: &DeadLetter,
    event: &Event,
    changes: &mut WriteSet,
) -> Result<(), OperateError> {
    let row = owner_row(store, &event.source).await?;
    if !is_from_owner(dead, row.owner.as_ref()) {
        return Err(OperateError::Foreign {
            id: dead.id.clone(),
            source_name: event.source.clone(),
        });
    }
    changes.owners.push(OwnerChange {
        source: event.source.clone(),
        expect: row.version,
        after: None,
    });
    Ok(())
}

/// Defers an event at a position that it had not taken in its stream before, and resolves its dead letter.
async fn take_place<S: Store>(
    store: &S,
    dead: &DeadLetter,
    event: Event,
    sequence: Sequence,
    changes: &mut WriteSet,
) -> Result<(), OperateError> {
    let BlockedPosition { stream, is_free } = place(store, &event, sequence).await?;
    if !is_free {
        return Err(OperateError::NotReplayable {
            id: dead.id.clone(),
            why: "another event has taken its sequence",
        });
    }
    let is_next = sequence.get() == stream.cursor + 1;
    let now = changes.now;
    changes.streams.push(raised(&stream));
    if let Some(epoch) = event.epoch {
        changes.learned.push(LearnedEpoch {
            source: event.source.clone(),
            epoch,
            forks: false,
        });
    }
    changes.defer.push(NewDeferred {
        event,
        defect: dead.defect.clone(),
        reason: DeferReason::OutOfOrder,
        due: is_next.then_some(now),
        attempts: 0,
        since: now,
    });
    changes
        .resolve
        .push((dead.id.clone(), DeadLetterStatus::Open, Resolution::Gone));
    Ok(())
}

/// The position of an event in its stream.
pub(crate) struct BlockedPosition {
    pub(crate) stream: StreamRow,
    /// True if no other event has it.
    pub(crate) is_free: bool,
}

/// Reads the position of an event.
pub(crate) async fn place<S: Store>(
    store: &S,
    event: &Event,
    sequence: Sequence,
) -> Result<BlockedPosition> {
    let ask = ReadSet {
        streams: vec![event.stream()],
        deferred_at: vec![(event.stream(), sequence)],
        ..ReadSet::default()
    };
    let mut loaded = store.load(ask).await?;
    let deferred = loaded.deferred_at.pop().flatten();
    let stream = loaded.streams.pop().ok_or_else(|| StoreError::Unusable {
        store: store.source().to_string(),
        detail: format!("it tells nothing of the stream {}", event.stream()),
    })?;
    let is_blocker = stream.blocked.is_some() && sequence.get() == stream.cursor + 1;
    let is_free = sequence.get() > stream.cursor && deferred.is_none() && !is_blocker;
    Ok(BlockedPosition { stream, is_free })
}

/// Returns whether it became a dead letter because of process crashes rather than a handler's rejection. A role replays
/// it under the crash guard; any other process could crash.
#[must_use]
pub fn is_poison(dead: &DeadLetter) -> bool {
    dead.reason == reason::POISON
}

/// Returns the event that a replay of a dead letter would process.
///
/// # Errors
/// [`OperateError::NotReplayable`] if there is none, or if it no longer has a position.
pub fn replayable(dead: &DeadLetter) -> Result<&Event, OperateError> {
    let not = |why| OperateError::NotReplayable {
        id: dead.id.clone(),
        why,
    };
    match &dead.event {
        None => Err(not("it could not be read as an event")),
        Some(event) if !dead.blocks && event.sequence.is_some() && !is_foreign(dead) => {
            Err(not("another event has taken its sequence"))
        }
        Some(event) => Ok(event),
    }
}
