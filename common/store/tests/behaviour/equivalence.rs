//! Random changes: SQLite and memory return the same results and end with the same contents.

use doorstep_event::{BrokerUser, Event, EventId, Sequence, Source, StreamKey, Timestamp};
use doorstep_store::{
    AuditAction, Commit, CrashCountChange, DeadLetterEdit, DeadLetterId, DeadLetterStatus,
    DeferReason, DeferredId, DeferredRetry, EmittedSequence, EntityChange, ExpectedVersion,
    NewAudit, NewDeadLetter, NewDeferred, NewOutbox, NewReply, OutboxId, OutboxKind, OutboxRetry,
    OwnerChange, ReadSet, Resolution, SourceOwner, Store, StreamChange, StreamState, WriteSet,
};
use proptest::{collection::vec, option, prelude::*};

use crate::{
    fixtures::*,
    folder::Folder,
    task_steps::{TaskPart, TaskResult, TaskStep, take_step, task_change, task_part, task_step},
};

/// One step: a commit, or upkeep. Small numbers choose among a few streams, entities and ids, so that steps interact.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Part>),
    Sweep,
    BringForward(i64),
    Prune(usize),
    PruneTrials(usize),
    PruneReplies(usize),
    Tasks(TaskStep),
}

#[derive(Debug, Clone)]
enum Part {
    Stream {
        which: u8,
        fresh: Fresh,
        after: Option<After>,
    },
    Entity {
        which: u8,
        fresh: Fresh,
        after: Option<u8>,
    },
    Hold {
        which: u8,
        sequence: u8,
        reason: u8,
        due: Option<u8>,
    },
    Release(u8),
    PutOff {
        which: u8,
        reason: u8,
        due: Option<u8>,
    },
    Dead {
        which: u8,
        event: bool,
        certain: bool,
    },
    Settle {
        which: u8,
        status: u8,
        fate: u8,
    },
    Edit {
        which: u8,
        before: u8,
        after: u8,
    },
    Audit {
        which: u8,
        most: u8,
    },
    Seen {
        which: u8,
        time: u8,
    },
    Trial {
        which: u8,
        fresh: Fresh,
        after: u8,
    },
    Owner {
        which: u8,
        fresh: Fresh,
        after: Option<u8>,
    },
    Outgoing {
        which: u8,
        fresh: Fresh,
        more: u8,
    },
    Reply {
        which: u8,
        time: u8,
    },
    Schedule {
        which: u8,
        due: u8,
    },
    Owe {
        which: u8,
        copy: bool,
    },
    Pay(u8),
    Unpaid {
        which: u8,
        due: u8,
    },
    AddCounts,
    Task(TaskPart),
}

/// The freshness of a part's reads: before or after the last commit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fresh {
    Fresh,
    Stale,
}

#[derive(Debug, Clone)]
struct After {
    further: u8,
    own_id: bool,
    blocked: bool,
}

fn fresh() -> impl Strategy<Value = Fresh> {
    prop_oneof![30 => Just(Fresh::Fresh), 1 => Just(Fresh::Stale)]
}

fn after() -> impl Strategy<Value = After> {
    (0..3_u8, any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(further, own_id, blocked)| {
        After {
            further,
            own_id,
            blocked,
        }
    })
}

