//! Leases of tasks: claims, heartbeats and take-overs.

use doorstep_event::EventType;
use doorstep_store::{
    Beat, Candidates, ClaimTasks, Claimed, HolderRow, LeasedTask, MAX_DIRECTED_TASKS, NewTask,
    RestoredChange, Store, TaskChange, TaskFate, TaskFilter, TaskProgress, TaskState, WriteSet,
};

use crate::{
    fixtures::*,
    tasks::{change, changes, claim, claim_all, claim_by, end, progress, row, start},
};

pub async fn due_tasks_are_claimed_in_order(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    start(&store, 2, &["c"]).await;
    let other = NewTask {
        kind: task_kind("shop.other.v1"),
        ..new_task("d")
    };
    change(&store, 1, vec![TaskChange::Start(other)]).await;
    assert_eq!(claim_all(&store, 0).await, []);
    let first = claim(&store, 2, 1, 3).await;
    assert_eq!(ids(&first), ["a", "b", "d"]);
    let tokens: Vec<_> = first.iter().map(|task| task.token).collect();
    assert!(tokens.is_sorted_by(|a, b| a < b));
    for task in &first {
        let lease = task.row.lease.unwrap();
        assert_eq!((lease.token, lease.holder), (task.token, holder(1)));
        assert_eq!((task.row.state, lease.claimed), (TaskState::Running, at(2)));
        assert_eq!(row(&store, task.row.id.as_str()).await, task.row);
    }
    assert_eq!(ids(&claim(&store, 3, 2, 9).await), ["c"]);
}

pub async fn a_claim_of_nothing_changes_nothing(store: impl Store) {
    start(&store, 5, &["a"]).await;
    let before = contents(&store, doorstep_store::ReadSet::default()).await;
    let unknown_kind = ClaimTasks {
        kinds: vec![(task_kind("shop.unknown.v1"), 9)],
        ..claim_by(1, 9)
    };
    let no_room = ClaimTasks {
        room: 0,
        ..claim_by(1, 9)
    };
    for ask in [unknown_kind, no_room, claim_by(1, 4)] {
        assert_eq!(store.claim_tasks(ask).await.unwrap(), Claimed::default());
    }
    let after = contents(&store, doorstep_store::ReadSet::default()).await;
    assert_eq!(after, before);
}

pub async fn a_kind_never_exceeds_its_maximum(store: impl Store) {
    start(&store, 1, &["a", "b", "c", "d"]).await;
    let other = NewTask {
        kind: task_kind("shop.other.v1"),
        ..new_task("z")
    };
    change(&store, 2, vec![TaskChange::Start(other)]).await;
    let bounded = |process, most| ClaimTasks {
        kinds: vec![
            (task_kind("shop.mail.v1"), most),
            (task_kind("shop.other.v1"), 1),
        ],
        ..claim_by(process, 3)
    };
    let first = store.claim_tasks(bounded(1, 2)).await.unwrap().tasks;
    // A kind that is full does not keep the others from running.
    assert_eq!(ids(&first), ["a", "b", "z"]);
    let second = store.claim_tasks(bounded(2, 3)).await.unwrap().tasks;
    assert_eq!(ids(&second), ["c"]);
    assert_eq!(store.claim_tasks(bounded(3, 3)).await.unwrap().tasks, []);
    change(&store, 4, vec![end(&first[0], TaskFate::Done)]).await;
    let third = store.claim_tasks(bounded(3, 3)).await.unwrap().tasks;
    assert_eq!(ids(&third), ["d"]);
}

pub async fn a_lost_reply_is_claimed_again(store: impl Store) {
    start(&store, 1, &["a", "b", "c", "d"]).await;
    let lost = claim(&store, 2, 1, 2).await;
    let again = ClaimTasks {
        held: vec![task_id("a")],
        room: 2,
        ..claim_by(1, 3)
    };
    let claimed = store.claim_tasks(again).await.unwrap().tasks;
    // Under its token, and in the room for others.
    assert_eq!(ids(&claimed), ["b", "c"]);
    assert_eq!(claimed[0], lost[1]);
    let other = ClaimTasks {
        room: 0,
        ..claim_by(2, 4)
    };
    assert_eq!(store.claim_tasks(other).await.unwrap().tasks, []);
}

