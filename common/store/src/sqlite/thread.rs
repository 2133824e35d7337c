//! A thread that owns a connection: SQLite's calls block, and a connection serves one caller at a time.

use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    db::Db,
    error::{SqliteError, StorePath},
};
use crate::StoreError;

/// How many calls may wait for the thread. Each belongs to a task that waits, so more only wait one step earlier.
const MAX_QUEUED: usize = 64;

type Job = Box<dyn FnOnce(&mut Db) + Send>;

/// The way to a thread that owns a connection. The thread ends, and closes the connection, with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    closed: watch::Receiver<()>,
    place: StorePath,
}

impl Worker {
    pub(super) fn start(name: String, mut db: Db) -> Result<Self, StoreError> {
        let place = db.place.clone();
        let (jobs, mut waiting) = mpsc::channel::<Job>(MAX_QUEUED);
        let (open, closed) = watch::channel(());
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                while let Some(job) = waiting.blocking_recv() {
                    job(&mut db);
                }
                // Whoever waits for the end waits for the connection to be closed.
                drop(db);
                drop(open);
            })
            .map_err(|e| place.unavailable(format!("its thread cannot be started: {e}")))?;
        Ok(Self {
            jobs,
            closed,
            place,
        })
    }

    /// Lets go of the thread, and waits until it has closed its connection: until every clone has let go.
    pub(super) async fn close(self) {
        let Self {
            jobs, mut closed, ..
        } = self;
        drop(jobs);
        // Nothing is ever sent, so the only change is that the sender is gone.
        while closed.changed().await.is_ok() {}
    }

    /// Runs a call on the thread. If the caller goes away before it has begun, it never begins; afterwards it runs to its end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        body: impl FnOnce(&mut Db) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            if answer.is_closed() {
                return;
            }
            let result = body(db).map_err(|stop| db.failed(stop));
            // Nobody waits any more: that is the caller's right.
            drop(answer.send(result));
        });
        let gone = || {
            self.place
                .unusable("its thread has ended, as it does only when it panics; start again")
        };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
