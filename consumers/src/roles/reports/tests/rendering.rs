//! The tasks, each attempt with its own folder or after another attempt.

use std::time::Duration;

use doorstep_contracts::{CustomerId, ReportKind};
use doorstep_runtime::task::{
    AttemptFacts, DetachedAttempt, StopReason, Task, TaskContext, TaskError,
};
use doorstep_store::TaskId;
use sha2::{Digest, Sha256};

use super::*;
use crate::roles::reports::{
    contracts::RenderedReport,
    files::ReportFolder,
    tasks::{RemoveReport, RenderReport, ReportResources},
};

async fn store(events: &[Event]) -> MemoryStore {
    applied(events, 10).await
}

fn task(kind: ReportKind, from: &str, to: &str) -> RenderReport {
    RenderReport {
        report: id(7),
        requested_by: CustomerId::new("root").unwrap(),
        kind,
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        country: None,
    }
}

fn facts() -> AttemptFacts {
    AttemptFacts::first(TaskId::new("report/7").unwrap(), ten())
}

fn resources(folder: &TempDir, max_bytes: u64) -> ReportResources {
    ReportResources {
        folder: ReportFolder::new(folder.0.clone(), max_bytes),
        pace: Duration::ZERO,
    }
}

async fn attempt(
    store: &MemoryStore,
    task: &RenderReport,
    folder: &TempDir,
) -> (Result<RenderedReport, TaskError>, DetachedAttempt) {
    let (context, control) = TaskContext::detached(store.clone(), facts());
    let run = task.clone().run(context, resources(folder, 1 << 20));
    (run.await, control)
}

fn year() -> Vec<Event> {
    vec![
        placed(
            1,
            "2010-12-01T08:00:00Z",
            "France",
            vec![line("A", 2, "2.50")],
        ),
        placed(2, "2010-12-01T09:00:00Z", "EIRE", vec![line("=B", 1, "3")]),
        returned(
            3,
            "2010-12-02T08:00:00Z",
            "France",
            vec![line("A", -1, "2.50")],
        ),
        placed(4, "2010-11-30T08:00:00Z", "France", vec![line("A", 9, "9")]),
        placed(5, "2010-12-04T08:00:00Z", "France", vec![line("A", 9, "9")]),
        assigned(1, "2010-12-01T09:00:00Z", Some("Oslo"), None),
        assigned(2, "2010-12-03T09:00:00Z", Some("Oslo"), None),
    ]
}

#[tokio::test]
async fn files_agree_with_the_result() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Sales, "2010-12-01", "2010-12-03");
    let (rendered, control) = attempt(&store, &task, &folder).await;
    let rendered = rendered.unwrap();
    assert_eq!(control.progress(), (3, 3));
    assert_eq!(
        (rendered.orders, rendered.total),
        (2, Some("5.50".parse().unwrap()))
    );
    let csv = fs::read_to_string(folder.0.join(format!("{}.csv", id(7)))).unwrap();
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "2010-12-01,EIRE,'=B,1,0,0,0,3.00,0.00,0.00,0.00",
            "2010-12-01,France,A,2,0,0,0,5.00,0.00,0.00,0.00",
            "2010-12-02,France,A,0,1,0,0,0.00,2.50,0.00,0.00",
        ]
    );
    assert_eq!(rendered.files.csv.sha256, hex::encode(Sha256::digest(&csv)));
    let page = fs::read(folder.0.join(format!("{}.html", id(7)))).unwrap();
    assert_eq!(
        rendered.files.page.sha256,
        hex::encode(Sha256::digest(&page))
    );
    // Another attempt has the same result.
    let (again, _) = attempt(&store, &task, &folder).await;
    assert_eq!(again.unwrap(), rendered);
    assert_eq!(folder.names().len(), 2);
    let france = RenderReport {
        country: Some(Label::new("France").unwrap()),
        ..task
    };
    let (rendered, _) = attempt(&store, &france, &folder).await;
    assert_eq!(rendered.unwrap().total, Some("2.50".parse().unwrap()));
}