/// Leaves tasks with a crash count.
async fn crashed(store: &impl Store, tasks: &[&str]) {
    start(store, 1, tasks).await;
    claim(store, 2, 9, 100).await;
    let beat = store.task_holders().await.unwrap()[0].beat;
    let taken = store.take_over_tasks(holder(9), beat, at(3)).await.unwrap();
    assert_eq!(taken, Some(tasks.len() as u64));
}

pub async fn candidates_are_claimed_alone(store: impl Store) {
    crashed(&store, &["a", "b"]).await;
    start(&store, 4, &["c", "d"]).await;
    let claim = async |candidates, held: &[&str], process, room| {
        let ask = ClaimTasks {
            candidates,
            held: held.iter().map(|id| task_id(id)).collect(),
            room,
            ..claim_by(process, 5)
        };
        let claimed = store.claim_tasks(ask).await.unwrap();
        (ids(&claimed.tasks), claimed.candidates_due)
    };
    let all = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(claim(Candidates::None, &[], 1, 1).await, (all(&["c"]), 2));
    assert_eq!(claim(Candidates::One, &[], 2, 9).await, (all(&["a"]), 1));
    // A candidate whose claim was not answered: nothing runs beside it.
    assert_eq!(claim(Candidates::One, &[], 2, 9).await, (all(&["a"]), 1));
    assert_eq!(claim(Candidates::None, &[], 2, 9).await, (all(&["a"]), 1));
    // A fresh task whose claim was not answered: no candidate runs beside it.
    assert_eq!(claim(Candidates::One, &[], 1, 1).await, (all(&["c"]), 1));
    assert_eq!(claim(Candidates::One, &["c"], 1, 0).await, (all(&[]), 1));
    assert_eq!(claim(Candidates::One, &["c"], 1, 9).await, (all(&["b"]), 0));
    // Without a candidate, fresh tasks are claimed.
    assert_eq!(
        claim(Candidates::One, &["c", "b"], 1, 9).await,
        (all(&["d"]), 0)
    );
}

