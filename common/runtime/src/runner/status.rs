//! The status of a role, as seen from outside.

use super::ReadinessReason;
use doorstep_store::{EventCounts, StoreUsage};

/// The phase of a role's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the broker.
    Starting,
    /// Taking deliveries.
    Consuming,
    /// Not taking deliveries, because the store cannot be used; the role retries by itself.
    Paused {
        /// The store's error.
        reason: String,
    },
    /// Not taking deliveries, because a bounded table is full; the backlog waits in the queue.
    Full {
        table: &'static str,
    },
    /// Finishing the work in progress.
    Stopping,
    Stopped,
}

/// The status of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleStatus {
    pub phase: Phase,
    /// All reasons why it is degraded; empty while it is healthy.
    pub degraded: Vec<ReadinessReason>,
    /// Deliveries from the broker that are still unacked.
    pub unacked: usize,
    /// The fill level of its store.
    pub usage: StoreUsage,
    /// The outcomes counted since its start.
    pub done: EventCounts,
}

impl RoleStatus {
    pub(super) fn starting() -> Self {
        Self {
            phase: Phase::Starting,
            degraded: Vec::new(),
            unacked: 0,
            usage: StoreUsage::default(),
            done: EventCounts::default(),
        }
    }
}
