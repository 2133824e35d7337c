//! Promises of a store in a file: other processes, full disks, files of other programs, and restores.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic like the tests")]

#[path = "../behaviour/fixtures.rs"]
#[expect(
    dead_code,
    reason = "shared with the other suite, which uses more of it"
)]
mod fixtures;
#[path = "../behaviour/folder.rs"]
mod folder;

mod concurrent;
mod copies;
mod displaced;
mod files;
mod full;
mod log;
mod migration;
mod overflow;

use doorstep_store::{SqliteStore, sqlite::Options};
use folder::Folder;

fn open(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.path(), "tracking", &Options::default()).unwrap()
}

/// Earlier versions could lose commits when a write-ahead log was restarted.
#[test]
fn the_bundled_sqlite_is_recent() {
    assert!(
        rusqlite::version_number() >= 3_051_003,
        "{}",
        rusqlite::version()
    );
}