fn part() -> impl Strategy<Value = Part> {
    let due = || option::of(0..40_u8);
    prop_oneof![
        4 => (0..4_u8, fresh(), option::weighted(0.8, after())).prop_map(|(which, fresh, after)| Part::Stream { which, fresh, after }),
        4 => (0..4_u8, fresh(), option::weighted(0.7, any::<u8>())).prop_map(|(which, fresh, after)| Part::Entity { which, fresh, after }),
        6 => (0..5_u8, 0..9_u8, 0..3_u8, due()).prop_map(|(which, sequence, reason, due)| Part::Hold { which, sequence, reason, due }),
        2 => any::<u8>().prop_map(Part::Release),
        2 => (any::<u8>(), 0..3_u8, due()).prop_map(|(which, reason, due)| Part::PutOff { which, reason, due }),
        1 => (0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(which, event, certain)| Part::Dead { which, event, certain }),
        1 => (0..4_u8, 0..3_u8, 0..3_u8).prop_map(|(which, status, fate)| Part::Settle { which, status, fate }),
        1 => (0..4_u8, 0..2_u8, 0..2_u8).prop_map(|(which, before, after)| Part::Edit { which, before, after }),
        1 => (0..4_u8, 0..9_u8).prop_map(|(which, most)| Part::Audit { which, most }),
        1 => (0..20_u8, 0..40_u8).prop_map(|(which, time)| Part::Seen { which, time }),
        2 => (0..6_u8, fresh(), 0..3_u8).prop_map(|(which, fresh, after)| Part::Trial { which, fresh, after }),
        2 => (0..5_u8, fresh(), option::weighted(0.7, 0..3_u8)).prop_map(|(which, fresh, after)| Part::Owner { which, fresh, after }),
        2 => (0..3_u8, fresh(), 1..3_u8).prop_map(|(which, fresh, more)| Part::Outgoing { which, fresh, more }),
        1 => (0..12_u8, 0..40_u8).prop_map(|(which, time)| Part::Reply { which, time }),
        2 => (0..5_u8, 0..60_u8).prop_map(|(which, due)| Part::Schedule { which, due }),
        2 => (0..5_u8, any::<bool>()).prop_map(|(which, copy)| Part::Owe { which, copy }),
        2 => any::<u8>().prop_map(Part::Pay),
        1 => (any::<u8>(), 0..60_u8).prop_map(|(which, due)| Part::Unpaid { which, due }),
        1 => Just(Part::AddCounts),
        6 => task_part().prop_map(Part::Task),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(part(), 1..6).prop_map(Step::Commit),
        1 => Just(Step::Sweep),
        1 => (0..60_i64).prop_map(Step::BringForward),
        1 => (0..4_usize).prop_map(Step::Prune),
        1 => (0..4_usize).prop_map(Step::PruneTrials),
        1 => (0..4_usize).prop_map(Step::PruneReplies),
        6 => task_step().prop_map(Step::Tasks),
    ]
}

/// One of five streams, of two sources.
fn key(which: u8) -> StreamKey {
    StreamKey {
        source: source(["shop/1", "shop/2"][usize::from(which % 2)]),
        subject: subject(&format!("order/{}", which / 2)),
    }
}

fn event_of(which: u8, sequence: u8) -> Event {
    let key = key(which);
    Event {
        source: key.source,
        ..event(key.subject.as_str(), sequence.into())
    }
}

fn entity_of(which: u8) -> String {
    format!("stock/{which}")
}

fn seen_id(which: u8) -> (Source, EventId) {
    (
        key(which).source,
        EventId::new(format!("loose {}", which / 2)).unwrap(),
    )
}

fn reply_of(which: u8, time: u8) -> NewReply {
    reply(&format!("request {which}"), which % 3, time.into())
}

fn reason(number: u8, which: u8) -> DeferReason {
    match number {
        0 => DeferReason::OutOfOrder,
        1 => DeferReason::WaitingFor(entity(&entity_of(which % 4))),
        _ => DeferReason::Replay(DeadLetterId(format!("d{which}"))),
    }
}

fn everything() -> ReadSet {
    let places =
        (0..5).flat_map(|which| (1..9).map(move |n| (key(which), Sequence::new(n).unwrap())));
    ReadSet {
        streams: (0..5).map(key).collect(),
        deferred_per_stream: 3,
        deferred_bytes: 150,
        deferred_at: places.collect(),
        entities: (0..4).map(|n| entity(&entity_of(n))).collect(),
        seen: (0..20).map(seen_id).collect(),
        crash_counts: (0..6).map(seen_id).collect(),
        emitted_sequences: (0..3).map(|n| subject(&format!("delivery/{n}"))).collect(),
        epochs: vec![],
        replies: (0..12)
            .map(|n| reply_of(n, 0))
            .map(|r| (r.caller, r.id))
            .collect(),
        owners: (0..5).map(|which| key(which).source).collect(),
        leases: vec![],
    }
}

/// Existing rows for parts to choose from.
struct Known {
    deferred: Vec<DeferredId>,
    outbox: Vec<OutboxId>,
}

