//! How a process is, for whoever decides whether to restart it and whether to rely on it.
//!
//! - `/livez` asks whether its loops make progress: 200, or 503 with what is stuck. Red means restart: nothing else will help.
//! - `/readyz` asks whether every role consumes: 200, or 503 with the reasons of each role. A role that consumes and has something to
//!   complain of is `degraded` with 200, since neither a restart nor waiting for it would make anything better: somebody has to look.
//! - `/metrics` is all of it in numbers.

mod client;
mod limited_listener;
mod serve;

use serde::{Deserialize, Serialize};

pub use client::{HealthCheck, ProbeError, get};
pub use serve::Endpoint;

/// How something is. The worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is well.
    Ready,
    /// It works, and somebody should look at it.
    Degraded,
    /// It does not do its work.
    Unready,
}

/// How one role is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleHealth {
    /// Its name.
    pub role: String,
    /// How it is.
    pub status: HealthStatus,
    /// What it is doing, in a word.
    pub phase: String,
    /// Everything that keeps it from being ready; empty if it is.
    pub reasons: Vec<String>,
    /// The broker's own count of consumers on the role's queue; `None` where the broker could not be asked.
    pub consumers: Option<u64>,
    /// Deliveries taken and not settled.
    pub unsettled: u64,
    /// Age of the oldest delivery that is not settled, in milliseconds.
    pub oldest_unsettled_ms: Option<u64>,
    /// Age of the oldest row of the outbox, in milliseconds.
    pub oldest_outbox_ms: Option<u64>,
    /// Age of the oldest held event, in milliseconds.
    pub oldest_held_ms: Option<u64>,
    /// Dead letters that no operator has resolved; `None` before the store was read.
    pub dead_letters: Option<u64>,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_dead_letter_ms: Option<u64>,
    /// Streams whose next event is a dead letter; `None` before the store was read.
    pub blocked_streams: Option<u64>,
}

/// What `/readyz` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// How the process is: as its worst role.
    pub status: HealthStatus,
    /// What keeps the process itself from being ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Each role.
    pub roles: Vec<RoleHealth>,
}

impl Readiness {
    /// How a process with these roles is.
    #[must_use]
    pub fn of(roles: Vec<RoleHealth>) -> Self {
        let worst = roles.iter().map(|role| role.status).max();
        Self {
            status: worst.unwrap_or(HealthStatus::Ready),
            reasons: Vec::new(),
            roles,
        }
    }
}

/// What `/livez` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// Whether everything makes progress.
    pub alive: bool,
    /// What does not.
    pub stuck: Vec<String>,
}

/// Who knows how the process is. Asked on a thread of its own and must not wait for anything.
pub trait Probe: Send + Sync + 'static {
    /// Everything that makes no progress, in words.
    fn stuck(&self) -> Vec<String>;

    /// How every role is.
    fn readiness(&self) -> Readiness;

    /// Brings gauges up to date; called before metrics are read.
    fn refresh(&self);
}
