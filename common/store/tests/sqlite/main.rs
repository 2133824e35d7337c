//! What only a store in a file has to promise: other processes, full disks, foreign files, and being put back from a copy.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests, also where they are functions that tests call"
)]

#[path = "../behaviour/fixtures.rs"]
#[expect(
    dead_code,
    reason = "shared with the other suite, which uses more of it"
)]
mod fixtures;
#[path = "../behaviour/folder.rs"]
mod folder;

mod beside;
mod copies;
mod files;
mod form4;
mod full;
mod log;
mod moved;
mod overflow;

use doorstep_store::{SqliteStore, sqlite::Options};
use folder::Folder;

fn open(folder: &Folder) -> SqliteStore {
    SqliteStore::open(folder.path(), "tracking", &Options::default()).unwrap()
}

/// Later versions only: earlier ones could lose commits when a write-ahead log was begun anew.
#[test]
fn the_bundled_sqlite_is_3_51_3_or_later() {
    assert!(
        rusqlite::version_number() >= 3_051_003,
        "{}",
        rusqlite::version()
    );
}
