//! Atomic commits: all changes or none.

use doorstep_event::{Sequence, Source};
use doorstep_store::{
    CommitReceipt, CrashCountChange, DeadLetterStatus, DeferReason, DeferredId, DeferredRetry,
    EmittedSequence, IfLive, LeasedTask, NewDeadLetter, NewOutbox, NewTask, OutboxKind,
    OutboxRetry, OwnerChange, ReadSet, Resolution, SourceOwner, Store, StoreUsage, TaskChange,
    TaskDirective, TaskFate, TaskState, WriteSet,
};

use crate::{
    fixtures::*,
    tasks::{claim, decide, end},
};

/// Reads every row that a conflicting commit might have changed.
fn read_set() -> ReadSet {
    let place = |n| (stream("order/1"), Sequence::new(n).unwrap());
    ReadSet {
        streams: vec![stream("order/1"), stream("order/2"), stream("order/7")],
        deferred_per_stream: 10,
        deferred_bytes: u64::MAX,
        deferred_at: (1..9).map(place).collect(),
        entities: vec![entity("order/1"), entity("order/2"), entity("order/7")],
        seen: ["a", "b", "c"].map(seen_id).into(),
        crash_counts: ["a", "b"].map(seen_id).into(),
        emitted_sequences: vec![subject("delivery/1"), subject("delivery/2")],
        epochs: vec![],
        replies: ["a", "b"]
            .map(|id| (source("gateway/1"), reply(id, 1, 1).id))
            .into(),
        owners: vec![source("new/1")],
        leases: vec![],
    }
}

fn seen_id(id: &str) -> (Source, doorstep_event::EventId) {
    (source("new/1"), doorstep_event::EventId::new(id).unwrap())
}

/// Changes of every kind, without a conflict.
async fn everything(store: &impl Store) -> WriteSet {
    let mut changes = WriteSet::at(at(9));
    let due = store.due(at(9), 10, u64::MAX).await.unwrap();
    let pending = store.outbox(at(9), 10).await.unwrap();
    changes.streams = vec![
        change_stream(store, "order/1", Some(cursor("order/1", 4))).await,
        change_stream(store, "order/2", None).await,
        change_stream(store, "order/7", Some(cursor("order/7", 1))).await,
    ];
    changes.entities = vec![
        change_entity(store, "order/1", Some("new")).await,
        change_entity(store, "order/2", None).await,
        change_entity(store, "order/7", Some("new")).await,
    ];
    changes.defer = vec![deferred(event("order/7", 3))];
    changes.release = vec![due[0].id];
    changes.reschedule = vec![DeferredRetry {
        id: due[1].id,
        reason: DeferReason::OutOfOrder,
        due: None,
        attempts: 9,
        since: at(9),
    }];
    changes.resolve = vec![
        (dead_id("d1"), DeadLetterStatus::Open, Resolution::Gone),
        (dead_id("d2"), DeadLetterStatus::Open, Resolution::Replaying),
    ];
    changes.dead_letters = vec![NewDeadLetter {
        row: dead_letter("d3", None),
    }];
    let (from, id) = seen_id("b");
    changes.seen = vec![(from.clone(), id.clone(), at(9))];
    changes.crash_counts = vec![CrashCountChange {
        source: from,
        id,
        before: 0,
        after: 1,
    }];
    changes.owners = vec![OwnerChange {
        source: source("new/1"),
        expect: 0,
        after: Some(SourceOwner::first(None, at(9))),
    }];
    changes.emitted_sequences = vec![EmittedSequence {
        subject: subject("delivery/1"),
        before: 2,
        after: 5,
    }];
    changes.replies = vec![reply("b", 1, 9)];
    changes.timers = vec![scheduled("order/7", 90)];
    let task = store
        .read_tasks(vec![task_id("a")])
        .await
        .unwrap()
        .remove(0);
    let row = task.unwrap();
    let token = row.lease.unwrap().token;
    let task = LeasedTask { row, token };
    changes.tasks = vec![
        end(&task, TaskFate::Done),
        decide("b", TaskState::Ready, Some(TaskDirective::Failed)),
        TaskChange::Start(new_task("d")),
        TaskChange::Cancel(task_id("c")),
    ];
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("order/7", 1)),
    }];
    changes.published = vec![pending[0].id];
    changes.postponed = vec![OutboxRetry {
        id: pending[1].id,
        due: at(90),
    }];
    changes.counts.applied = 5;
    changes
}

