//! The health of a process, for supervisors and load balancers.
//!
//! - `/livez`: 200 if its loops make progress, 503 with the stuck ones otherwise. Red means restart, since nothing else helps.
//! - `/readyz`: 200 if every role consumes, 503 with each role's reasons otherwise. A consuming role with a problem is `degraded` with 200,
//!   because neither a restart nor waiting improves it: an operator must act.
//! - `/metrics`: the same in numbers.

mod client;
mod limited_listener;
mod serve;

use serde::{Deserialize, Serialize};

pub use client::{HealthCheck, ProbeError, get};
pub use serve::Endpoint;

/// A health status. The worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ready,
    /// It works, but an operator should look at it.
    Degraded,
    Unready,
}

/// A reason why something is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReason {
    /// Its stable name; docs/operations/readiness has a page for each.
    pub name: String,
    /// The sentence for operators.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleHealth {
    pub role: String,
    pub status: HealthStatus,
    /// Its current activity, in a word.
    pub phase: String,
    /// Everything that keeps it from being ready; empty if it is ready.
    pub reasons: Vec<HealthReason>,
    /// The broker's count of consumers on the role's queue; `None` if the broker is unreachable.
    pub consumers: Option<u64>,
    pub unsettled: u64,
    /// Age of the oldest unacked delivery, in milliseconds.
    pub oldest_unsettled_ms: Option<u64>,
    /// Age of the oldest outbox row, in milliseconds.
    pub oldest_outbox_ms: Option<u64>,
    /// Age of the oldest deferred event, in milliseconds.
    pub oldest_held_ms: Option<u64>,
    /// Unresolved dead letters; `None` until the store was read.
    pub dead_letters: Option<u64>,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_dead_letter_ms: Option<u64>,
    /// Streams whose next event is a dead letter; `None` until the store was read.
    pub blocked_streams: Option<u64>,
}

/// The response of `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// The status of the worst role.
    pub status: HealthStatus,
    /// Everything that keeps the process itself from being ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<HealthReason>,
    pub roles: Vec<RoleHealth>,
}

impl Readiness {
    /// Returns the readiness of a process with these roles.
    #[must_use]
    pub fn from_roles(roles: Vec<RoleHealth>) -> Self {
        let worst = roles.iter().map(|role| role.status).max();
        Self {
            status: worst.unwrap_or(HealthStatus::Ready),
            reasons: Vec::new(),
            roles,
        }
    }
}

/// The response of `/livez`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    pub alive: bool,
    /// Loops that make no progress.
    pub stuck: Vec<String>,
}

/// The source of a process's health. Called on a separate thread; must not block.
pub trait Probe: Send + Sync + 'static {
    /// Describes every loop that makes no progress.
    fn stuck(&self) -> Vec<String>;

    /// Returns the status of every role.
    fn readiness(&self) -> Readiness;

    /// Updates gauges; called before metrics are rendered.
    fn refresh(&self);
}
