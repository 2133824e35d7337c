//! Measures the cost of the store: loading and committing batches, with and without waiting for the disk.
//!
//!     cargo run --release -p doorstep-store --example commit_cost [FOLDER]
//!
//! A batch does the work for a thousand events on many streams: it reads and writes 600 streams and 600 entities with a
//! state of 120 bytes. Processor time is that of the thread that owns the connection.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use doorstep_event::{Event, EventId, EventType, Sequence, Source, StreamKey, Subject, Timestamp};
use doorstep_store::{
    Commit, DeferReason, EntityChange, EntityKey, ExpectedVersion, NewDeferred, NewOutbox,
    OutboxKind, ReadResult, ReadSet, SqliteStore, Store, StreamChange, StreamState, WriteSet,
    sqlite::Options,
};

const BATCH: usize = 600;
const ROUNDS: usize = 200;

/// A store's thread outlives the store for a moment, so each measurement uses another role.
static NEXT: AtomicUsize = AtomicUsize::new(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("doorstep-commit-cost-{}", std::process::id())),
        PathBuf::from,
    );
    println!(
        "{BATCH} streams and {BATCH} entities a batch, medians of {ROUNDS} batches, in {}",
        folder.display()
    );
    println!(
        "{:<44} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "load", "load cpu", "commit", "commit cpu", "log"
    );
    for (name, streams, pick) in [
        ("1,000 streams", 1_000, Pick::Random),
        ("100,000 streams, at random", 100_000, Pick::Random),
        (
            "100,000 streams, one after the other",
            100_000,
            Pick::Sequential,
        ),
    ] {
        measure(&folder, name, streams, pick, With::Nothing).await?;
    }
    measure(
        &folder,
        "1,000 streams, while one event is deferred",
        1_000,
        Pick::Random,
        With::OneHeld,
    )
    .await?;
    measure(
        &folder,
        "1,000 streams, 600 events emitted and published",
        1_000,
        Pick::Random,
        With::Outbox,
    )
    .await?;
    measure(
        &folder,
        "1,000 streams, 600 events deferred and released",
        1_000,
        Pick::Random,
        With::Held,
    )
    .await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Pick {
    Random,
    Sequential,
}

#[derive(Clone, Copy, PartialEq)]
enum With {
    Nothing,
    OneHeld,
    Outbox,
    Held,
}

