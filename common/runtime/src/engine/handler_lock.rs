//! The process that an engine shares with others: what kills one of them kills all.

use std::sync::Arc;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A process in which several engines run. Clones are the same process.
///
/// A process that dies leaves all of its engines in the middle of something. So that the event of another is not blamed for it, an
/// event that the process may have died of before is tried while no other handler of the process runs.
#[derive(Debug, Clone, Default)]
pub struct HandlerLock(Arc<RwLock<()>>);

impl HandlerLock {
    /// To be held while a role's own code runs. Waits while an event is tried alone.
    pub(super) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// To be held while an event is tried alone, from before its trial is counted until what has come of it is written. Waits for no
    /// longer than handlers take.
    pub(super) async fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}
