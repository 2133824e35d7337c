//! Settings of a store in SQLite.

use std::time::Duration;

/// Settings of a store in SQLite. The defaults are the best measured values; see `examples/commit_cost.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The time to wait for another writing process before the store counts as unavailable.
    pub busy_timeout: Duration,
    /// The maximum size of the page cache, in KiB.
    pub cache_kib: u32,
    /// The number of pages after which the write-ahead log is checkpointed. More make checkpoints rarer and the log
    /// larger.
    pub checkpoint_pages: u32,
    /// The maximum number of pages of the file; `None`: limited only by the disk.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            cache_kib: 24 * 1024,
            checkpoint_pages: 8 * 1024,
            max_pages: None,
        }
    }
}

impl Options {
    /// Bytes of the write-ahead log above which a reader must be preventing checkpoints: four times as many as one
    /// checkpoint covers, 128 MiB by default.
    #[must_use]
    pub fn max_log_bytes(&self) -> u64 {
        4 * u64::from(self.checkpoint_pages) * u64::from(PAGE_BYTES)
    }
}

/// The page size in bytes. Random updates of many small rows write whole pages, so that larger ones cost more than they
/// save.
pub(super) const PAGE_BYTES: u32 = 4096;

/// The page cache of the connection that lists and counts, in KiB: it reads each page once.
pub(super) const READER_CACHE_KIB: u32 = 4 * 1024;
