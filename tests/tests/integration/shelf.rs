//! The kinds of store that a test runs on, and the macro that runs it on each.

use doorstep_store::{MemoryStore, SqliteStore, Store, sqlite::Options};
use doorstep_tests::TempDir;

/// Where a test keeps the store of a role. Every opening is as by another process.
pub(crate) trait Shelf {
    /// The kind of store.
    type Kind: Store;

    /// An empty shelf for the role's store.
    fn new(role: &'static str) -> Self;

    /// Opens the store.
    fn open(&self) -> Self::Kind;
}

/// Keeps a store in memory.
pub(crate) struct InMemory(MemoryStore);

impl Shelf for InMemory {
    type Kind = MemoryStore;

    fn new(role: &'static str) -> Self {
        Self(MemoryStore::new(role))
    }

    fn open(&self) -> MemoryStore {
        self.0.clone()
    }
}

/// Keeps a store in a file.
pub(crate) struct InSqlite {
    role: &'static str,
    folder: TempDir,
}

impl Shelf for InSqlite {
    type Kind = SqliteStore;

    fn new(role: &'static str) -> Self {
        Self {
            role,
            folder: TempDir::new(role),
        }
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.folder.path(), self.role, &Options::default()).unwrap()
    }
}

/// A test on every kind of store: `async fn NAME(SHELF) { ... }`, with a shelf for the role `ledger`.
macro_rules! on_every_store {
    (async fn $name:ident($shelf:ident) $body:block) => {
        mod $name {
            use super::*;
            use crate::shelf::{InMemory, InSqlite, Shelf};

            async fn scene<K: Shelf>($shelf: K) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                scene(InMemory::new("ledger")).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_sqlite() {
                scene(InSqlite::new("ledger")).await;
            }
        }
    };
}

pub(crate) use on_every_store;
