//! The actions of an operator: replay, skip and edit, as transactions on the role's store, each with its audit record.
//!
//! Each depends on its object being unchanged: of two concurrent actions the first wins, and the other fails with
//! [`OperateError::AlreadySettled`] or [`OperateError::RefusedAnew`]. They may run in any process, whether the role
//! runs or not.

mod edit;
mod operator;
mod replay;
mod restored;
mod run;
mod skip;
mod take_over;
mod tasks;
mod transfer;

use doorstep_event::{BrokerUser, Event, Source, StreamKey};
use doorstep_store::{
    AuditAction, Commit, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStatus,
    ExpectedVersion, NewAudit, OwnerRow, ReadSet, Result, Store, StoreError, StreamChange,
    StreamRow, StreamState, WriteSet,
};

pub(crate) use self::replay::{BlockedPosition, place};
pub use self::{
    edit::{Edit, edit},
    operator::{Attribution, Operator, OperatorError},
    replay::{is_poison, replay, replayable},
    restored::{accept_restored, record_of_new_source},
    run::{ReplayRun, end_replay, start_replay},
    skip::{missing, skip, skip_gap},
    take_over::record_take_over,
    tasks::{DecideTaskError, TaskDecision, decide_task},
    transfer::{Former, transfer},
};

/// The maximum of attempts after conflicts with the role's own changes of the stream.
const ATTEMPTS: usize = 100;

/// The reason why an action was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperateError {
    /// The dead letter was already resolved, or its replay is in flight: another action came first.
    #[error(
        "already resolved: {0} was replayed or skipped by another operator, or is being replayed"
    )]
    AlreadySettled(DeadLetterId),
    /// It was replayed, rejected again, and has become another dead letter.
    #[error("already resolved: {id} was replayed and rejected again, it is {now} now")]
    RefusedAnew {
        /// The given id.
        id: DeadLetterId,
        /// The id of the same event's present dead letter.
        now: DeadLetterId,
    },
    /// The dead letter cannot be replayed.
    #[error("{id} cannot be replayed: {why}; skip it instead")]
    NotReplayable { id: DeadLetterId, why: &'static str },
    /// Its sender is another broker user than the present owner of its source.
    #[error(
        "{id} cannot be replayed while its source {source_name} belongs to another user than its sender: if the sender is the right one, \
         give the source to it with consumers sources transfer, or else skip it"
    )]
    Foreign {
        id: DeadLetterId,
        source_name: Source,
    },
    /// The data is no longer as it was read.
    #[error("{0} was edited by another operator meanwhile, check it again")]
    EditedMeanwhile(DeadLetterId),
    /// The stream does not miss these events, or no longer.
    #[error("already resolved: {stream} does not miss {from}..{to} (its cursor is at {cursor})")]
    NoSuchGap {
        stream: StreamKey,
        /// The first sequence given as missing.
        from: u64,
        /// The last sequence given as missing.
        to: u64,
        /// The cursor of the stream.
        cursor: u64,
    },
    /// The store has no such source.
    #[error(
        "no event of source {0} was ever accepted here: find the right one in `consumers sources list`"
    )]
    UnknownSource(Source),
    /// The user already owns the source.
    #[error("source {source_name} belongs to user {user} already")]
    OwnedAlready {
        source_name: Source,
        user: BrokerUser,
    },
    /// Other changes of the stream conflicted with each attempt.
    #[error("{0} is too busy just now, try again")]
    Busy(String),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the dead letter if it has one of these statuses.
async fn found<S: Store>(
    store: &S,
    id: &DeadLetterId,
    statuses: &[DeadLetterStatus],
) -> Result<DeadLetter, OperateError> {
    let found = store
        .dead_letters(DeadLetterFilter::Id(id.clone()), None, 1)
        .await?;
    match found.into_iter().next() {
        Some(dead) if statuses.contains(&dead.status) => return Ok(dead),
        Some(_) => return Err(OperateError::AlreadySettled(id.clone())),
        None => {}
    }
    Err(match refused_anew(store, id).await? {
        Some(now) => OperateError::RefusedAnew {
            id: id.clone(),
            now,
        },
        None => OperateError::AlreadySettled(id.clone()),
    })
}

/// Returns the present id of a dead letter that was replayed and rejected again.
///
/// # Errors
/// The store cannot be read.
pub async fn refused_anew<S: Store>(store: &S, id: &DeadLetterId) -> Result<Option<DeadLetterId>> {
    let same_event = DeadLetterFilter::Letter(id.event_digest().to_owned());
    let found = store
        .dead_letters(same_event, None, 1)
        .await?
        .into_iter()
        .next();
    Ok(found.map(|dead| dead.id).filter(|now| now != id))
}

async fn load<S: Store>(store: &S, key: &StreamKey) -> Result<StreamRow, OperateError> {
    let ask = ReadSet {
        streams: vec![key.clone()],
        ..ReadSet::default()
    };
    let row = store.load(ask).await?.streams.into_iter().next();
    row.ok_or_else(|| OperateError::Busy(key.to_string()))
}

/// Reads the owner of a source.
pub(crate) async fn owner_row<S: Store>(store: &S, source: &Source) -> Result<OwnerRow> {
    let ask = ReadSet {
        owners: vec![source.clone()],
        ..ReadSet::default()
    };
    Ok(store.load(ask).await?.owners.pop().unwrap_or_default())
}

/// Returns the stream that a dead letter blocks, if it still does.
async fn blocked_stream<S: Store>(
    store: &S,
    dead: &DeadLetter,
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
        expect: ExpectedVersion {
            row: row.row,
            version: row.version,
        },
        after: Some(after),
    }
}

/// Builds the audit record of an action on a dead letter.
fn record(by: &Attribution, action: AuditAction, dead: &DeadLetter) -> NewAudit {
    let event = dead.event.as_ref();
    NewAudit {
        dead: Some(dead.id.clone()),
        stream: event.map(Event::stream),
        sequences: event
            .and_then(|event| event.sequence)
            .map(|sequence| (sequence.get(), sequence.get())),
        ..by.record(action, dead.id.event_digest())
    }
}

async fn written<S: Store>(store: &S, changes: WriteSet) -> Result<bool> {
    Ok(matches!(store.commit(changes).await?, Commit::Written(_)))
}
