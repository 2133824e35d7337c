//! The progress of the valid events, polled in the store of a role beside its process.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorstep_event::Timestamp;
use doorstep_store::{SqliteStore, Store, sqlite::Options};
use tokio::{task::JoinHandle, time::interval};

use crate::wait_for;

/// The interval between two polls of the store.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The timeout for the first start of a role.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Watches the progress of a role.
pub(super) struct Pace {
    store: SqliteStore,
    shared: Arc<Shared>,
    watching: JoinHandle<Duration>,
}

struct Shared {
    sent: AtomicU64,
    is_over: AtomicBool,
    /// The time of the last kill of the role's process.
    interrupted: Mutex<Instant>,
}

impl Pace {
    /// Waits for the role's store, and begins to watch it.
    pub(super) async fn begin(folder: &Path, role: &str) -> Self {
        let store = wait_for("the role has its store", START_LIMIT, async || {
            SqliteStore::open_read_only(folder, role, &Options::default())
                .map_err(|e| e.to_string())
        })
        .await;
        let shared = Arc::new(Shared {
            sent: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            interrupted: Mutex::new(Instant::now()),
        });
        let watching = tokio::spawn(watch(store.clone(), Arc::clone(&shared)));
        Self {
            store,
            shared,
            watching,
        }
    }

    /// Records the number of valid events sent so far.
    pub(super) fn sent(&self, events: usize) {
        self.shared.sent.store(events as u64, Ordering::Relaxed);
    }

    /// Records a kill, after which the role makes no progress for a while.
    pub(super) fn interrupted(&self) {
        *self.shared.since() = Instant::now();
    }

    /// Waits until this many events are applied or the limit has passed. Returns their number.
    pub(super) async fn applied(&self, wanted: u64, limit: Duration) -> u64 {
        let end = Instant::now() + limit;
        let mut looks = interval(POLL_INTERVAL);
        loop {
            looks.tick().await;
            let now = applied(&self.store).await.unwrap_or_default();
            if now >= wanted || Instant::now() >= end {
                return now;
            }
        }
    }

    /// Stops watching. Returns the longest time without progress while work was pending.
    pub(super) async fn longest_stall(&mut self) -> Duration {
        self.shared.is_over.store(true, Ordering::Relaxed);
        (&mut self.watching).await.unwrap()
    }
}

impl Shared {
    fn since(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.interrupted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(store: SqliteStore, shared: Arc<Shared>) -> Duration {
    let mut looks = interval(POLL_INTERVAL);
    let mut longest = Duration::ZERO;
    let mut last = 0;
    let mut progress = Instant::now();
    while !shared.is_over.load(Ordering::Relaxed) {
        looks.tick().await;
        let sent = shared.sent.load(Ordering::Relaxed);
        let Some(now) = applied(&store).await else {
            continue;
        };
        if now != last || now >= sent {
            last = now;
            progress = Instant::now();
        }
        let since = progress.max(*shared.since());
        longest = longest.max(since.elapsed());
    }
    longest
}

async fn applied(store: &SqliteStore) -> Option<u64> {
    let summary = store.summary(Timestamp::now()).await.ok()?;
    Some(summary.tally.applied)
}
