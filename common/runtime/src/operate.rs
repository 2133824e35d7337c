//! Replay and skip: what an operator does with dead letters and gaps, as transactions on the role's store.
//!
//! Each is conditional on what it is about being still as it was seen: of two at once the first wins, any other hears
//! [`OperateError::AlreadySettled`]. They may run in any process beside a running role, or while none runs.

use doorstep_event::{Event, StreamKey, Timestamp};
use doorstep_store::{
    Ask, Changes, Commit, DeadFate, DeadFilter, DeadId, DeadRow, DeadStatus, Expect, HeldReason,
    NewHeld, Store, StoreError, StreamChange, StreamRow, StreamState,
};

/// How often a change is tried again because the role itself has changed the stream meanwhile.
const ATTEMPTS: usize = 100;

/// Why nothing was done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperateError {
    /// There is no such dead letter any more, or a replay of it is under way: somebody else was first.
    #[error("already settled: {0} was replayed or skipped by somebody else, or is being replayed")]
    AlreadySettled(DeadId),
    /// What is there cannot be tried again.
    #[error("{id} cannot be replayed: {why}; skip it instead")]
    NotReplayable {
        /// Which dead letter.
        id: DeadId,
        /// Why.
        why: &'static str,
    },
    /// The stream does not miss these events, or no longer.
    #[error("already settled: {stream} does not miss {from}..{to} (its cursor is at {cursor})")]
    NoSuchGap {
        /// Which stream.
        stream: StreamKey,
        /// The first one given as missing.
        from: u64,
        /// The last one given as missing.
        to: u64,
        /// Where the stream is.
        cursor: u64,
    },
    /// The stream is changed by others so often that the change found no moment.
    #[error("{0} is too busy just now, try again")]
    Busy(String),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a dead letter due again: the role will try it, and what follows it in its stream, within moments.
///
/// # Errors
/// See [`OperateError`].
pub async fn replay<S: Store>(store: &S, id: &DeadId, now: Timestamp) -> Result<(), OperateError> {
    for _ in 0..ATTEMPTS {
        let dead = open(store, id).await?;
        let Some(event) = dead.event.clone() else {
            return Err(OperateError::NotReplayable {
                id: id.clone(),
                why: "it could not be read as an event",
            });
        };
        let mut changes = Changes::at(now);
        match (dead.blocks, event.sequence) {
            (true, _) => {
                let stream = blocked_stream(store, &dead, &event).await?;
                changes.streams.push(changed(
                    &stream,
                    StreamState {
                        cursor: stream.cursor,
                        last_id: stream.last_id.clone(),
                        blocked: stream.blocked.clone(),
                    },
                ));
            }
            (false, None) => {}
            (false, Some(_)) => {
                return Err(OperateError::NotReplayable {
                    id: id.clone(),
                    why: "another event has taken its number",
                });
            }
        }
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

/// Steps over a dead letter: its stream goes on with the next event.
///
/// # Errors
/// See [`OperateError`].
pub async fn skip<S: Store>(store: &S, id: &DeadId, now: Timestamp) -> Result<(), OperateError> {
    for _ in 0..ATTEMPTS {
        let dead = open(store, id).await?;
        let mut changes = Changes::at(now);
        if dead.blocks
            && let Some(event) = &dead.event
        {
            let stream = blocked_stream(store, &dead, event).await?;
            changes.streams.push(changed(
                &stream,
                StreamState {
                    cursor: stream.cursor + 1,
                    last_id: Some(event.id.clone()),
                    blocked: None,
                },
            ));
        }
        changes
            .settle
            .push((id.clone(), DeadStatus::Open, DeadFate::Gone));
        changes.tally.skipped = 1;
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(id.to_string()))
}

/// Steps over events that a stream misses, `from..=to`: what is held behind them goes on.
///
/// # Errors
/// See [`OperateError`]; [`OperateError::NoSuchGap`] unless exactly these are missing.
pub async fn skip_gap<S: Store>(
    store: &S,
    stream: &StreamKey,
    from: u64,
    to: u64,
    now: Timestamp,
) -> Result<(), OperateError> {
    for _ in 0..ATTEMPTS {
        let row = load(store, stream).await?;
        let no_such_gap = || OperateError::NoSuchGap {
            stream: stream.clone(),
            from,
            to,
            cursor: row.cursor,
        };
        if row.blocked.is_some()
            || row.cursor + 1 != from
            || to < from
            || i64::try_from(to).is_err()
        {
            return Err(no_such_gap());
        }
        let missing = store
            .gaps(Timestamp::MAX, usize::MAX)
            .await?
            .into_iter()
            .any(|gap| gap.stream == *stream && gap.from == from && gap.to == to);
        if !missing {
            return Err(no_such_gap());
        }
        let mut changes = Changes::at(now);
        changes.streams.push(changed(
            &row,
            StreamState {
                cursor: to,
                last_id: None,
                blocked: None,
            },
        ));
        changes.tally.skipped = 1;
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(stream.to_string()))
}

async fn open<S: Store>(store: &S, id: &DeadId) -> Result<DeadRow, OperateError> {
    let found = store.dead(DeadFilter::Id(id.clone()), None, 1).await?;
    match found.into_iter().next() {
        Some(dead) if dead.status == DeadStatus::Open => Ok(dead),
        _ => Err(OperateError::AlreadySettled(id.clone())),
    }
}

async fn load<S: Store>(store: &S, key: &StreamKey) -> Result<StreamRow, OperateError> {
    let ask = Ask {
        streams: vec![key.clone()],
        ..Ask::default()
    };
    let row = store.load(ask).await?.streams.into_iter().next();
    row.ok_or_else(|| OperateError::Busy(key.to_string()))
}

/// The stream that a dead letter blocks, provided that it still does.
async fn blocked_stream<S: Store>(
    store: &S,
    dead: &DeadRow,
    event: &Event,
) -> Result<StreamRow, OperateError> {
    let row = load(store, &event.stream()).await?;
    let still_next = event
        .sequence
        .is_some_and(|sequence| sequence.get() == row.cursor + 1);
    if row.blocked.as_ref() == Some(&dead.id) && still_next {
        Ok(row)
    } else {
        Err(OperateError::AlreadySettled(dead.id.clone()))
    }
}

fn changed(row: &StreamRow, after: StreamState) -> StreamChange {
    StreamChange {
        key: row.key.clone(),
        expect: Expect {
            row: row.row,
            version: row.version,
        },
        after: Some(after),
    }
}

async fn written<S: Store>(store: &S, changes: Changes) -> Result<bool, StoreError> {
    Ok(matches!(store.commit(changes).await?, Commit::Written(_)))
}
