//! The kinds of store that a test runs on, and the macro that runs it on each.

use doorstep_store::{MemoryStore, SqliteStore, Store, sqlite::Options};
use doorstep_tests::TempDir;

/// The storage of a role's store in a test. Every opening acts like another process.
pub(crate) trait TestStorage {
    type Kind: Store;

    /// Creates an empty storage for the role's store.
    fn new(role: &'static str) -> Self;

    fn open(&self) -> Self::Kind;
}

pub(crate) struct InMemory(MemoryStore);

impl TestStorage for InMemory {
    type Kind = MemoryStore;

    fn new(role: &'static str) -> Self {
        Self(MemoryStore::new(role))
    }

    fn open(&self) -> MemoryStore {
        self.0.clone()
    }
}

pub(crate) struct InSqlite {
    role: &'static str,
    folder: TempDir,
}

impl TestStorage for InSqlite {
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

/// Runs a test on every kind of store: `async fn NAME(SHELF) { ... }`, with storage for the role `ledger`.
macro_rules! for_each_store {
    (async fn $name:ident($storage:ident) $body:block) => {
        mod $name {
            use super::*;
            use crate::stores::{InMemory, InSqlite, TestStorage};

            async fn scene<K: TestStorage>($storage: K) $body

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

pub(crate) use for_each_store;