pub async fn directed_tasks_are_claimed_in_pages(store: impl Store) {
    let number = MAX_DIRECTED_TASKS + 3;
    let all: Vec<String> = (0..number).map(|n| format!("t{n:02}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    start(&store, 1, &all).await;
    let cancels = all.iter().map(|id| TaskChange::Cancel(task_id(id)));
    change(&store, 2, cancels.collect()).await;
    let first = claim(&store, 3, 1, 100).await;
    assert_eq!(ids(&first), all[..MAX_DIRECTED_TASKS]);
    let second = claim(&store, 3, 1, 0).await;
    assert_eq!(ids(&second), all[MAX_DIRECTED_TASKS..]);
    assert_eq!(claim_all(&store, 3).await, []);
}

pub async fn progress_comes_with_a_heartbeat(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    let tasks = claim_all(&store, 2).await;
    let first = TaskProgress {
        note: Some("page 1".to_owned()),
        checkpoint: Some(vec![1].into()),
        ..progress(&tasks[0], 5)
    };
    let stale = TaskProgress {
        token: tasks[0].token,
        ..progress(&tasks[1], 9)
    };
    let beat = store.beat_tasks(holder(1), vec![first, stale], at(3)).await;
    let expected = Beat {
        alive: true,
        lost: vec![task_id("b")],
        cancelled: vec![],
    };
    assert_eq!(beat.unwrap(), expected);
    assert_eq!(row(&store, "b").await, tasks[1].row);
    let huge = TaskProgress {
        done: 3,
        total: u64::MAX,
        ..progress(&tasks[0], 3)
    };
    store
        .beat_tasks(holder(1), vec![huge], at(4))
        .await
        .unwrap();
    let after = row(&store, "a").await;
    assert_eq!(
        (after.done, after.total, after.reached),
        (3, i64::MAX as u64, 5)
    );
    assert_eq!((after.note, after.lease), (None, tasks[0].row.lease));
    assert_eq!(after.checkpoint.as_deref(), Some(&[1][..]));
}

pub async fn further_progress_resets_the_crash_count(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let crash_at = async |process, second, done| {
        let ask = ClaimTasks {
            candidates: Candidates::One,
            ..claim_by(process, second)
        };
        let task = store.claim_tasks(ask).await.unwrap().tasks.remove(0);
        let report = vec![progress(&task, done)];
        store
            .beat_tasks(holder(process), report, at(second))
            .await
            .unwrap();
        let beat = store.task_holders().await.unwrap()[0].beat;
        let taken = store.take_over_tasks(holder(process), beat, at(second));
        assert_eq!(taken.await.unwrap(), Some(1));
        row(&store, "a").await.crashes
    };
    assert_eq!(crash_at(1, 2, 4).await, 1);
    assert_eq!(crash_at(2, 3, 4).await, 2);
    assert_eq!(crash_at(3, 4, 3).await, 3);
    assert_eq!(crash_at(4, 5, 5).await, 1);
    // An error counts as an attempt that got through.
    let ask = ClaimTasks {
        candidates: Candidates::One,
        ..claim_by(5, 6)
    };
    let task = store.claim_tasks(ask).await.unwrap().tasks.remove(0);
    let retry = TaskFate::Retry {
        due: at(7),
        error: "e".to_owned(),
    };
    change(&store, 6, vec![end(&task, retry)]).await;
    assert_eq!(row(&store, "a").await.crashes, 0);
}

pub async fn a_silent_holder_is_taken_over(store: impl Store) {
    start(&store, 1, &["a", "b", "c"]).await;
    let tasks = claim(&store, 2, 1, 2).await;
    let others = claim(&store, 2, 2, 1).await;
    let silent = store.task_holders().await.unwrap().remove(0);
    let expected = HolderRow {
        holder: holder(1),
        beat: silent.beat,
        running: 2,
        process: "host 1".to_owned(),
        renewed: at(2),
    };
    assert_eq!(silent, expected);
    let taken = store.take_over_tasks(holder(1), silent.beat, at(30)).await;
    assert_eq!(taken.unwrap(), Some(2));
    let after = row(&store, "a").await;
    assert_eq!(
        (after.state, after.lease, after.due),
        (TaskState::Ready, None, at(30))
    );
    assert_eq!((after.crashes, after.attempts), (1, 0));
    assert_eq!(row(&store, "c").await, others[0].row);
    // The former holder can end nothing, and hears that it is gone.
    for task in &tasks {
        conflict(&store, changes(31, vec![end(task, TaskFate::Done)])).await;
    }
    let report = vec![progress(&tasks[1], 5)];
    let beat = store.beat_tasks(holder(1), report, at(31)).await.unwrap();
    let expected = Beat {
        alive: false,
        lost: vec![task_id("b")],
        cancelled: vec![],
    };
    assert_eq!(beat, expected);
    assert_eq!(row(&store, "b").await.done, 0);
    let left: Vec<_> = store.task_holders().await.unwrap();
    assert_eq!((left.len(), left[0].holder), (1, holder(2)));
}

pub async fn a_beating_holder_is_not_taken_over(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    claim(&store, 2, 1, 1).await;
    let seen = async || store.task_holders().await.unwrap()[0].beat;
    let first = seen().await;
    store.beat_tasks(holder(1), vec![], at(3)).await.unwrap();
    let second = seen().await;
    claim(&store, 4, 1, 1).await;
    let third = seen().await;
    assert!(first < second && second < third);
    for stale in [first, second, third + 1] {
        let taken = store.take_over_tasks(holder(1), stale, at(5)).await;
        assert_eq!(taken.unwrap(), None);
    }
    assert_eq!(row(&store, "a").await.state, TaskState::Running);
    let taken = store.take_over_tasks(holder(1), third, at(5)).await;
    assert_eq!(taken.unwrap(), Some(2));
    let again = store.take_over_tasks(holder(1), third, at(5)).await;
    assert_eq!(again.unwrap(), None);
}

pub async fn a_holder_that_is_gone_registers_anew(store: impl Store) {
    start(&store, 1, &["a"]).await;
    let lost = claim_all(&store, 2).await.remove(0);
    let silent = store.task_holders().await.unwrap()[0].beat;
    store
        .take_over_tasks(holder(1), silent, at(3))
        .await
        .unwrap();
    start(&store, 4, &["b"]).await;
    let fresh = claim_all(&store, 5).await;
    assert_eq!(ids(&fresh), ["b"]);
    // Its lost lease stays lost, and a late observer of its earlier silence takes nothing.
    conflict(&store, changes(6, vec![end(&lost, TaskFate::Done)])).await;
    let taken = store.take_over_tasks(holder(1), silent, at(6)).await;
    assert_eq!(taken.unwrap(), None);
    let report = vec![progress(&lost, 1), progress(&fresh[0], 1)];
    let beat = store.beat_tasks(holder(1), report, at(7)).await.unwrap();
    assert_eq!((beat.alive, beat.lost), (true, vec![task_id("a")]));
}

pub async fn a_stopped_holder_releases_its_tasks(store: impl Store) {
    start(&store, 1, &["a", "b"]).await;
    claim(&store, 2, 1, 1).await;
    claim(&store, 2, 2, 1).await;
    store.end_holder(holder(1), at(9)).await.unwrap();
    let after = row(&store, "a").await;
    assert_eq!((after.state, after.due), (TaskState::Ready, at(9)));
    assert_eq!((after.crashes, after.attempts), (0, 0));
    assert_eq!(row(&store, "b").await.state, TaskState::Running);
    assert_eq!(store.task_holders().await.unwrap().len(), 1);
    let commits = store.summary(at(9)).await.unwrap().commits;
    store.end_holder(holder(1), at(10)).await.unwrap();
    assert_eq!(store.summary(at(10)).await.unwrap().commits, commits);
}

pub async fn tokens_are_never_given_twice(store: impl Store) {
    let mut given = Vec::new();
    for round in 0..4 {
        start(&store, round, &["a"]).await;
        let task = claim_all(&store, round).await.remove(0);
        store
            .beat_tasks(holder(1), vec![], at(round))
            .await
            .unwrap();
        given.push(task.token.0);
        given.push(store.task_holders().await.unwrap()[0].beat.cast_signed());
        change(&store, round, vec![end(&task, TaskFate::Done)]).await;
        // The ended task's token ends no later one.
        start(&store, round, &["a"]).await;
        conflict(&store, changes(round, vec![end(&task, TaskFate::Done)])).await;
        let next = claim_all(&store, round).await.remove(0);
        assert!(next.token > task.token);
        given.push(next.token.0);
        change(&store, round, vec![end(&next, TaskFate::Ended)]).await;
        store.end_holder(holder(1), at(round)).await.unwrap();
    }
    assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
}

pub async fn a_restored_store_claims_nothing(store: impl Store) {
    start(&store, 1, &["a", "b", "c"]).await;
    let running = claim(&store, 2, 1, 1).await.remove(0);
    change(&store, 3, vec![TaskChange::Cancel(task_id("b"))]).await;
    let restored = |change| WriteSet {
        restored: Some(change),
        ..WriteSet::at(at(4))
    };
    let mark = || restored(RestoredChange::Mark("evidence".to_owned()));
    commit(&store, mark()).await;
    assert_eq!(store.task_holders().await.unwrap(), []);
    for id in ["a", "b", "c"] {
        let after = row(&store, id).await;
        assert_eq!(
            (after.state, after.lease, after.directive),
            (TaskState::Unknown, None, None)
        );
        assert!(after.error.unwrap().contains("restored from a backup"));
    }
    conflict(&store, changes(5, vec![end(&running, TaskFate::Done)])).await;
    // A task that is started from now on has not run anywhere, and waits only for the operator to accept the store.
    start(&store, 6, &["d"]).await;
    assert_eq!(claim_all(&store, 7).await, []);
    commit(&store, mark()).await;
    assert_eq!(row(&store, "d").await.state, TaskState::Ready);
    commit(&store, restored(RestoredChange::Accept)).await;
    assert_eq!(ids(&claim_all(&store, 8).await), ["d"]);
    let unknown = TaskFilter {
        state: Some(TaskState::Unknown),
        kind: None::<EventType>,
    };
    assert_eq!(store.tasks(unknown, None, 9).await.unwrap().len(), 3);
}

fn ids(tasks: &[LeasedTask]) -> Vec<String> {
    let ids = tasks.iter().map(|task| task.row.id.to_string());
    ids.collect()
}
