//! A thread that owns a connection: SQLite's calls block, and a connection serves one caller at a time.

use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    db::Db,
    error::{SqliteError, StorePath},
};
use crate::Result;

/// The capacity of the queue. Each call belongs to a waiting task, so further ones only wait one step earlier.
const MAX_QUEUED: usize = 64;

type WorkerJob = Box<dyn FnOnce(&mut Db) + Send>;

/// A handle to the thread that owns a connection. With the last clone the thread ends and closes the connection.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    jobs: mpsc::Sender<WorkerJob>,
    closed: watch::Receiver<()>,
    place: StorePath,
}

impl Worker {
    pub(super) fn start(name: String, mut db: Db) -> Result<Self> {
        let place = db.place.clone();
        let (jobs, mut waiting) = mpsc::channel::<WorkerJob>(MAX_QUEUED);
        let (open, closed) = watch::channel(());
        thread::Builder::new()
            .name(name)
            .spawn(move || {
                while let Some(job) = waiting.blocking_recv() {
                    job(&mut db);
                }
                // Waiting for the thread's end includes closing the connection.
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

    /// Drops this handle and waits until the thread has closed its connection, which takes until every clone is
    /// dropped.
    pub(super) async fn close(self) {
        let Self {
            jobs, mut closed, ..
        } = self;
        drop(jobs);
        // No value is ever sent, so the only change is that the sender was dropped.
        while closed.changed().await.is_ok() {}
    }

    /// Runs a call on the thread. A call cancelled before it begins never runs; once begun, it runs to its end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        body: impl FnOnce(&mut Db) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job: WorkerJob = Box::new(move |db| {
            if answer.is_closed() {
                return;
            }
            let result = body(db).map_err(|stop| db.failed(stop));
            // The caller may have been cancelled.
            drop(answer.send(result));
        });
        let gone = || self.place.unusable("its thread has panicked; start again");
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
