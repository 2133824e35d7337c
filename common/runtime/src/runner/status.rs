//! How a role is, as far as anybody outside has to know.

use doorstep_store::{EventCounts, StoreUsage};

/// Where a role is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the broker.
    Starting,
    /// Taking deliveries.
    Consuming,
    /// Not taking deliveries, because the store cannot be used; it tries again by itself.
    Paused {
        /// What the store has said.
        reason: String,
    },
    /// Not taking deliveries, because a bounded table is full; the backlog waits in the queue.
    Full {
        /// Which table.
        table: &'static str,
    },
    /// Finishing what it has begun.
    Stopping,
    /// At its end.
    Stopped,
}

/// How a role is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// Everything that makes it degraded; empty while it is well.
    pub degraded: Vec<String>,
    /// Deliveries taken from the broker and not settled yet.
    pub unsettled: usize,
    /// How full its store is.
    pub usage: StoreUsage,
    /// What it has done since it was started.
    pub done: EventCounts,
}

impl RoleStatus {
    pub(super) fn starting() -> Self {
        Self {
            phase: Phase::Starting,
            degraded: Vec::new(),
            unsettled: 0,
            usage: StoreUsage::default(),
            done: EventCounts::default(),
        }
    }

    pub(super) fn add(&mut self, done: &EventCounts) {
        let sum = &mut self.done;
        sum.applied += done.applied;
        sum.ignored += done.ignored;
        sum.duplicates += done.duplicates;
        sum.held += done.held;
        sum.dead += done.dead;
        sum.replayed += done.replayed;
        sum.skipped += done.skipped;
        sum.obeyed += done.obeyed;
    }
}
