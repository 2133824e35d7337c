//! Tasks: starts, ends and decisions.

use bytes::Bytes;
use doorstep_store::{
    Candidates, ClaimTasks, IfLive, LeasedTask, NewTask, Store, StoreError, StoreUsage, TaskChange,
    TaskDirective, TaskEnd, TaskFate, TaskFilter, TaskKindCount, TaskLease, TaskProgress, TaskRow,
    TaskState, TaskToken, WriteSet,
};

use crate::fixtures::*;

pub async fn a_started_task_is_read_back(store: impl Store) {
    let new = NewTask {
        traceparent: Some("00-1-2-01".into()),
        dead: 3,
        ..new_task("a")
    };
    change(&store, 1, vec![TaskChange::Start(new.clone())]).await;
    start(&store, 2, &["b"]).await;
    let expected = TaskRow {
        number: 1,
        id: new.id,
        kind: new.kind,
        subject: new.subject,
        traceparent: new.traceparent,
        input: new.input,
        since: at(1),
        state: TaskState::Ready,
        lease: None,
        directive: None,
        due: at(1),
        attempts: 0,
        crashes: 0,
        dead: 3,
        done: 0,
        total: 0,
        reached: 0,
        note: None,
        checkpoint: None,
        error: None,
    };
    assert_eq!(row(&store, "a").await, expected);
    let ids = ["b", "c", "a"].map(task_id).into();
    let read = store.read_tasks(ids).await.unwrap();
    assert_eq!(read[1], None);
    assert_eq!(read[2].as_ref(), Some(&expected));
    assert_eq!(read[0].as_ref().map(|row| row.number), Some(2));
}

pub async fn a_live_id_is_kept_or_a_conflict(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let before = row(&store, "a").await;
    let again = |if_live| NewTask {
        input: Bytes::from_static(b"other"),
        if_live,
        ..new_task("a")
    };
    change(&store, 2, vec![TaskChange::Start(again(IfLive::Keep))]).await;
    assert_eq!(row(&store, "a").await, before);
    let conflicting = vec![
        TaskChange::Start(new_task("b")),
        TaskChange::Start(again(IfLive::Conflict)),
    ];
    conflict(&store, changes(3, conflicting)).await;
    assert_eq!(live(&store).await, ["a"]);
    assert_eq!(store.usage().await.unwrap().tasks.rows, 1);
    // Once it has ended, its id is free.
    let claimed = claim_all(&store, 4).await;
    change(&store, 5, vec![end(&claimed[0], TaskFate::Done)]).await;
    change(&store, 6, vec![TaskChange::Start(again(IfLive::Conflict))]).await;
    assert_eq!(row(&store, "a").await.number, 2);
}

pub async fn a_conflicting_commit_starts_no_task(store: impl Store) {
    let mut first = changes(1, vec![TaskChange::Start(new_task("a"))]);
    first.entities = vec![change_entity(&store, "order/1", Some("{}")).await];
    commit(&store, first).await;
    let claimed = claim_all(&store, 2).await;
    let mut changes = changes(
        3,
        vec![
            end(&claimed[0], TaskFate::Done),
            TaskChange::Start(new_task("b")),
        ],
    );
    changes.entities = vec![change_entity(&store, "order/1", Some("{}")).await];
    changes.entities[0].expect.version += 1;
    conflict(&store, changes).await;
    assert_eq!(live(&store).await, ["a"]);
    assert_eq!(row(&store, "a").await, claimed[0].row);
    assert_eq!(store.summary(at(3)).await.unwrap().tally.tasks_done, 0);
}

pub async fn an_end_under_another_token_is_a_conflict(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    let claimed = claim(&store, 2, 1, 1).await;
    let right = claimed[0].token;
    let other = TaskToken(right.0 + 1);
    for (id, token) in [("a", other), ("b", right), ("c", right)] {
        for fate in fates() {
            let end = TaskEnd {
                id: task_id(id),
                token,
                fate,
            };
            let both = vec![TaskChange::Start(new_task("d")), TaskChange::End(end)];
            conflict(&store, changes(3, both)).await;
        }
    }
    assert_eq!(live(&store).await, ["a", "b"]);
    assert_eq!(row(&store, "a").await, claimed[0].row);
}

