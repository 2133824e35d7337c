//! Admission control: accepts everything, only orders, or nothing.
//!
//! The capacity of the gateway's own role decides, which is known whether the broker is available or not.

use std::time::Duration;

use doorstep_runtime::{
    Limits,
    limits::Capacity,
    runner::{Phase, RoleStatus},
};
use doorstep_telemetry::health::HealthStatus;
use tokio::sync::watch;

use crate::{http::Problem, readiness_issue::Issue};

/// The `Retry-After` when the store is nearly full: the broker has to return, or the outbox to drain, first.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The requests that the store can take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    All,
    /// No more positions: the remaining space is for orders.
    NoPositions,
    /// Nothing, because of this issue.
    Nothing(Issue),
}

/// Decides by the status of the gateway's role.
#[derive(Debug)]
pub(crate) struct AdmissionControl {
    status: watch::Receiver<RoleStatus>,
    limits: Limits,
}

impl AdmissionControl {
    /// Creates the control for a role with these limits.
    pub(crate) fn new(status: watch::Receiver<RoleStatus>, limits: Limits) -> Self {
        Self { status, limits }
    }

    /// Returns the present admission.
    pub(crate) fn now(&self) -> Admission {
        let status = self.status.borrow();
        match &status.phase {
            // The log says what failed in the store.
            Phase::Paused { .. } => Admission::Nothing(Issue::STORE_UNUSABLE),
            Phase::Full { .. } => Admission::Nothing(Issue::STORE_FULL),
            Phase::Stopping | Phase::Stopped => Admission::Nothing(Issue::STOPPING),
            Phase::Starting | Phase::Consuming => match self.limits.capacity(&status.usage) {
                Capacity::Ok => Admission::All,
                Capacity::NearLimit(_) | Capacity::Full(_) => Admission::NoPositions,
            },
        }
    }

    /// Checks that positions are accepted.
    ///
    /// # Errors
    /// The remaining space of the store is for orders.
    pub(crate) fn admit_positions(&self) -> Result<(), Problem> {
        match self.now() {
            // If the store can take nothing, the role rejects the command itself, or recovers in a moment.
            Admission::All | Admission::Nothing(_) => Ok(()),
            Admission::NoPositions => Err(Problem::unavailable(
                "store_nearly_full",
                "the store is nearly full, and the remaining space is for orders",
                RETRY_AFTER,
            )),
        }
    }
}

impl Admission {
    /// Returns the issue and its severity, if there is one.
    pub(crate) fn trouble(self) -> Option<(HealthStatus, Issue)> {
        match self {
            Self::All => None,
            Self::NoPositions => Some((HealthStatus::Degraded, Issue::STORE_NEARLY_FULL)),
            Self::Nothing(reason) => Some((HealthStatus::Unready, reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use doorstep_store::{EventCounts, StoreUsage, TableUsage};

    use super::*;

    fn admission(phase: Phase, filled_percent: u64) -> AdmissionControl {
        let limits = Limits::default();
        let outbox = TableUsage {
            rows: limits.outbox.rows * filled_percent / 100,
            bytes: 0,
        };
        let status = RoleStatus {
            phase,
            degraded: Vec::new(),
            unacked: 0,
            usage: StoreUsage {
                outbox,
                ..StoreUsage::default()
            },
            done: EventCounts::default(),
        };
        AdmissionControl::new(watch::channel(status).1, limits)
    }

    #[test]
    fn the_last_room_is_kept_for_orders() {
        let roomy = admission(Phase::Consuming, 79);
        assert_eq!(roomy.now(), Admission::All);
        assert_eq!(roomy.admit_positions(), Ok(()));
        let filling = admission(Phase::Consuming, 80);
        assert_eq!(filling.now(), Admission::NoPositions);
        let rejected = filling.admit_positions().unwrap_err();
        assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_full_store_is_not_ready() {
        let reason = "/var/lib/doorstep/gateway.sqlite3: disk full".to_owned();
        let table = "outbox";
        for phase in [
            Phase::Paused { reason },
            Phase::Full { table },
            Phase::Stopping,
            Phase::Stopped,
        ] {
            let (standing, said) = admission(phase, 0).now().trouble().unwrap();
            assert_eq!(standing, HealthStatus::Unready);
            assert!(!said.message.contains("sqlite"), "{said:?}");
        }
        assert_eq!(admission(Phase::Consuming, 0).now().trouble(), None);
    }
}
