//! Fixtures: events, and changes based on the store's present rows.

use bytes::Bytes;
use doorstep_event::{
    Epoch, Event, EventId, EventType, RequestId, Sequence, Source, StreamKey, Subject, Timestamp,
};
use doorstep_store::{
    AuditFilter, AuditPage, Commit, CommitReceipt, DeadLetter, DeadLetterFilter, DeadLetterGroup,
    DeadLetterId, DeadLetterStatus, DeferReason, DeferredEvent, EntityChange, EntityKey, EntityRow,
    ExpectedVersion, HolderRow, IfLive, NewDeferred, NewReply, NewTask, NewTimer, OutboxRow,
    OwnEpochs, OwnerRow, PrunedTo, ReadResult, ReadSet, ReplyRow, RequestHash, SequenceGap,
    SourceEpochs, SourceRow, Store, StreamChange, StreamRow, StreamState, Summary, TaskFilter,
    TaskHolder, TaskId, TaskRow, WriteSet,
};

/// This many seconds after the beginning of 2026.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

pub fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

pub fn source(text: &str) -> Source {
    Source::new(text).unwrap()
}

/// The stream of the shop about a subject.
pub fn stream(about: &str) -> StreamKey {
    StreamKey {
        source: source("shop/1"),
        subject: subject(about),
    }
}

pub fn entity(key: &str) -> EntityKey {
    EntityKey::new(key)
}

/// The shop's event about a subject; `sequence` 0 means none.
pub fn event(about: &str, sequence: u64) -> Event {
    let sequence = Sequence::new(sequence);
    Event {
        id: EventId::new(format!("{about}#{}", sequence.map_or(0, Sequence::get))).unwrap(),
        source: source("shop/1"),
        event_type: EventType::new("order.placed.v1").unwrap(),
        subject: subject(about),
        time: Some(at(0)),
        sequence,
        epoch: None,
        traceparent: None,
        data: Bytes::from_static(br#"{"total":"1.10"}"#),
    }
}

/// That event, deferred behind its predecessor since second 1.
pub fn deferred(event: Event) -> NewDeferred {
    NewDeferred {
        event,
        defect: None,
        reason: DeferReason::OutOfOrder,
        due: None,
        attempts: 0,
        since: at(1),
    }
}

/// A timer of the role about a subject.
pub fn scheduled(about: &str, due: i64) -> NewTimer {
    let event = event(about, 0);
    NewTimer {
        due: at(due),
        source: source("tracking/1"),
        kind: event.event_type,
        subject: event.subject,
        traceparent: Some("00-1-2-01".into()),
        data: event.data,
    }
}

/// A reply to a command of the gateway.
pub fn reply(id: &str, hash: u8, second: i64) -> NewReply {
    NewReply {
        caller: source("gateway/1"),
        id: RequestId::new(id).unwrap(),
        hash: RequestHash([hash; 32]),
        reply: Bytes::from(format!("reply to {id}")),
        time: at(second),
    }
}

pub fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

pub fn task_kind(text: &str) -> EventType {
    EventType::new(text).unwrap()
}

/// A task of the shop that sends a mail.
pub fn new_task(id: &str) -> NewTask {
    NewTask {
        id: task_id(id),
        kind: task_kind("shop.mail.v1"),
        subject: subject("shop/1"),
        traceparent: None,
        input: Bytes::from(format!("input of {id}")),
        dead: 0,
        if_live: IfLive::Keep,
    }
}

/// The process that runs tasks under this epoch.
pub fn holder(number: u64) -> TaskHolder {
    TaskHolder(Epoch::new(number, number).unwrap())
}

pub fn dead_id(text: &str) -> DeadLetterId {
    DeadLetterId(text.to_owned())
}

pub fn dead_letter(id: &str, event: Option<Event>) -> DeadLetter {
    DeadLetter {
        id: dead_id(id),
        body: Bytes::from_static(b"what came"),
        blocks: event.is_some(),
        event,
        reason: "broken rule".into(),
        detail: "a total of -1 is negative".into(),
        fingerprint: "broken".into(),
        attempts: 1,
        since: at(5),
        status: DeadLetterStatus::Open,
        defect: None,
        task: None,
    }
}

/// A stream's new state: at a cursor with the id in the shop's form, not blocked.
pub fn cursor(about: &str, cursor: u64) -> StreamState {
    StreamState {
        cursor,
        last_id: (cursor > 0).then(|| event(about, cursor).id),
        blocked: None,
        epoch: None,
    }
}

pub fn blocked(about: &str, at: u64, by: &str) -> StreamState {
    StreamState {
        blocked: Some(dead_id(by)),
        ..cursor(about, at)
    }
}

pub async fn load(store: &impl Store, ask: ReadSet) -> ReadResult {
    store.load(ask).await.unwrap()
}

pub async fn stream_row(store: &impl Store, key: &StreamKey) -> StreamRow {
    let ask = ReadSet {
        streams: vec![key.clone()],
        ..ReadSet::default()
    };
    load(store, ask).await.streams.remove(0)
}

pub async fn entity_row(store: &impl Store, key: &str) -> EntityRow {
    let ask = ReadSet {
        entities: vec![entity(key)],
        ..ReadSet::default()
    };
    load(store, ask).await.entities.remove(0)
}

pub async fn deferred_next(store: &impl Store, about: &str, most: usize) -> Vec<DeferredEvent> {
    let ask = ReadSet {
        streams: vec![stream(about)],
        deferred_per_stream: most,
        deferred_bytes: u64::MAX,
        ..ReadSet::default()
    };
    load(store, ask).await.deferred
}

/// Sequences of deferred events.
pub fn sequences(deferred: &[DeferredEvent]) -> Vec<u64> {
    deferred
        .iter()
        .filter_map(|h| h.event.sequence.map(Sequence::get))
        .collect()
}

/// A change of a stream in its present version.
pub async fn change_stream(
    store: &impl Store,
    about: &str,
    after: Option<StreamState>,
) -> StreamChange {
    let row = stream_row(store, &stream(about)).await;
    StreamChange {
        key: stream(about),
        expect: ExpectedVersion {
            row: row.row,
            version: row.version,
        },
        after,
    }
}

/// A change of an entity in its present version.
pub async fn change_entity(store: &impl Store, key: &str, after: Option<&str>) -> EntityChange {
    let row = entity_row(store, key).await;
    EntityChange {
        key: entity(key),
        expect: ExpectedVersion {
            row: row.row,
            version: row.version,
        },
        after: after.map(|state| state.as_bytes().to_vec()),
    }
}

/// Unwraps a commit that must not conflict.
#[track_caller]
pub fn written(commit: Commit) -> CommitReceipt {
    match commit {
        Commit::Written(written) => written,
        Commit::Conflict => panic!("a conflict where there is none"),
    }
}

pub async fn commit(store: &impl Store, changes: WriteSet) -> CommitReceipt {
    written(store.commit(changes).await.unwrap())
}

pub async fn conflict(store: &impl Store, changes: WriteSet) {
    assert_eq!(store.commit(changes).await.unwrap(), Commit::Conflict);
}

/// Defers events, each in its stream, whose cursor stays.
pub async fn defer(store: &impl Store, second: i64, events: Vec<NewDeferred>) {
    let mut changes = WriteSet::at(at(second));
    for new in &events {
        let about = new.event.subject.as_str();
        let there = |c: &StreamChange| c.key.subject.as_str() == about;
        if new.event.sequence.is_some() && !changes.streams.iter().any(there) {
            let row = stream_row(store, &stream(about)).await;
            let stays = StreamState {
                cursor: row.cursor,
                last_id: row.last_id,
                blocked: row.blocked,
                epoch: None,
            };
            let change = change_stream(store, about, Some(stays)).await;
            changes.streams.push(change);
        }
    }
    changes.defer = events;
    commit(store, changes).await;
}

/// Moves the cursor of a stream.
pub async fn advance(store: &impl Store, second: i64, about: &str, state: StreamState) {
    let mut changes = WriteSet::at(at(second));
    changes.streams = vec![change_stream(store, about, Some(state)).await];
    commit(store, changes).await;
}

/// The complete readable contents of a store.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub streams: Vec<StreamRow>,
    pub entities: Vec<EntityRow>,
    pub loaded: Loadable,
    pub due: Vec<DeferredEvent>,
    pub next_due: Option<Timestamp>,
    pub dead: Vec<DeadLetter>,
    pub dead_letter_groups: Vec<DeadLetterGroup>,
    pub audit: AuditPage,
    pub outbox: Vec<OutboxRow>,
    pub due_outbox: Vec<OutboxRow>,
    pub gaps: Vec<SequenceGap>,
    pub sources: Vec<SourceRow>,
    pub tasks: Vec<TaskRow>,
    pub task_holders: Vec<HolderRow>,
    pub summary: Summary,
    pub epochs: OwnEpochs,
}