async fn measure(folder: &Path, name: &str, streams: usize, pick: Pick, with: With) -> Result<()> {
    drop(std::fs::remove_dir_all(folder));
    let role = format!("cost{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let store = SqliteStore::open(folder, &role, &Options::default())?;
    for first in (0..streams).step_by(10_000) {
        let all: Vec<usize> = (first..streams.min(first + 10_000)).collect();
        let loaded = store.load(read_set(&all)).await?;
        commit(&store, changes(&all, &loaded)?).await?;
    }
    if with == With::OneHeld {
        let mut one = WriteSet::at(now()?);
        one.defer = vec![deferred(stream(streams)?, 9)?];
        commit(&store, one).await?;
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut next = 0;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let batch = match pick {
            Pick::Random => random.some_of(streams, BATCH),
            Pick::Sequential => {
                next += BATCH;
                (next..next + BATCH).map(|n| n % streams).collect()
            }
        };
        let asked = read_set(&batch);
        let before = (Instant::now(), cpu(&role)?);
        let loaded = store.load(asked).await?;
        times[0].push(before.0.elapsed());
        times[1].push(cpu(&role)? - before.1);
        let mut written = changes(&batch, &loaded)?;
        match with {
            With::Nothing | With::OneHeld => {}
            With::Outbox => {
                let pending = store.outbox(Timestamp::MAX, BATCH).await?;
                written.published = pending.iter().map(|row| row.id).collect();
                for (number, change) in written.streams.iter().enumerate() {
                    let kind = OutboxKind::Event(event(change.key.clone(), number as u64 + 1)?);
                    written.outbox.push(NewOutbox { kind });
                }
            }
            With::Held => {
                let due = store.due(Timestamp::MAX, BATCH, u64::MAX).await?;
                written.release = due.iter().map(|row| row.id).collect();
                for change in &written.streams {
                    let sequence = change.after.as_ref().map_or(0, |after| after.cursor) + 5;
                    written.defer.push(deferred(change.key.clone(), sequence)?);
                }
            }
        }
        let before = (Instant::now(), cpu(&role)?);
        commit(&store, written).await?;
        times[2].push(before.0.elapsed());
        times[3].push(cpu(&role)? - before.1);
    }
    let log = std::fs::metadata(folder.join(format!("{role}.sqlite3-wal")))?.len();
    let [load, load_cpu, commit, commit_cpu] = times.map(median);
    println!(
        "{name:<44} {:>10} {:>10} {:>10} {:>10} {:>6} MiB",
        millis(load),
        millis(load_cpu),
        millis(commit),
        millis(commit_cpu),
        log / 1024 / 1024
    );
    drop(store);
    drop(std::fs::remove_dir_all(folder));
    Ok(())
}

fn now() -> Result<Timestamp> {
    Ok(Timestamp::from_second(1_767_225_600)?)
}

fn stream(number: usize) -> Result<StreamKey> {
    Ok(StreamKey {
        source: Source::new("shop/0197f5a2-7b3c-7d11-9a55-3f2b8a6c1d00")?,
        subject: Subject::new(format!("order/{}", 536_365 + number))?,
    })
}

fn event(stream: StreamKey, sequence: u64) -> Result<Event> {
    let sequence = Sequence::new(sequence).context("sequences begin with 1")?;
    Ok(Event {
        id: Event::id_for(&stream.subject, sequence)?,
        source: stream.source,
        event_type: EventType::new("order.placed.v1")?,
        subject: stream.subject,
        time: Some(now()?),
        sequence: Some(sequence),
        epoch: None,
        traceparent: None,
        data: Bytes::from(vec![b'x'; 300]),
    })
}

fn deferred(stream: StreamKey, sequence: u64) -> Result<NewDeferred> {
    Ok(NewDeferred {
        event: event(stream, sequence)?,
        defect: None,
        reason: DeferReason::OutOfOrder,
        due: Some(now()?),
        attempts: 0,
        since: now()?,
    })
}

fn read_set(numbers: &[usize]) -> ReadSet {
    let streams: Vec<StreamKey> = numbers.iter().filter_map(|n| stream(*n).ok()).collect();
    ReadSet {
        entities: streams
            .iter()
            .map(|s| EntityKey::from(&s.subject))
            .collect(),
        streams,
        deferred_per_stream: 64,
        deferred_bytes: u64::MAX,
        ..ReadSet::default()
    }
}

/// The next event of each stream, applied.
fn changes(numbers: &[usize], loaded: &ReadResult) -> Result<WriteSet> {
    let mut changes = WriteSet::at(now()?);
    changes.counts.applied = numbers.len() as u64;
    for (stream, entity) in loaded.streams.iter().zip(&loaded.entities) {
        let cursor = stream.cursor + 1;
        changes.streams.push(StreamChange {
            key: stream.key.clone(),
            expect: ExpectedVersion {
                row: stream.row,
                version: stream.version,
            },
            after: Some(StreamState {
                cursor,
                last_id: Some(EventId::new(format!("{}#{cursor}", stream.key.subject))?),
                blocked: None,
                epoch: None,
            }),
        });
        let state = format!(r#"{{"lines":{cursor},"note":"{:-<100}"}}"#, "");
        changes.entities.push(EntityChange {
            key: entity.key.clone(),
            expect: ExpectedVersion {
                row: entity.row,
                version: entity.version,
            },
            after: Some(state.into_bytes()),
        });
    }
    Ok(changes)
}

async fn commit(store: &SqliteStore, changes: WriteSet) -> Result<()> {
    match store.commit(changes).await? {
        Commit::Written(_) => Ok(()),
        Commit::Conflict => bail!("nobody else writes here"),
    }
}

/// Processor time of the thread that owns the store's connection, as the operating system counts it.
fn cpu(role: &str) -> Result<Duration> {
    for task in
        std::fs::read_dir("/proc/self/task").context("processor time is counted on Linux only")?
    {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim_end() == format!("{role} store") {
            let counts = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = counts.split(' ').next().context("no count")?;
            return Ok(Duration::from_nanos(nanos.parse()?));
        }
    }
    bail!("the store has no thread")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn some_of(&mut self, all: usize, some: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..all).collect();
        for n in 0..some {
            let other = n + self.below(all - n);
            numbers.swap(n, other);
        }
        numbers.truncate(some);
        numbers
    }
}