async fn prepare(store: &impl Store) {
    let mut changes = WriteSet::at(at(1));
    changes.streams = vec![
        change_stream(store, "order/1", Some(cursor("order/1", 3))).await,
        change_stream(store, "order/2", Some(cursor("order/2", 3))).await,
    ];
    changes.entities = vec![
        change_entity(store, "order/1", Some("old")).await,
        change_entity(store, "order/2", Some("old")).await,
    ];
    changes.defer = [4, 5, 7].map(|n| deferred(event("order/1", n))).into();
    changes
        .defer
        .extend([0, 0].map(|n| doorstep_store::NewDeferred {
            due: Some(at(1)),
            ..deferred(event("order/5", n))
        }));
    changes.dead_letters = ["d1", "d2"]
        .map(|id| NewDeadLetter {
            row: dead_letter(id, None),
        })
        .into();
    let (from, id) = seen_id("a");
    changes.seen = vec![(from, id, at(1))];
    changes.emitted_sequences = vec![EmittedSequence {
        subject: subject("delivery/1"),
        before: 0,
        after: 2,
    }];
    changes.replies = vec![reply("a", 1, 1)];
    changes.timers = vec![scheduled("order/1", 99)];
    changes.outbox = [1, 2]
        .map(|n| NewOutbox {
            kind: OutboxKind::Event(event("order/1", n)),
        })
        .into();
    let started = ["a", "b", "c"].map(|id| TaskChange::Start(new_task(id)));
    changes.tasks = started.into();
    commit(store, changes).await;
    claim(store, 1, 1, 1).await;
}

pub async fn a_conflicting_commit_writes_nothing(store: impl Store) {
    type Spoil = fn(&mut WriteSet);
    let spoils: [(&str, Spoil); 21] = [
        ("a changed stream's version", |c| {
            c.streams[0].expect.version += 1;
        }),
        ("a read stream's version", |c| {
            c.streams[1].expect.version += 1;
        }),
        ("an existing stream", |c| {
            c.streams[1].expect.row = None;
            c.streams[1].expect.version = 0;
        }),
        ("a changed entity's version", |c| {
            c.entities[0].expect.version += 1;
        }),
        ("a read entity's version", |c| {
            c.entities[1].expect.version += 1;
        }),
        ("an existing entity", |c| {
            c.entities[1].expect.row = None;
            c.entities[1].expect.version = 0;
        }),
        ("a decreasing cursor", |c| {
            c.streams[0].after.as_mut().unwrap().cursor = 2;
        }),
        ("an occupied sequence", |c| {
            c.defer.push(deferred(event("order/1", 7)));
        }),
        ("a released event", |c| c.release.push(DeferredId(1_000))),
        ("a rescheduled event", |c| {
            c.reschedule[0].id = DeferredId(1_000);
        }),
        ("a dead letter's status", |c| {
            c.resolve[1].1 = DeadLetterStatus::Replaying;
        }),
        ("an existing dead letter", |c| {
            let row = dead_letter("d2", None);
            c.dead_letters.push(NewDeadLetter { row });
        }),
        ("a seen id", |c| {
            let (from, id) = seen_id("a");
            c.seen.push((from, id, at(9)));
        }),
        ("a changed crash count", |c| c.crash_counts[0].before = 1),
        ("a changed owner", |c| c.owners[0].expect = 1),
        ("an emitted sequence", |c| c.emitted_sequences[0].before = 1),
        ("an answered command", |c| {
            c.replies.push(reply("a", 1, 9));
        }),
        ("an ended lease", |c| c.tasks.push(c.tasks[0].clone())),
        ("another token", |c| {
            if let TaskChange::End(end) = &mut c.tasks[0] {
                end.token.0 += 1;
            }
        }),
        ("another state", |c| {
            c.tasks.push(decide("c", TaskState::Unknown, None));
        }),
        ("a live task", |c| {
            c.tasks.push(TaskChange::Start(NewTask {
                if_live: IfLive::Conflict,
                ..new_task("b")
            }));
        }),
    ];
    prepare(&store).await;
    let before = contents(&store, read_set()).await;
    for (what, spoil) in spoils {
        let mut changes = everything(&store).await;
        spoil(&mut changes);
        conflict(&store, changes).await;
        assert_eq!(contents(&store, read_set()).await, before, "after {what}");
    }
    let whole = everything(&store).await;
    commit(&store, whole).await;
    let after = contents(&store, read_set()).await;
    assert_eq!(after.streams.len(), 3);
    assert_eq!(after.loaded.seen, [true, true, false]);
    assert_eq!(after.loaded.crash_counts, [0, 1]);
    assert_eq!(after.loaded.outgoing, [5, 0]);
    let tasks = after
        .tasks
        .iter()
        .map(|row| (row.id.as_str(), row.directive));
    let expected = [
        ("b", Some(TaskDirective::Failed)),
        ("c", Some(TaskDirective::Cancel)),
        ("d", None),
    ];
    assert_eq!(tasks.collect::<Vec<_>>(), expected);
    assert_eq!(after.summary.commits, before.summary.commits + 1);
}

pub async fn an_empty_commit_is_no_conflict(store: impl Store) {
    let nothing = CommitReceipt {
        streams: vec![],
        entities: vec![],
        usage: StoreUsage::default(),
        dead_lettered: 0,
        overflowed: 0,
        epoch: None,
    };
    assert_eq!(commit(&store, WriteSet::at(at(1))).await, nothing);
}