impl Known {
    fn deferred(&self, which: u8) -> DeferredId {
        let there = usize::from(which) % (self.deferred.len() + 1);
        // Mostly an existing id, and sometimes one that never existed.
        self.deferred
            .get(there)
            .copied()
            .unwrap_or(DeferredId(100_000))
    }

    fn pending(&self, which: u8) -> OutboxId {
        let there = usize::from(which) % (self.outbox.len() + 1);
        self.outbox.get(there).copied().unwrap_or(OutboxId(100_000))
    }
}

fn expect(row: Option<doorstep_store::RowRef>, version: u64, fresh: Fresh) -> ExpectedVersion {
    match (row, fresh) {
        (Some(_), Fresh::Stale) if version.is_multiple_of(2) => ExpectedVersion {
            row: None,
            version: 0,
        },
        (Some(_), Fresh::Stale) => ExpectedVersion {
            row,
            version: version - 1,
        },
        _ => ExpectedVersion { row, version },
    }
}

/// Some states stand for a removal.
async fn add_entity(
    store: &impl Store,
    changes: &mut WriteSet,
    which: u8,
    fresh: Fresh,
    after: Option<u8>,
) {
    let row = entity_row(store, &entity_of(which)).await;
    let expect = expect(row.row, row.version, fresh);
    match after {
        Some(0..50) => changes.removed_entities.push((row.key, expect)),
        _ => changes.entities.push(EntityChange {
            expect,
            key: row.key,
            after: after.map(|n| vec![n; usize::from(n % 9)]),
        }),
    }
}

async fn add(store: &impl Store, known: &Known, changes: &mut WriteSet, part: Part) {
    match part {
        Part::Stream {
            which,
            fresh,
            after,
        } => add_stream(store, changes, which, fresh, after).await,
        Part::Entity {
            which,
            fresh,
            after,
        } => add_entity(store, changes, which, fresh, after).await,
        Part::Hold {
            which,
            sequence,
            reason: number,
            due,
        } => changes.defer.push(NewDeferred {
            reason: reason(number, which),
            due: due.map(|second| at(second.into())),
            defect: (which == 0).then(|| "defect".to_owned()),
            since: at(sequence.into()),
            ..deferred(event_of(which, sequence))
        }),
        Part::Release(which) => changes.release.push(known.deferred(which)),
        Part::PutOff {
            which,
            reason: number,
            due,
        } => changes.reschedule.push(DeferredRetry {
            id: known.deferred(which),
            reason: reason(number, which),
            due: due.map(|second| at(second.into())),
            attempts: which.into(),
            since: at((which % 7).into()),
        }),
        Part::Dead {
            which,
            event,
            certain,
        } => add_dead_letter(changes, which, event, certain),
        Part::Settle {
            which,
            status,
            fate,
        } => changes.resolve.push(resolution(which, status, fate)),
        Part::Edit {
            which,
            before,
            after,
        } => changes.edit.push(edit_of(which, before, after)),
        Part::Audit { which, most } => {
            changes.audit.push(audit_of(which));
            changes.audit_bounds.0.rows = most.into();
        }
        Part::Seen { which, time } => {
            let (from, id) = seen_id(which);
            changes.seen.push((from, id, at(time.into())));
        }
        Part::Trial {
            which,
            fresh,
            after,
        } => changes
            .crash_counts
            .push(crash_count(store, which, fresh, after).await),
        Part::Owner {
            which,
            fresh,
            after,
        } => {
            let owner = owner(store, changes.now, which, fresh, after);
            changes.owners.push(owner.await);
        }
        Part::Outgoing { which, fresh, more } => changes
            .emitted_sequences
            .push(emitted_sequence(store, which, fresh, more).await),
        Part::Reply { which, time } => changes.replies.push(reply_of(which, time)),
        Part::Schedule { which, due } => {
            let about = key(which).subject;
            changes.timers.push(scheduled(about.as_str(), due.into()));
        }
        Part::Owe { which, copy } => changes.outbox.push(new_outbox(which, copy)),
        Part::Pay(which) => changes.published.push(known.pending(which)),
        Part::Unpaid { which, due } => changes.postponed.push(OutboxRetry {
            id: known.pending(which),
            due: at(due.into()),
        }),
        Part::AddCounts => changes.counts.applied += 1,
        Part::Task(part) => changes.tasks.push(task_change(store, part).await),
    }
}