pub async fn a_lease_ends_once(store: impl Store) {
    for (fate, id) in fates().into_iter().zip(["a", "b", "c", "d", "e"]) {
        // What an earlier round has left is not due yet.
        start(&store, 2, &[id]).await;
        let task = claim_all(&store, 2).await.remove(0);
        change(&store, 3, vec![end(&task, fate.clone())]).await;
        for again in [fate, TaskFate::Done] {
            conflict(&store, changes(4, vec![end(&task, again)])).await;
        }
    }
    assert_eq!(live(&store).await, ["a", "b", "c"]);
    assert_eq!(store.summary(at(4)).await.unwrap().tally.tasks_done, 1);
}

fn fates() -> [TaskFate; 5] {
    [
        TaskFate::Unknown {
            error: "e".to_owned(),
        },
        TaskFate::Retry {
            due: at(5),
            error: "e".to_owned(),
        },
        TaskFate::Release,
        TaskFate::Done,
        TaskFate::Ended,
    ]
}

pub async fn a_done_task_is_gone_and_counted(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    let claimed = claim_all(&store, 2).await;
    let mut both = changes(3, vec![end(&claimed[0], TaskFate::Done)]);
    both.entities = vec![change_entity(&store, "order/1", Some("{}")).await];
    let usage = commit(&store, both).await.usage;
    assert_eq!(usage.tasks.rows, 1);
    assert!(entity_row(&store, "order/1").await.state.is_some());
    change(&store, 4, vec![end(&claimed[1], TaskFate::Ended)]).await;
    assert_eq!(live(&store).await, Vec::<String>::new());
    let summary = store.summary(at(4)).await.unwrap();
    assert_eq!(summary.tally.tasks_done, 1);
    assert_eq!(summary.usage, StoreUsage::default());
    assert_eq!(summary.tasks, []);
}

pub async fn a_retry_waits_for_its_time(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let task = claim_all(&store, 2).await.remove(0);
    let checkpoint = Some(Bytes::from_static(b"half"));
    let progress = TaskProgress {
        note: Some("so far".to_owned()),
        checkpoint: checkpoint.clone(),
        ..progress(&task, 4)
    };
    store
        .beat_tasks(holder(1), vec![progress], at(3))
        .await
        .unwrap();
    let retry = TaskFate::Retry {
        due: at(60),
        error: "no connection".to_owned(),
    };
    change(&store, 4, vec![end(&task, retry)]).await;
    let after = row(&store, "a").await;
    assert_eq!((after.state, after.lease), (TaskState::Ready, None));
    assert_eq!((after.attempts, after.crashes, after.due), (1, 0, at(60)));
    assert_eq!(after.error.as_deref(), Some("no connection"));
    assert_eq!((after.done, after.reached), (4, 4));
    assert_eq!(
        (after.checkpoint, after.note.as_deref()),
        (checkpoint, Some("so far"))
    );
    assert_eq!(claim_all(&store, 59).await, []);
    let again = claim_all(&store, 60).await.remove(0);
    assert!(again.token > task.token);
    assert_eq!((again.row.attempts, again.row.input), (1, task.row.input));
}

pub async fn a_release_counts_nothing(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let task = claim_all(&store, 2).await.remove(0);
    change(&store, 9, vec![end(&task, TaskFate::Release)]).await;
    let after = row(&store, "a").await;
    let expected = TaskRow {
        state: TaskState::Ready,
        lease: None,
        due: at(9),
        ..task.row
    };
    assert_eq!(after, expected);
}

pub async fn an_unknown_task_waits_for_a_decision(store: impl Store) {
    let unknown = async || {
        start(&store, 1, &["a"]).await;
        let task = claim_all(&store, 2).await.remove(0);
        let report = TaskProgress {
            note: Some("at the dot".to_owned()),
            checkpoint: Some(Bytes::from_static(b"dot")),
            ..progress(&task, 3)
        };
        store
            .beat_tasks(holder(1), vec![report], at(2))
            .await
            .unwrap();
        let error = "no reply".to_owned();
        change(&store, 3, vec![end(&task, TaskFate::Unknown { error })]).await;
        task
    };
    unknown().await;
    let after = row(&store, "a").await;
    assert_eq!(
        (after.state, after.lease, after.attempts),
        (TaskState::Unknown, None, 1)
    );
    assert_eq!(after.error.as_deref(), Some("no reply"));
    assert_eq!(claim_all(&store, 1_000).await, []);
    change(&store, 4, vec![TaskChange::Cancel(task_id("a"))]).await;
    assert_eq!(row(&store, "a").await, after);

    change(&store, 5, vec![decide("a", TaskState::Unknown, None)]).await;
    let again = row(&store, "a").await;
    assert_eq!(
        (again.state, again.due, again.attempts),
        (TaskState::Ready, at(5), 1)
    );
    assert_eq!((again.checkpoint, again.note), (None, None));
    assert_eq!((again.done, again.total, again.reached), (0, 0, 0));
    for directive in [
        TaskDirective::Done,
        TaskDirective::Failed,
        TaskDirective::Cancel,
    ] {
        let task = claim_all(&store, 6).await.remove(0);
        change(&store, 7, vec![end(&task, TaskFate::Ended)]).await;
        unknown().await;
        change(
            &store,
            8,
            vec![decide("a", TaskState::Unknown, Some(directive))],
        )
        .await;
        let settled = row(&store, "a").await;
        assert_eq!(
            (settled.state, settled.directive),
            (TaskState::Ready, Some(directive))
        );
        assert_eq!(settled.checkpoint.as_deref(), Some(&b"dot"[..]));
    }
}

