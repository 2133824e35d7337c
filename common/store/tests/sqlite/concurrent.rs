//! Several processes and threads that use one file at once.

use std::{collections::HashSet, thread, time::Duration};

use doorstep_store::{
    Candidates, ClaimTasks, Commit, EntityChange, ExpectedVersion, SqliteStore, Store, StoreError,
    TaskChange, TaskEnd, TaskFate, TaskId, TaskToken, WriteSet, sqlite::Options,
};

use crate::{fixtures::*, folder::Folder, open};

fn blocking<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(body)
}

/// Increments an entity and a stream by one, retrying from fresh reads after each conflict. Returns the number of
/// conflicts.
async fn count_up(store: &SqliteStore) -> u32 {
    let mut conflicts = 0;
    loop {
        let row = entity_row(store, "counter").await;
        let state = row
            .state
            .as_deref()
            .map_or("0", |s| std::str::from_utf8(s).unwrap());
        let count: u64 = state.parse().unwrap();
        let mut changes = WriteSet::at(at(1));
        changes.streams =
            vec![change_stream(store, "order/1", Some(cursor("order/1", count + 1))).await];
        changes.entities = vec![EntityChange {
            key: row.key,
            expect: ExpectedVersion {
                row: row.row,
                version: row.version,
            },
            after: Some((count + 1).to_string().into_bytes()),
        }];
        match store.commit(changes).await.unwrap() {
            Commit::Written(_) => return conflicts,
            Commit::Conflict => conflicts += 1,
        }
    }
}

/// Claims tasks and ends them until none is left, and takes tasks of the other processes over meanwhile. Returns the
/// tokens of its leases, and the tasks that it has ended.
async fn run_tasks(store: &SqliteStore, process: u64) -> (Vec<TaskToken>, Vec<TaskId>) {
    let (mut tokens, mut ended) = (Vec::new(), Vec::new());
    for round in 0.. {
        if store.usage().await.unwrap().tasks.rows == 0 {
            break;
        }
        let claim = ClaimTasks {
            holder: holder(process),
            process: "host".to_owned(),
            now: at(1),
            kinds: vec![(new_task("task").kind, 9)],
            room: 3,
            candidates: Candidates::One,
            held: vec![],
        };
        let claimed = store.claim_tasks(claim).await.unwrap().tasks;
        tokens.extend(claimed.iter().map(|task| task.token));
        for row in store.task_holders().await.unwrap() {
            // No rule of the store asks how long the other one has been silent.
            if row.holder != holder(process) && round < 20 && round % 3 == 0 {
                let taken = store.take_over_tasks(row.holder, row.beat, at(1));
                taken.await.unwrap();
            }
        }
        for task in claimed {
            let id = task.row.id;
            let mut changes = WriteSet::at(at(1));
            changes.tasks = vec![TaskChange::End(TaskEnd {
                id: id.clone(),
                token: task.token,
                fate: TaskFate::Done,
            })];
            if let Commit::Written(_) = store.commit(changes).await.unwrap() {
                ended.push(id);
            }
        }
    }
    (tokens, ended)
}

#[test]
fn concurrent_processes_end_each_task_once() {
    const TASKS: usize = 150;
    let folder = Folder::new();
    let store = open(&folder);
    let ids: Vec<String> = (0..TASKS).map(|n| format!("task/{n}")).collect();
    let mut changes = WriteSet::at(at(1));
    let start = |id: &String| TaskChange::Start(new_task(id));
    changes.tasks = ids.iter().map(start).collect();
    blocking(commit(&store, changes));
    let together = std::sync::Barrier::new(3);
    let results: Vec<_> = thread::scope(|scope| {
        let run = |process| {
            let (folder, together) = (&folder, &together);
            scope.spawn(move || {
                let store = open(folder);
                together.wait();
                blocking(run_tasks(&store, process))
            })
        };
        let processes: Vec<_> = [1, 2, 3].map(run).into();
        processes.into_iter().map(|p| p.join().unwrap()).collect()
    });
    let tokens: Vec<_> = results.iter().flat_map(|(tokens, _)| tokens).collect();
    let different: HashSet<_> = tokens.iter().collect();
    assert_eq!(different.len(), tokens.len());
    let ended: Vec<_> = results.iter().flat_map(|(_, ended)| ended).collect();
    let different: HashSet<_> = ended.iter().collect();
    assert_eq!((ended.len(), different.len()), (TASKS, TASKS));
    let summary = blocking(store.summary(at(1))).unwrap();
    assert_eq!(summary.tally.tasks_done, TASKS as u64);
}

