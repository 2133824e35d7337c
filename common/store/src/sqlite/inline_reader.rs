//! A connection for reads of a few rows. They are done where they are asked for: from pages in memory, that takes less time than to hand
//! them to a thread and to wake up for the answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{db::Db, error::SqliteError};

/// A read that has taken longer has waited for the disk, during which nothing else could run on its thread.
const SLOW_READ: Duration = Duration::from_millis(1);
/// For how many reads it is left to a thread to wait for the disk, once one here had to.
const LEFT_TO_THREAD: u32 = 200;

/// The connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct InlineReader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    db: Mutex<Db>,
    passed_on: AtomicU32,
}

impl InlineReader {
    /// Makes a connection one that waits for nobody, and reads with it.
    pub(super) fn with(db: Db) -> rusqlite::Result<Self> {
        db.conn.busy_timeout(Duration::ZERO)?;
        Ok(Self(Arc::new(Shared {
            db: Mutex::new(db),
            passed_on: AtomicU32::new(0),
        })))
    }

    /// Reads at once. There is no answer here if somebody else reads just now, if the disk has been slow, or if it fails for any reason:
    /// then the read is for a thread that can wait, and that says what is wrong.
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