pub async fn a_cancelled_task_is_claimed_at_once(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let cancel = || {
        vec![
            TaskChange::Cancel(task_id("a")),
            TaskChange::Cancel(task_id("x")),
        ]
    };
    let retry = TaskFate::Retry {
        due: at(500),
        error: "later".to_owned(),
    };
    let task = claim_all(&store, 2).await.remove(0);
    change(&store, 3, vec![end(&task, retry)]).await;
    change(&store, 4, cancel()).await;
    // Not even its kind is known to the holder, and no task has room there.
    let ask = ClaimTasks {
        kinds: vec![],
        room: 0,
        ..claim_by(1, 5)
    };
    let claimed = store.claim_tasks(ask).await.unwrap().tasks.remove(0);
    assert_eq!(claimed.row.directive, Some(TaskDirective::Cancel));
    change(&store, 6, vec![end(&claimed, TaskFate::Ended)]).await;

    // A running task hears of it with the next heartbeat, and keeps the directive unless it ends.
    start(&store, 7, &["b", "a"]).await;
    let claimed = claim_all(&store, 8).await;
    change(&store, 9, cancel()).await;
    let beat = store.beat_tasks(holder(1), vec![], at(10)).await.unwrap();
    assert_eq!(beat.cancelled, [task_id("a")]);
    change(&store, 11, vec![end(&claimed[1], TaskFate::Release)]).await;
    let again = claim(&store, 12, 2, 0).await;
    assert_eq!(
        (again.len(), again[0].row.directive),
        (1, Some(TaskDirective::Cancel))
    );
}

pub async fn a_decision_needs_the_expected_state(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    let task = claim(&store, 2, 1, 1).await.remove(0);
    let cancel = Some(TaskDirective::Cancel);
    for (id, expected) in [
        ("a", TaskState::Ready),
        ("a", TaskState::Unknown),
        ("b", TaskState::Running),
        ("b", TaskState::Unknown),
        ("c", TaskState::Ready),
    ] {
        conflict(&store, changes(3, vec![decide(id, expected, cancel)])).await;
    }
    for directive in [None, Some(TaskDirective::Done), Some(TaskDirective::Failed)] {
        let settle = changes(3, vec![decide("a", TaskState::Running, directive)]);
        let error = store.commit(settle).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("only be cancelled"), "{error}");
    }
    change(&store, 4, vec![decide("a", TaskState::Running, cancel)]).await;
    assert_eq!(row(&store, "a").await.lease, task.row.lease);
    change(
        &store,
        5,
        vec![decide("b", TaskState::Ready, Some(TaskDirective::Done))],
    )
    .await;
    // A handler's later cancellation does not change an operator's decision.
    change(&store, 6, vec![TaskChange::Cancel(task_id("b"))]).await;
    assert_eq!(row(&store, "b").await.directive, Some(TaskDirective::Done));
}

pub async fn a_waiting_task_can_be_retried_now(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let task = claim_all(&store, 2).await.remove(0);
    let report = TaskProgress {
        checkpoint: Some(Bytes::from_static(b"half")),
        ..progress(&task, 1)
    };
    store
        .beat_tasks(holder(1), vec![report], at(2))
        .await
        .unwrap();
    let retry = TaskFate::Retry {
        due: at(900),
        error: "later".to_owned(),
    };
    change(&store, 3, vec![end(&task, retry)]).await;
    change(&store, 4, vec![decide("a", TaskState::Ready, None)]).await;
    let again = claim_all(&store, 4).await.remove(0);
    assert_eq!(again.row.checkpoint.as_deref(), Some(&b"half"[..]));
    assert_eq!(again.row.attempts, 1);
}

