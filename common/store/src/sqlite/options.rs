//! How a store in SQLite uses its file.

use std::time::Duration;

/// How a store in SQLite uses its file. The defaults are what measuring has found best; see `examples/commit_cost.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long to wait for another process that writes before the store counts as unavailable.
    pub busy_timeout: Duration,
    /// The most memory that is spent on pages of the file, in KiB.
    pub cache_kib: u32,
    /// After how many pages the write-ahead log is carried over into the file. More make that rarer, and the log larger.
    pub checkpoint_pages: u32,
    /// The most pages that the file may have, without which only the disk is the bound.
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
    /// The bytes of the write-ahead log beyond which a reader must be keeping it from being carried over: four times as many as are carried
    /// over at a time, 128 MiB by default.
    #[must_use]
    pub fn max_log_bytes(&self) -> u64 {
        4 * u64::from(self.checkpoint_pages) * u64::from(PAGE_BYTES)
    }
}

/// Bytes of a page. Random updates of many small rows write whole pages, so that larger ones cost more than they save.
pub(super) const PAGE_BYTES: u32 = 4096;

/// What the connection that lists and counts may spend on pages, in KiB: it reads each page once.
pub(super) const READER_CACHE_KIB: u32 = 4 * 1024;
