//! `consumers tasks` on a real store: lists, one task, and the decisions of operators with their exit codes.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use doorstep_event::{Epoch, EventType, Subject, Timestamp};
use doorstep_store::{
    Candidates, ClaimTasks, Commit, IfLive, NewTask, SqliteStore, Store, TaskChange, TaskDirective,
    TaskEnd, TaskFate, TaskHolder, TaskId, TaskState, WriteSet, sqlite::Options,
};
use doorstep_tests::{Ended, Program, TempDir};
use serde_json::Value;

const ROLE: &str = "reports";
const KIND: &str = "reports.render.v1";

/// A store of a role that does not run, and the programs on it.
struct Operations {
    scratch: TempDir,
    store: SqliteStore,
}

impl Operations {
    fn new() -> Self {
        let scratch = TempDir::new("tasks");
        let store = SqliteStore::open(&folder(&scratch), ROLE, &Options::default()).unwrap();
        Self { scratch, store }
    }

    async fn change(&self, change: TaskChange) {
        let changes = WriteSet {
            tasks: vec![change],
            ..WriteSet::at(Timestamp::now())
        };
        let commit = self.store.commit(changes).await.unwrap();
        assert!(matches!(commit, Commit::Written(_)));
    }

    async fn start(&self, name: &str) {
        let new = NewTask {
            id: id(name),
            kind: EventType::new(KIND).unwrap(),
            subject: Subject::new("report/1").unwrap(),
            traceparent: None,
            input: Bytes::from_static(br#"{"city":"Oslo"}"#),
            dead: 0,
            if_live: IfLive::Keep,
        };
        self.change(TaskChange::Start(new)).await;
    }

    /// Claims the only ready task.
    async fn claim(&self, name: &str) {
        let ask = ClaimTasks {
            holder: TaskHolder(Epoch::new(1, 1).unwrap()),
            process: "host 7".to_owned(),
            now: Timestamp::now(),
            kinds: vec![(EventType::new(KIND).unwrap(), 9)],
            room: 1,
            candidates: Candidates::None,
            held: vec![],
        };
        let tasks = self.store.claim_tasks(ask).await.unwrap().tasks;
        assert!(tasks.iter().any(|task| task.row.id == id(name)));
    }

    /// Makes the effect of a new task unknown.
    async fn lose(&self, name: &str) {
        self.start(name).await;
        self.claim(name).await;
        let row = self.row(name).await.unwrap();
        let end = TaskEnd {
            id: id(name),
            token: row.lease.unwrap().token,
            fate: TaskFate::Unknown {
                error: "no answer\u{1b}[31m".to_owned(),
            },
        };
        self.change(TaskChange::End(end)).await;
    }

    async fn row(&self, name: &str) -> Option<doorstep_store::TaskRow> {
        let rows = self.store.read_tasks(vec![id(name)]).await.unwrap();
        rows.into_iter().next().unwrap()
    }

    async fn ran(&self, words: &[&str]) -> Ended {
        Program::consumers(&[&["tasks"], words].concat())
            .store(&folder(&self.scratch))
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }

    /// Returns the output of a command that ends with this code.
    async fn ended(&self, code: i32, words: &[&str]) -> String {
        let ended = self.ran(words).await;
        assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.stderr);
        format!("{}{}", ended.stdout, ended.stderr)
    }
}

fn folder(scratch: &TempDir) -> PathBuf {
    scratch.join("stores")
}

fn id(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_tasks_are_listed_and_shown() {
    let operations = Operations::new();
    let nothing = operations.ended(0, &["list"]).await;
    assert!(nothing.contains("no task is live"), "{nothing}");
    operations.lose("a").await;
    operations.start("b").await;
    operations.claim("b").await;
    operations.start("c").await;
    let list = operations.ended(0, &["list", ROLE]).await;
    for (name, state) in [("a", "unknown"), ("b", "running"), ("c", "ready")] {
        let row = list.lines().find(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.starts_with(&[ROLE, name, KIND, state])
        });
        assert!(row.is_some(), "{name} in {list}");
    }
    assert!(!list.contains('\u{1b}'), "{list:?}");
    let json = operations
        .ended(0, &["list", "--json", "--state", "unknown"])
        .await;
    let [line] = json.lines().collect::<Vec<_>>()[..] else {
        panic!("{json}")
    };
    let row: Value = serde_json::from_str(line).unwrap();
    assert_eq!(row["id"], "a");
    assert_eq!(row["input"]["city"], "Oslo");
    let other = operations
        .ended(0, &["list", "--kind", "reports.other.v1"])
        .await;
    assert!(other.contains("no task is live"), "{other}");
    let limited = operations.ended(0, &["list", "--limit", "2"]).await;
    assert!(
        limited.contains("the first 2; 3 tasks are live"),
        "{limited}"
    );
    let shown = operations.ended(0, &["show", ROLE, "b"]).await;
    assert!(
        shown.contains("host 7") && shown.contains("Oslo"),
        "{shown}"
    );
    let missing = operations.ended(66, &["show", ROLE, "d"]).await;
    assert!(
        missing.contains("consumers tasks list reports"),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_decide_once_and_on_the_record() {
    let operations = Operations::new();
    for name in ["a", "b", "c", "d"] {
        operations.lose(name).await;
    }
    let because = ["--reason", "in the log"];
    let dry = operations
        .ended(
            0,
            &["resolve", ROLE, "--unknown", "--as", "done", "--dry-run"],
        )
        .await;
    assert!(dry.contains("4 would be resolved"), "{dry}");
    assert_eq!(operations.row("a").await.unwrap().state, TaskState::Unknown);
    let resolve = [&["resolve", ROLE, "a", "--as", "done"], &because[..]].concat();
    operations.ended(0, &resolve).await;
    let row = operations.row("a").await.unwrap();
    assert_eq!(row.directive, Some(TaskDirective::Done));
    // The second decision comes too late, and the others of its command are carried out.
    let again = [&["resolve", ROLE, "a", "b", "--as", "failed"], &because[..]].concat();
    operations.ended(3, &again).await;
    let row = operations.row("b").await.unwrap();
    assert_eq!(row.directive, Some(TaskDirective::Failed));
    operations.ended(0, &["retry", ROLE, "--unknown"]).await;
    for name in ["c", "d"] {
        let row = operations.row(name).await.unwrap();
        assert_eq!((row.state, row.directive), (TaskState::Ready, None));
    }
    operations.claim("c").await;
    operations.ended(65, &["retry", ROLE, "c"]).await;
    operations.ended(0, &["cancel", ROLE, "c", "d"]).await;
    let row = operations.row("d").await.unwrap();
    assert_eq!(row.directive, Some(TaskDirective::Cancel));
    let none = operations.ended(0, &["retry", ROLE, "--unknown"]).await;
    assert!(none.contains("no task is in that state"), "{none}");
    operations
        .ended(64, &["resolve", ROLE, "a", "--as", "done"])
        .await;
    operations.ended(64, &["retry", ROLE]).await;
    let audit = Program::consumers(&["dead-letters", "audit", ROLE, "--json"])
        .store(&folder(&operations.scratch))
        .run(&operations.scratch, Duration::from_secs(120))
        .await;
    let actions: Vec<String> = audit
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| row["action"].as_str().unwrap_or_default().to_owned())
        .collect();
    let of = |action: &str| actions.iter().filter(|of| *of == action).count();
    assert_eq!(
        (of("resolve_task"), of("retry_task"), of("cancel_task")),
        (2, 2, 2),
        "{}",
        audit.stdout
    );
}
