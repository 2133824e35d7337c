//! The lock between the handlers of one process: a crash of one engine crashes all.

use std::sync::Arc;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A process in which several engines run. Clones are the same process.
///
/// A crash interrupts all engines of a process. To blame the right event, an event that may have caused an earlier
/// crash is tried while no other handler of the process runs.
#[derive(Debug, Clone, Default)]
pub struct HandlerLock(Arc<RwLock<()>>);

impl HandlerLock {
    /// Locks for the role's own code. Waits while an event is tried alone.
    pub(super) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Locks for an event that is tried alone, from before its crash count is raised until its outcome is written.
    /// Waits only for running handlers.
    pub(super) async fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}
