//! Skips of dead letters and of missing events.

use doorstep_event::{StreamKey, Timestamp};
use doorstep_store::{
    AuditAction, DeadLetterId, DeadLetterStatus, NewAudit, Resolution, Store, StreamRow,
    StreamState, WriteSet, stream_epoch,
};

use super::{
    ATTEMPTS, Attribution, OperateError, blocked_stream, changed, found, load, record, written,
};

/// Skips a dead letter: its stream continues with the next event. Includes a dead letter that was replayed and waits
/// for another stream.
///
/// # Errors
/// See [`OperateError`].
pub async fn skip<S: Store>(
    store: &S,
    id: &DeadLetterId,
    by: impl Into<Attribution>,
) -> Result<(), OperateError> {
    let by = by.into();
    for _ in 0..ATTEMPTS {
        let dead = found(
            store,
            id,
            &[DeadLetterStatus::Open, DeadLetterStatus::Awaiting],
        )
        .await?;
        let mut changes = WriteSet::at(by.at);
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
                    epoch: stream_epoch(
                        stream.epoch,
                        stream.cursor,
                        stream.last_id.as_ref(),
                        event.epoch,
                    ),
                },
            ));
        }
        changes
            .resolve
            .push((id.clone(), dead.status, Resolution::Gone));
        // The audit keeps the only copy of a skipped dead letter.
        changes.audit.push(NewAudit {
            before: Some(
                dead.event
                    .as_ref()
                    .map_or(&dead.body, |event| &event.data)
                    .clone(),
            ),
            ..record(&by, AuditAction::Skip, &dead)
        });
        changes.counts.skipped = 1;
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(id.to_string()))
}

/// Skips the events `from..=to` that a stream misses: the events deferred behind them continue.
///
/// # Errors
/// See [`OperateError`]; [`OperateError::NoSuchGap`] unless exactly these are missing.
pub async fn skip_gap<S: Store>(
    store: &S,
    stream: &StreamKey,
    from: u64,
    to: u64,
    by: impl Into<Attribution>,
) -> Result<(), OperateError> {
    let by = by.into();
    for _ in 0..ATTEMPTS {
        let row = missing(store, stream, from, to).await?;
        let mut changes = WriteSet::at(by.at);
        changes.streams.push(changed(
            &row,
            StreamState {
                cursor: to,
                last_id: None,
                blocked: None,
                epoch: row.epoch,
            },
        ));
        changes.audit.push(NewAudit {
            stream: Some(stream.clone()),
            sequences: Some((from, to)),
            ..by.record(AuditAction::SkipGap, stream.to_string())
        });
        changes.counts.skipped = 1;
        if written(store, changes).await? {
            return Ok(());
        }
    }
    Err(OperateError::Busy(stream.to_string()))
}

/// Returns the stream if it misses exactly these events.
///
/// # Errors
/// [`OperateError::NoSuchGap`], or the store cannot be read.
pub async fn missing<S: Store>(
    store: &S,
    stream: &StreamKey,
    from: u64,
    to: u64,
) -> Result<StreamRow, OperateError> {
    let row = load(store, stream).await?;
    let no_such_gap = || OperateError::NoSuchGap {
        stream: stream.clone(),
        from,
        to,
        cursor: row.cursor,
    };
    if row.blocked.is_some() || row.cursor + 1 != from || to < from || i64::try_from(to).is_err() {
        return Err(no_such_gap());
    }
    let is_missing = store
        .gaps(Timestamp::MAX, Timestamp::MAX, usize::MAX)
        .await?
        .into_iter()
        .any(|gap| gap.stream == *stream && gap.from == from && gap.to == to);
    if is_missing {
        Ok(row)
    } else {
        Err(no_such_gap())
    }
}