/// A comparable form of [`ReadResult`].
#[derive(Debug, PartialEq)]
pub struct Loadable {
    pub deferred: Vec<DeferredEvent>,
    pub deferred_at: Vec<Option<(EventId, Option<Epoch>)>>,
    pub entities: Vec<EntityRow>,
    pub seen: Vec<bool>,
    pub crash_counts: Vec<u32>,
    pub outgoing: Vec<u64>,
    pub epochs: Vec<SourceEpochs>,
    pub replies: Vec<Option<ReplyRow>>,
    pub pruned_to: PrunedTo,
    pub owners: Vec<OwnerRow>,
    pub leases: Vec<bool>,
}

/// Reads everything; of rows that can only be read by name, those that `ask` names.
pub async fn contents(store: &impl Store, ask: ReadSet) -> Contents {
    let forever = Timestamp::MAX;
    let loaded = load(store, ask).await;
    Contents {
        streams: store.streams(None, 1_000).await.unwrap(),
        entities: store.entities(None, 1_000).await.unwrap(),
        loaded: Loadable {
            deferred: loaded.deferred,
            deferred_at: loaded.deferred_at,
            entities: loaded.entities,
            seen: loaded.seen,
            crash_counts: loaded.crash_counts,
            outgoing: loaded.emitted_sequences,
            epochs: loaded.epochs,
            replies: loaded.replies,
            pruned_to: loaded.pruned_to,
            owners: loaded.owners,
            leases: loaded.leases,
        },
        due: store.due(forever, 1_000, u64::MAX).await.unwrap(),
        next_due: store.next_due().await.unwrap(),
        dead: store
            .dead_letters(DeadLetterFilter::All, None, 1_000)
            .await
            .unwrap(),
        dead_letter_groups: store.dead_letter_groups(1_000).await.unwrap(),
        audit: store.audit(AuditFilter::All, None, 1_000).await.unwrap(),
        outbox: store.outbox(forever, 1_000).await.unwrap(),
        due_outbox: store.outbox(at(20), 1_000).await.unwrap(),
        gaps: store.gaps(forever, forever, 1_000).await.unwrap(),
        sources: store.sources(None, 1_000).await.unwrap(),
        tasks: store
            .tasks(TaskFilter::default(), None, 1_000)
            .await
            .unwrap(),
        task_holders: store.task_holders().await.unwrap(),
        summary: Summary {
            // Not a promise, but specific to the implementation.
            log_bytes: None,
            ..store.summary(at(1_000)).await.unwrap()
        },
        epochs: store.epochs().await.unwrap(),
    }
}