#[tokio::test]
async fn deliveries_include_the_first_day() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Deliveries, "2010-12-01", "2010-12-03");
    let rendered = attempt(&store, &task, &folder).await.0.unwrap();
    assert_eq!((rendered.orders, rendered.total), (2, None));
}

#[tokio::test]
async fn a_report_over_nothing_is_empty() {
    let folder = TempDir::new();
    for (events, from) in [(vec![], "2010-12-01"), (year(), "2001-01-01")] {
        let store = store(&events).await;
        for kind in [ReportKind::Sales, ReportKind::Deliveries] {
            let task = task(kind, from, from);
            let rendered = attempt(&store, &task, &folder).await.0.unwrap();
            assert_eq!(rendered.orders, 0);
            let csv = fs::read_to_string(folder.0.join(format!("{}.csv", id(7)))).unwrap();
            assert_eq!(csv.lines().count(), 1);
        }
    }
}

#[tokio::test]
async fn a_stopped_attempt_leaves_nothing() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Sales, "2010-12-01", "2010-12-03");
    for before in [true, false] {
        let (context, control) = TaskContext::detached(store.clone(), facts());
        let mut resources = resources(&folder, 1 << 20);
        resources.pace = Duration::from_hours(1);
        if before {
            control.stop(StopReason::Cancelled);
        }
        let run = tokio::spawn(task.clone().run(context, resources));
        if !before {
            while control.progress().0 == 0 {
                tokio::task::yield_now().await;
            }
            control.stop(StopReason::Shutdown);
        }
        assert_eq!(run.await.unwrap(), Err(TaskError::Stopped));
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}

#[tokio::test]
async fn evicted_reports_are_told_after_a_crash() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Sales, "2010-12-01", "2010-12-03");
    let csv = |number| folder.0.join(format!("{}.csv", id(number)));
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(csv(1), vec![b'x'; 20_000]).unwrap();
    let (context, control) = TaskContext::detached(store.clone(), facts());
    let rendered = task.clone().run(context, resources(&folder, 20_001)).await;
    assert_eq!(rendered.unwrap().evicted, [id(1)]);
    assert!(!csv(1).exists());
    // A crash after the removal, and the next attempt from the checkpoint.
    let checkpoint: serde_json::Value = control.checkpoints().pop().unwrap();
    fs::write(csv(2), vec![b'x'; 20_000]).unwrap();
    let (context, _control) = TaskContext::detached(store, facts().then_from(&checkpoint));
    let rendered = task.run(context, resources(&folder, 20_001)).await;
    assert_eq!(rendered.unwrap().evicted, [id(1), id(2)]);
}

#[tokio::test]
async fn errors_of_the_folder_are_retried() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Sales, "2010-12-01", "2010-12-03");
    // A file in the place of the folder: a user with all rights can write everywhere else.
    fs::write(&folder.0, "").unwrap();
    let (failed, _) = attempt(&store, &task, &folder).await;
    assert!(matches!(failed, Err(TaskError::Retry(why)) if why.contains("DOORSTEP_REPORTS_DIR")));
    fs::remove_file(&folder.0).unwrap();
    let (context, _control) = TaskContext::detached(store, facts());
    let failed = task.run(context, resources(&folder, 10)).await;
    assert!(matches!(failed, Err(TaskError::Fail(why)) if why.contains("shorter period")));
}

#[tokio::test]
async fn removing_twice_is_removing_once() {
    let (store, folder) = (store(&year()).await, TempDir::new());
    let task = task(ReportKind::Sales, "2010-12-01", "2010-12-03");
    attempt(&store, &task, &folder).await.0.unwrap();
    for _attempt in 0..2 {
        let (context, _control) = TaskContext::detached(store.clone(), facts());
        let task = RemoveReport { report: id(7) };
        task.run(context, resources(&folder, 1)).await.unwrap();
        assert!(folder.names().is_empty());
    }
}