#[test]
fn concurrent_writers_apply_each_change_once() {
    const EACH: u64 = 150;
    let folder = Folder::new();
    // Both start each round together, even on a busy machine.
    let together = std::sync::Barrier::new(2);
    let conflicts: u32 = thread::scope(|scope| {
        let one = || {
            let store = open(&folder);
            blocking(async {
                let mut conflicts = 0;
                for _ in 0..EACH {
                    together.wait();
                    conflicts += count_up(&store).await;
                }
                conflicts
            })
        };
        let writers = [scope.spawn(one), scope.spawn(one)];
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    let store = open(&folder);
    let (entity, stream) = blocking(async {
        (
            entity_row(&store, "counter").await,
            stream_row(&store, &stream("order/1")).await,
        )
    });
    assert_eq!(
        entity.state.as_deref(),
        Some((2 * EACH).to_string().as_bytes())
    );
    assert_eq!(stream.cursor, 2 * EACH);
    assert!(conflicts > 0, "they have never met");
}

#[tokio::test]
async fn a_locked_store_is_unavailable() {
    let folder = Folder::new();
    let options = Options {
        busy_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let store = SqliteStore::open(folder.path(), "tracking", &options).unwrap();
    let other = rusqlite::Connection::open(SqliteStore::path(folder.path(), "tracking")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut changes = WriteSet::at(at(1));
    changes.counts.applied = 1;
    let error = store.commit(changes.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("locked"), "{error}");
    // Reads continue meanwhile.
    assert_eq!(store.summary(at(1)).await.unwrap().tally.applied, 0);
    assert_eq!(stream_row(&store, &stream("order/1")).await.cursor, 0);
    other.execute_batch("ROLLBACK").unwrap();
    commit(&store, changes).await;
}

#[tokio::test]
async fn a_reader_sees_each_commit_and_cannot_write() {
    let folder = Folder::new();
    let store = open(&folder);
    let reader =
        SqliteStore::open_read_only(folder.path(), "tracking", &Options::default()).unwrap();
    assert_eq!(reader.source(), store.source());
    for n in 1..4 {
        advance(&store, 1, "order/1", cursor("order/1", n)).await;
        assert_eq!(stream_row(&reader, &stream("order/1")).await.cursor, n);
        assert_eq!(reader.streams(None, 9).await.unwrap()[0].cursor, n);
    }
    let mut changes = WriteSet::at(at(1));
    changes.counts.applied = 1;
    let refusals = [
        reader.commit(changes).await.map(|_| ()),
        reader.prune_seen(at(1), 1).await.map(|_| ()),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert!(error.to_string().contains("reading only"), "{error}");
    }
}

#[test]
fn concurrent_readers_see_earlier_commits() {
    const EACH: u64 = 100;
    let folder = Folder::new();
    let store = open(&folder);
    thread::scope(|scope| {
        let read = || {
            let store = store.clone();
            blocking(async move {
                // More than are read inline, and fewer.
                for more in (0..2 * EACH).map(|n| n % 12) {
                    let before = entity_row(&store, "counter").await;
                    let mut keys = vec![entity("counter")];
                    keys.extend((0..more).map(|n| entity(&format!("none/{n}"))));
                    let seen = store.read_entities(keys).await.unwrap();
                    assert_eq!(seen.len() as u64, 1 + more);
                    assert!(seen[0].version >= before.version);
                }
            });
        };
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        blocking(async {
            for _ in 0..EACH {
                count_up(&store).await;
            }
        });
        for read in readers {
            read.join().unwrap();
        }
    });
    let seen = blocking(store.read_entities(vec![entity("counter")])).unwrap();
    assert_eq!(seen[0].state, Some(EACH.to_string().into_bytes().into()));
}

#[tokio::test]
async fn an_operator_writes_beside_the_role() {
    let folder = Folder::new();
    let store = open(&folder);
    advance(&store, 1, "order/1", blocked("order/1", 3, "d1")).await;
    let operator =
        SqliteStore::open_existing(folder.path(), "tracking", &Options::default()).unwrap();
    let stale = change_stream(&store, "order/1", Some(cursor("order/1", 3))).await;
    advance(&operator, 2, "order/1", cursor("order/1", 4)).await;
    let mut changes = WriteSet::at(at(3));
    changes.streams = vec![stale];
    conflict(&store, changes).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.cursor, 4);
}

#[test]
fn an_export_beside_a_writer_is_complete() {
    let folder = Folder::new();
    let store = open(&folder);
    let key = |n: u32| format!("order/{n:04}");
    let put = async |store: &SqliteStore, numbers: &mut dyn Iterator<Item = u32>| {
        let mut changes = WriteSet::at(at(1));
        for n in numbers {
            let change = change_entity(store, &key(n), Some("{}")).await;
            changes.entities.push(change);
        }
        commit(store, changes).await;
    };
    blocking(put(&store, &mut (0..1_000).step_by(2)));
    let (listed, pages) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            blocking(async {
                for n in (1..1_000).step_by(2) {
                    put(&store, &mut [n, n - 1].into_iter()).await;
                }
            });
        });
        let reader =
            SqliteStore::open_read_only(folder.path(), "tracking", &Options::default()).unwrap();
        let exported = blocking(async {
            let (mut listed, mut pages) = (Vec::new(), 0);
            // Repeats while the writer writes, and at least once.
            loop {
                let last_time = writer.is_finished();
                let mut after = None;
                listed.clear();
                loop {
                    let page = reader.entities(after, 50).await.unwrap();
                    let Some(last) = page.last() else { break };
                    pages += 1;
                    after = Some(last.key.clone());
                    listed.extend(page.into_iter().map(|row| row.key.to_string()));
                }
                assert!(listed.is_sorted(), "out of order");
                for n in (0..1_000).step_by(2) {
                    assert!(
                        listed.binary_search(&key(n)).is_ok(),
                        "{} is missing",
                        key(n)
                    );
                }
                if last_time {
                    return (listed, pages);
                }
            }
        });
        writer.join().unwrap();
        exported
    });
    assert_eq!(listed.len(), 1_000);
    assert!(pages > 20, "{pages} pages");
}

#[tokio::test]
async fn a_cancelled_call_is_atomic() {
    let folder = Folder::new();
    let store = open(&folder);
    for n in 1..=50 {
        let mut changes = WriteSet::at(at(1));
        changes.streams = vec![change_stream(&store, "order/1", Some(cursor("order/1", n))).await];
        changes.entities = vec![change_entity(&store, "order/1", Some(&n.to_string())).await];
        // Cancelled after one poll, mostly while the thread is working on it.
        tokio::select! {
            biased;
            written = store.commit(changes) => drop(written.unwrap()),
            () = std::future::ready(()) => {}
        }
        let row = stream_row(&store, &stream("order/1")).await;
        let state = entity_row(&store, "order/1").await.state;
        let count = state.map_or(0, |s| std::str::from_utf8(&s).unwrap().parse().unwrap());
        assert_eq!(row.cursor, count);
    }
}