pub async fn changes_apply_in_their_order(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let task = claim_all(&store, 2).await.remove(0);
    let cancel = |id| TaskChange::Cancel(task_id(id));
    let ordered = vec![
        // The result of a task starts it anew.
        end(&task, TaskFate::Done),
        TaskChange::Start(new_task("a")),
        TaskChange::Start(new_task("b")),
        cancel("b"),
        cancel("c"),
        TaskChange::Start(new_task("c")),
    ];
    change(&store, 3, ordered).await;
    assert_eq!(live(&store).await, ["a", "b", "c"]);
    assert_eq!(row(&store, "a").await.number, 2);
    assert_eq!(
        row(&store, "b").await.directive,
        Some(TaskDirective::Cancel)
    );
    assert_eq!(row(&store, "c").await.directive, None);
}

pub async fn leases_are_loaded_with_a_batch(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    let task = claim(&store, 2, 1, 1).await.remove(0);
    let asked = [
        (task_id("b"), task.token),
        (task_id("a"), task.token),
        (task_id("a"), TaskToken(task.token.0 + 1)),
        (task_id("c"), task.token),
    ];
    let read = doorstep_store::ReadSet {
        leases: asked.into(),
        ..Default::default()
    };
    assert_eq!(
        load(&store, read.clone()).await.leases,
        [false, true, false, false]
    );
    change(&store, 3, vec![end(&task, TaskFate::Release)]).await;
    assert_eq!(load(&store, read).await.leases, [false; 4]);
}

pub async fn tasks_are_listed_in_pages(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    start(&store, 3, &["c"]).await;
    let other = NewTask {
        kind: task_kind("shop.other.v1"),
        ..new_task("d")
    };
    change(&store, 5, vec![TaskChange::Start(other)]).await;
    let tasks = claim(&store, 6, 1, 2).await;
    let error = "e".to_owned();
    change(&store, 7, vec![end(&tasks[1], TaskFate::Unknown { error })]).await;
    let list = async |state, kind: Option<&str>, after, limit| {
        let kind = kind.map(task_kind);
        let page = store.tasks(TaskFilter { state, kind }, after, limit);
        let ids = page.await.unwrap().into_iter();
        ids.map(|row| row.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, None, 2).await, ["a", "b"]);
    assert_eq!(list(None, None, Some(2), 9).await, ["c", "d"]);
    assert_eq!(
        list(Some(TaskState::Ready), None, None, 9).await,
        ["c", "d"]
    );
    assert_eq!(list(Some(TaskState::Running), None, None, 9).await, ["a"]);
    assert_eq!(list(Some(TaskState::Unknown), None, None, 9).await, ["b"]);
    let other = Some("shop.other.v1");
    assert_eq!(list(None, other, None, 9).await, ["d"]);
    assert_eq!(
        list(Some(TaskState::Unknown), other, None, 9).await,
        Vec::<String>::new()
    );
    let count = |kind, (ready, running, unknown), oldest_ready_ms| TaskKindCount {
        kind: task_kind(kind),
        ready,
        running,
        unknown,
        oldest_ready_ms,
    };
    let summary = store.summary(at(11)).await.unwrap();
    let expected = [
        count("shop.mail.v1", (1, 1, 1), Some(8_000)),
        count("shop.other.v1", (1, 0, 0), Some(6_000)),
    ];
    assert_eq!(summary.tasks, expected);
    let lease = row(&store, "a").await.lease;
    let claimed = TaskLease {
        token: tasks[0].token,
        holder: holder(1),
        claimed: at(6),
    };
    assert_eq!(lease, Some(claimed));
}

pub async fn task_times_ahead_of_the_clock_are_clamped(store: impl Store) {
    start(&store, 1, &["a", "b", "c", "d"]).await;
    let tasks = claim(&store, 2, 1, 3).await;
    let retry = |due| TaskFate::Retry {
        due: at(due),
        error: "later".to_owned(),
    };
    let ends = vec![
        end(&tasks[0], retry(69)),
        end(&tasks[1], retry(71)),
        end(&tasks[2], retry(99)),
        TaskChange::Cancel(task_id("c")),
    ];
    change(&store, 3, ends).await;
    // The clock of another process was ahead, too, when it took over. The cancelled task waits for no time.
    claim(&store, 4, 2, 1).await;
    let holders = store.task_holders().await.unwrap();
    let taken = store.take_over_tasks(holder(2), holders[1].beat, at(99));
    assert_eq!(taken.await.unwrap(), Some(2));
    assert_eq!(store.clamp_task_times(at(10), at(70)).await.unwrap(), 2);
    assert_eq!(store.clamp_task_times(at(10), at(70)).await.unwrap(), 0);
    assert_eq!(row(&store, "a").await.due, at(69));
    assert_eq!(row(&store, "b").await.due, at(10));
    assert_eq!(row(&store, "d").await.due, at(10));
}

