//! The issues that keep the gateway from being ready. The answer gives no details, since its client need not have
//! logged in; the log does.

use doorstep_runtime::runner::ReasonName;
use doorstep_telemetry::health::HealthReason;

/// An issue that makes the gateway degraded or unready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issue {
    name: ReasonName,
    pub(crate) message: &'static str,
}

impl Issue {
    pub(crate) const BROKER_AWAY: Self =
        Self::new(ReasonName::BrokerUnavailable, "the broker is away");
    pub(crate) const BROKER_BLOCKED: Self = Self::new(
        ReasonName::BrokerBlocked,
        "the broker takes nothing for now",
    );
    pub(crate) const STORE_UNREADABLE: Self =
        Self::new(ReasonName::StoreUnavailable, "the store cannot be read");
    pub(crate) const STORE_UNUSABLE: Self =
        Self::new(ReasonName::StoreUnavailable, "the store cannot be used");
    pub(crate) const STORE_FULL: Self = Self::new(ReasonName::StoreFull, "the store is full");
    pub(crate) const STORE_NEARLY_FULL: Self = Self::new(
        ReasonName::StoreNearlyFull,
        "the store is nearly full: positions are rejected",
    );
    pub(crate) const STOPPING: Self = Self::new(ReasonName::Stopping, "the gateway is stopping");
    pub(crate) const UNRESOLVED: Self = Self::new(
        ReasonName::UnresolvedAfterRestore,
        "orders that were open when the store was copied have no known outcome: see the how-to on restoring the gateway's store",
    );

    const fn new(name: ReasonName, message: &'static str) -> Self {
        Self { name, message }
    }
}

impl From<Issue> for HealthReason {
    fn from(issue: Issue) -> Self {
        Self {
            name: issue.name.as_str().to_owned(),
            message: issue.message.to_owned(),
        }
    }
}