async fn add_stream(
    store: &impl Store,
    changes: &mut WriteSet,
    which: u8,
    fresh: Fresh,
    after: Option<After>,
) {
    let key = key(which);
    if changes.streams.iter().any(|c| c.key == key) {
        return;
    }
    let row = stream_row(store, &key).await;
    let after = after.map(|after| {
        let stay = if fresh == Fresh::Stale { 0 } else { row.cursor };
        let cursor = stay + u64::from(after.further);
        let id = if after.own_id {
            format!("{}#{cursor}", key.subject)
        } else {
            format!("x{cursor}")
        };
        StreamState {
            cursor,
            last_id: (cursor > 0).then(|| EventId::new(id).unwrap()),
            blocked: after.blocked.then(|| dead_id("d1")),
            epoch: None,
        }
    });
    let expect = expect(row.row, row.version, fresh);
    changes.streams.push(StreamChange { key, expect, after });
}

fn add_dead_letter(changes: &mut WriteSet, which: u8, event: bool, certain: bool) {
    let event = event.then(|| event_of(which, 1));
    let row = dead_letter(&format!("d{which}"), event);
    let dead = if certain {
        &mut changes.dead_letters
    } else {
        &mut changes.dead_letters_if_absent
    };
    dead.push(NewDeadLetter { row });
}