pub async fn task_usage_ends_where_it_began(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let started = store.usage().await.unwrap().tasks;
    let task = claim_all(&store, 2).await.remove(0);
    assert_eq!(store.usage().await.unwrap().tasks, started);
    let report = |bytes: usize, done| TaskProgress {
        note: Some("x".repeat(bytes)),
        checkpoint: Some(vec![1; bytes].into()),
        ..progress(&task, done)
    };
    store
        .beat_tasks(holder(1), vec![report(100, 1)], at(3))
        .await
        .unwrap();
    let bytes = store.usage().await.unwrap().tasks.bytes;
    assert_eq!(bytes, started.bytes + 200);
    store
        .beat_tasks(holder(1), vec![report(10, 2)], at(4))
        .await
        .unwrap();
    let error = "12345".to_owned();
    let written = change(&store, 5, vec![end(&task, TaskFate::Unknown { error })]).await;
    assert_eq!(written.usage.tasks.bytes, started.bytes + 25);
    change(&store, 6, vec![decide("a", TaskState::Unknown, None)]).await;
    let bytes = store.usage().await.unwrap().tasks.bytes;
    assert_eq!(bytes, started.bytes + 5);
    let task = claim_all(&store, 7).await.remove(0);
    let written = change(&store, 8, vec![end(&task, TaskFate::Ended)]).await;
    assert_eq!(written.usage, StoreUsage::default());
}

/// The task with its id if it is live.
async fn row_if_live(store: &impl Store, id: &str) -> Option<TaskRow> {
    store.read_tasks(vec![task_id(id)]).await.unwrap().remove(0)
}

pub async fn row(store: &impl Store, id: &str) -> TaskRow {
    row_if_live(store, id).await.unwrap()
}

/// The ids of all live tasks.
async fn live(store: &impl Store) -> Vec<String> {
    let rows = store.tasks(TaskFilter::default(), None, 1_000).await;
    let ids = rows.unwrap().into_iter().map(|row| row.id.to_string());
    ids.collect()
}

pub fn changes(second: i64, tasks: Vec<TaskChange>) -> WriteSet {
    WriteSet {
        tasks,
        ..WriteSet::at(at(second))
    }
}

pub async fn change(
    store: &impl Store,
    second: i64,
    tasks: Vec<TaskChange>,
) -> doorstep_store::CommitReceipt {
    commit(store, changes(second, tasks)).await
}

pub async fn start(store: &impl Store, second: i64, ids: &[&str]) {
    let new = ids.iter().map(|id| TaskChange::Start(new_task(id)));
    change(store, second, new.collect()).await;
}

pub fn end(task: &LeasedTask, fate: TaskFate) -> TaskChange {
    TaskChange::End(TaskEnd {
        id: task.row.id.clone(),
        token: task.token,
        fate,
    })
}

pub fn decide(id: &str, expected: TaskState, directive: Option<TaskDirective>) -> TaskChange {
    TaskChange::Decide {
        id: task_id(id),
        expected,
        directive,
    }
}

pub fn progress(task: &LeasedTask, done: u64) -> TaskProgress {
    TaskProgress {
        id: task.row.id.clone(),
        token: task.token,
        done,
        total: 10,
        note: None,
        checkpoint: None,
    }
}

/// The claim of a process that has no task yet.
pub fn claim_by(process: u64, second: i64) -> ClaimTasks {
    ClaimTasks {
        holder: holder(process),
        process: format!("host {process}"),
        now: at(second),
        kinds: vec![
            (task_kind("shop.mail.v1"), 100),
            (task_kind("shop.other.v1"), 100),
        ],
        room: 100,
        candidates: Candidates::None,
        held: vec![],
    }
}

/// The tasks that a process gets that believes to have what it has.
pub async fn claim(store: &impl Store, second: i64, process: u64, room: usize) -> Vec<LeasedTask> {
    let held = store
        .tasks(TaskFilter::default(), None, 1_000)
        .await
        .unwrap();
    let ask = ClaimTasks {
        room,
        held: held.into_iter().map(|row| row.id).collect(),
        ..claim_by(process, second)
    };
    store.claim_tasks(ask).await.unwrap().tasks
}

pub async fn claim_all(store: &impl Store, second: i64) -> Vec<LeasedTask> {
    claim(store, second, 1, 100).await
}
