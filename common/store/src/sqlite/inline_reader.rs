//! A connection for reads of a few rows, executed on the caller's thread. For cached pages that takes less time than a
//! handover to another thread and back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{db::Db, error::SqliteError};

/// A slower read has waited for the disk and blocked its thread meanwhile.
const SLOW_READ: Duration = Duration::from_millis(1);
/// The number of reads left to the dedicated thread after a slow one.
const LEFT_TO_THREAD: u32 = 200;

#[derive(Debug, Clone)]
pub(super) struct InlineReader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    db: Mutex<Db>,
    passed_on: AtomicU32,
}

impl InlineReader {
    /// Makes a connection that never waits for a lock, and reads with it.
    pub(super) fn with(db: Db) -> rusqlite::Result<Self> {
        db.conn.busy_timeout(Duration::ZERO)?;
        Ok(Self(Arc::new(Shared {
            db: Mutex::new(db),
            passed_on: AtomicU32::new(0),
        })))
    }

    /// Reads immediately. Returns `None` if another read is running, the disk was slow recently, or the read fails:
    /// then the caller uses the dedicated thread, which can wait and reports the error.
    pub(super) fn read<T>(
        &self,
        body: impl FnOnce(&mut Db) -> Result<T, SqliteError>,
    ) -> Option<T> {
        let Shared { db, passed_on } = &*self.0;
        let fewer = |left: u32| left.checked_sub(1);
        let is_slow = passed_on.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        if is_slow.is_ok() {
            return None;
        }
        let mut db = db.try_lock().ok()?;
        let began = Instant::now();
        let read = body(&mut db);
        if began.elapsed() > SLOW_READ {
            passed_on.store(LEFT_TO_THREAD, Ordering::Relaxed);
        }
        read.ok()
    }
}
