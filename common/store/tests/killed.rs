//! A process killed during its commits leaves only complete commits, including every one that it was told was written.
//!
//! The test starts itself as the process to kill, so it has a main function of its own.
#![allow(clippy::unwrap_used, reason = "this is a test")]

#[path = "behaviour/fixtures.rs"]
#[expect(
    dead_code,
    reason = "shared with the behaviour suite, which uses more of it"
)]
mod fixtures;
#[path = "behaviour/folder.rs"]
mod folder;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use doorstep_store::{
    Candidates, ClaimTasks, DeadLetterFilter, NewDeadLetter, NewOutbox, OutboxKind, SqliteStore,
    Store, TaskChange, TaskEnd, TaskFate, TaskFilter, TaskToken, WriteSet, sqlite::Options,
};
use fixtures::*;

/// Names the folder, for the process to be killed.
const FOLDER: &str = "DOORSTEP_TEST_COMMIT_UNTIL_KILLED";
const STREAMS: u64 = 30;
const ROUNDS: u64 = 12;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    if let Some(folder) = env::var_os(FOLDER) {
        return runtime.block_on(commit_until_killed(Path::new(&folder)));
    }
    // Printed in the standard harness's format, so that tools that count tests count this one.
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wanted = filters.is_empty() || filters.iter().any(|filter| NAME.contains(filter.as_str()));
    let start = std::time::Instant::now();
    if wanted {
        runtime.block_on(killed_repeatedly());
        println!("test {NAME} ... ok");
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        u8::from(wanted),
        u8::from(!wanted),
        start.elapsed().as_secs_f64()
    );
}

const NAME: &str = "a_process_that_is_killed_leaves_whole_commits_only";

async fn killed_repeatedly() {
    let folder = folder::Folder::new();
    let mut reported = 0;
    for round in 1..=ROUNDS {
        let last = kill_after(folder.path(), round * 3);
        assert!(last > reported, "round {round} has written nothing");
        reported = last;
        let found = whole_commits(folder.path()).await;
        // Reported commits are there; one more may be, whose answer was cut off.
        assert!(
            found == reported || found == reported + 1,
            "{found} commits, {reported} were reported"
        );
        reported = found;
    }
    println!("killed {ROUNDS} times, {reported} commits");
}

/// Starts a process that commits, and kills it after it has reported this many commits. Returns the last number
/// reported.
fn kill_after(folder: &Path, commits: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    for _ in 0..commits {
        last = lines.next().unwrap().unwrap().parse().unwrap();
    }
    child.kill().unwrap();
    // The reports before the kill.
    for line in lines.map_while(Result::ok) {
        last = line.parse().unwrap_or(last);
    }
    child.wait().unwrap();
    last
}

async fn commit_until_killed(folder: &Path) {
    let store = SqliteStore::open(
        folder,
        "tracking",
        &Options {
            checkpoint_pages: 200,
            ..Options::default()
        },
    )
    .unwrap();
    let mut number = stream_row(&store, &stream("order/0")).await.cursor;
    let mut leased = claim(&store).await;
    loop {
        number += 1;
        let mut changes = WriteSet::at(at(1));
        for n in 0..STREAMS {
            let about = format!("order/{n}");
            changes
                .streams
                .push(change_stream(&store, &about, Some(cursor(&about, number))).await);
            changes
                .entities
                .push(change_entity(&store, &about, Some(&number.to_string())).await);
        }
        changes.defer = vec![deferred(event("stock/1", number + 1))];
        changes.dead_letters = vec![NewDeadLetter {
            row: dead_letter(&format!("d{number}"), None),
        }];
        changes.outbox = vec![NewOutbox {
            kind: OutboxKind::Event(event("delivery/1", number)),
        }];
        changes.counts.applied = STREAMS;
        let id = |of: u64| format!("task/{of}");
        changes.tasks = vec![TaskChange::Start(new_task(&id(number)))];
        if let Some(token) = leased.take() {
            let id = task_id(&id(number - 1));
            let fate = TaskFate::Done;
            changes
                .tasks
                .push(TaskChange::End(TaskEnd { id, token, fate }));
        }
        commit(&store, changes).await;
        leased = claim(&store).await;
        let mut out = std::io::stdout();
        if writeln!(out, "{number}")
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Claims the task of the last commit. Returns its token, also if an earlier process has claimed it.
async fn claim(store: &SqliteStore) -> Option<TaskToken> {
    let ask = ClaimTasks {
        holder: holder(1),
        process: String::new(),
        now: at(1),
        kinds: vec![(new_task("task").kind, 1)],
        room: 1,
        candidates: Candidates::None,
        held: vec![],
    };
    let claimed = store.claim_tasks(ask).await.unwrap().tasks;
    claimed.first().map(|task| task.token)
}

/// Returns the number of commits after checking that each part of the store contains that many.
async fn whole_commits(folder: &Path) -> u64 {
    let store = SqliteStore::open(folder, "tracking", &Options::default()).unwrap();
    let streams = store.streams(None, 1_000).await.unwrap();
    let (orders, rest): (Vec<_>, Vec<_>) = streams
        .iter()
        .partition(|row| row.key.subject.kind() == "order");
    let number = orders[0].cursor;
    assert_eq!((orders.len() as u64, rest.len()), (STREAMS, 1));
    assert!(orders.iter().all(|row| row.cursor == number), "{orders:?}");
    assert_eq!(rest[0].deferred, number);
    let entities = store.entities(None, 1_000).await.unwrap();
    let expected = number.to_string();
    assert_eq!(entities.len() as u64, STREAMS);
    assert!(
        entities
            .iter()
            .all(|row| row.state.as_deref() == Some(expected.as_bytes()))
    );
    assert_eq!(
        store
            .dead_letters(DeadLetterFilter::All, None, 100_000)
            .await
            .unwrap()
            .len() as u64,
        number
    );
    assert_eq!(
        store.outbox(at(1), 100_000).await.unwrap().len() as u64,
        number
    );
    let summary = store.summary(at(1)).await.unwrap();
    // The task of the last commit is live, and that of each earlier commit ended with the next one.
    let tasks = store.tasks(TaskFilter::default(), None, 9).await.unwrap();
    assert_eq!(tasks.len() as u64, number.min(1));
    assert!(
        tasks
            .iter()
            .all(|row| row.id.as_str() == format!("task/{number}"))
    );
    assert_eq!(summary.tally.tasks_done, number.saturating_sub(1));
    // Each task was claimed once, and the last one once more by a later process.
    let claims = summary.commits - number;
    assert!(
        claims + 1 >= number && claims <= number + ROUNDS,
        "{claims} claims"
    );
    assert_eq!(summary.tally.applied, number * STREAMS);
    let usage = summary.usage;
    assert_eq!(
        (
            usage.deferred.rows,
            usage.dead_letters.rows,
            usage.outbox.rows
        ),
        (number, number, number)
    );
    number
}