fn edit_of(which: u8, before: u8, after: u8) -> DeadLetterEdit {
    let data = |which: u8| ["{}", r#"{"total":"1.10"}"#][usize::from(which)];
    DeadLetterEdit {
        id: DeadLetterId(format!("d{which}")),
        before: data(before).into(),
        after: data(after).into(),
    }
}

fn resolution(which: u8, status: u8, fate: u8) -> (DeadLetterId, DeadLetterStatus, Resolution) {
    use DeadLetterStatus::{Awaiting, Open, Replaying};
    let status = [Open, Replaying, Awaiting][usize::from(status)];
    let fates = [
        Resolution::Gone,
        Resolution::Replaying,
        Resolution::Awaiting,
    ];
    let fate = fates[usize::from(fate)];
    (DeadLetterId(format!("d{which}")), status, fate)
}

fn audit_of(which: u8) -> NewAudit {
    NewAudit {
        operator: "ada".into(),
        action: AuditAction::from_repr(which).unwrap(),
        about: format!("d{which}"),
        dead: (which > 0).then(|| DeadLetterId(format!("d{which}"))),
        stream: (which > 1).then(|| key(which)),
        sequences: (which > 2).then_some((1, which.into())),
        reason: None,
        before: (which > 2).then(|| vec![which; 3].into()),
        after: None,
    }
}

async fn crash_count(store: &impl Store, which: u8, fresh: Fresh, after: u8) -> CrashCountChange {
    let (source, id) = seen_id(which);
    let ask = ReadSet {
        crash_counts: vec![(source.clone(), id.clone())],
        ..ReadSet::default()
    };
    let count = load(store, ask).await.crash_counts[0];
    CrashCountChange {
        source,
        id,
        before: count + u32::from(fresh == Fresh::Stale),
        after: after.into(),
    }
}

async fn owner(
    store: &impl Store,
    now: Timestamp,
    which: u8,
    fresh: Fresh,
    after: Option<u8>,
) -> OwnerChange {
    let source = key(which).source;
    let ask = ReadSet {
        owners: vec![source.clone()],
        ..ReadSet::default()
    };
    let row = load(store, ask).await.owners.remove(0);
    let after = after.map(|user| {
        let user = BrokerUser::new(format!("user-{user}"));
        match &row.owner {
            None if which.is_multiple_of(2) => SourceOwner::first(None, now),
            None => SourceOwner::first(Some(user), now),
            Some(owner) => owner.succeeded_by(user, now),
        }
    });
    OwnerChange {
        source,
        expect: row.version + u64::from(fresh == Fresh::Stale),
        after,
    }
}

async fn emitted_sequence(
    store: &impl Store,
    which: u8,
    fresh: Fresh,
    more: u8,
) -> EmittedSequence {
    let subject = subject(&format!("delivery/{which}"));
    let ask = ReadSet {
        emitted_sequences: vec![subject.clone()],
        ..ReadSet::default()
    };
    let last = load(store, ask).await.emitted_sequences[0];
    let before = if fresh == Fresh::Stale {
        last + 1
    } else {
        last
    };
    let after = before + u64::from(more);
    EmittedSequence {
        subject,
        before,
        after,
    }
}

fn new_outbox(which: u8, copy: bool) -> NewOutbox {
    let kind = if copy {
        OutboxKind::DeadCopy {
            id: DeadLetterId(format!("d{which}")),
            headers: [("n".to_owned(), which.to_string())].into(),
            body: vec![which; 3].into(),
        }
    } else {
        OutboxKind::Event(event_of(which, which))
    };
    NewOutbox { kind }
}

/// Results of commits and upkeep.
#[derive(Debug, PartialEq)]
enum StepResult {
    Commit(Commit),
    Rows(u64),
    Tasks(TaskResult),
}

async fn answer(store: &impl Store, second: i64, step: &Step, changes: &WriteSet) -> StepResult {
    match step {
        Step::Tasks(step) => StepResult::Tasks(take_step(store, second, step).await),
        Step::Commit(_) => StepResult::Commit(store.commit(changes.clone()).await.unwrap()),
        Step::Sweep => StepResult::Rows(store.repair_due(at(second)).await.unwrap()),
        Step::BringForward(beyond) => {
            let beyond = at(second + beyond);
            StepResult::Rows(store.clamp_due_times(at(second), beyond).await.unwrap())
        }
        // The order in which ids of the same time are pruned is unspecified, so a page takes all of them or none.
        Step::PruneTrials(n) => StepResult::Rows(
            store
                .prune_crash_counts(at(*n as i64 * 10), 1_000)
                .await
                .unwrap(),
        ),
        Step::PruneReplies(n) => StepResult::Rows(
            store
                .prune_replies(at(*n as i64 * 10), 1_000)
                .await
                .unwrap(),
        ),
        Step::Prune(n) => {
            StepResult::Rows(store.prune_seen(at(*n as i64 * 10), 1_000).await.unwrap())
        }
    }
}

async fn run(steps: Vec<Step>) -> (usize, usize) {
    let folder = Folder::new();
    let (memory, sqlite) = (crate::memory(), crate::sqlite(&folder));
    let (mut commits, mut conflicts) = (0, 0);
    for (second, step) in (0_i64..).zip(steps) {
        let mut changes = WriteSet::at(at(second));
        let mut known = Known {
            deferred: Vec::new(),
            outbox: memory
                .outbox(doorstep_event::Timestamp::MAX, 99)
                .await
                .unwrap()
                .iter()
                .map(|o| o.id)
                .collect(),
        };
        known.deferred = memory
            .due(doorstep_event::Timestamp::MAX, 99, u64::MAX)
            .await
            .unwrap()
            .iter()
            .map(|h| h.id)
            .collect();
        changes.pruned_to = load(&memory, everything()).await.pruned_to;
        if let Step::Commit(parts) = &step {
            for part in parts {
                add(&memory, &known, &mut changes, part.clone()).await;
            }
        }
        let expected = answer(&memory, second, &step, &changes).await;
        match expected {
            StepResult::Commit(Commit::Written(_)) => commits += 1,
            StepResult::Commit(Commit::Conflict) => conflicts += 1,
            StepResult::Rows(_) | StepResult::Tasks(_) => {}
        }
        assert_eq!(
            answer(&sqlite, second, &step, &changes).await,
            expected,
            "{changes:#?}"
        );
        let (expected, found) = (
            contents(&memory, everything()).await,
            contents(&sqlite, everything()).await,
        );
        assert_eq!(found, expected, "after {changes:#?}");
    }
    (commits, conflicts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_return_the_same(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// The test above would prove nothing if nearly every commit conflicted, or none.
#[test]
fn random_changes_both_commit_and_conflict() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let steps = vec(step(), 400).new_tree(&mut runner).unwrap().current();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (commits, conflicts) = runtime.block_on(run(steps));
    assert!(
        commits > 50 && conflicts > 50,
        "{commits} written, {conflicts} conflicts"
    );
}
