//! Names of exchanges and queues at the broker.

use std::{fmt, sync::Arc};

use derive_more::Display;
use serde::Serialize;

use crate::settings::Namespace;

/// Suffix of a queue marker's name.
pub(crate) const MARKER_SUFFIX: &str = ".marker";
/// Suffix of a quarantine queue's name.
const QUARANTINE: &str = "quarantine";

/// Returns advice for a queue declared before the quarantine queue `.net` and the dead-letter queue `.dead` had their present names. Its
/// dead-letter routing key shows it. Empty for any other difference.
pub(crate) fn former_names(argument: &str, there: &impl fmt::Display) -> &'static str {
    if argument == "x-dead-letter-routing-key" && there.to_string().ends_with(".net") {
        "; an earlier version declared it: drain and delete the role's .net, too, and delete its .dead, as docs/operations/upgrade.md shows"
    } else {
        ""
    }
}

/// Suffix of an owner record's name.
pub(crate) const OWNER: &str = ".owner";

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, derive_more::Debug, Display)]
#[serde(into = "String")]
#[debug("{_0:?}")]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Creates any name, including names outside Doorstep's scheme.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl QueueName {
    /// Returns the name of the queue's marker, an exchange that is deleted together with the queue: `doorstep.tracking.0.marker`.
    #[must_use]
    pub fn marker(&self) -> String {
        format!("{self}{MARKER_SUFFIX}")
    }

    /// Returns the prefix of its role's queues if this is a quarantine queue: `doorstep.tracking.`.
    pub(crate) fn quarantined_prefix(&self) -> Option<&str> {
        self.0
            .strip_suffix(QUARANTINE)
            .filter(|role| role.ends_with('.'))
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Namespace {
    /// Returns the topic exchange for all events: `doorstep.events`.
    #[must_use]
    pub fn events_exchange(&self) -> String {
        format!("{self}.events")
    }

    /// Returns a role's queue: `doorstep.tracking.0`.
    #[must_use]
    pub fn role_queue(&self, role: &str, partition: u16) -> QueueName {
        QueueName::new(format!("{self}.{role}.{partition}"))
    }

    /// Returns the quarantine queue, for messages that exceeded the delivery limit of a role's queue: `doorstep.tracking.quarantine`.
    #[must_use]
    pub fn quarantine_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.{role}.{QUARANTINE}"))
    }

    /// Returns the queue for copies of a role's dead letters: `doorstep.tracking.dlq`.
    #[must_use]
    pub fn dead_letter_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.{role}.dlq"))
    }

    /// Returns the exchange that records which store owns a role's queues: `doorstep.tracking.owner`.
    #[must_use]
    pub fn owner_exchange(&self, role: &str) -> String {
        format!("{self}.{role}{OWNER}")
    }

    /// Returns the queue of requests to a role: `doorstep.rpc.payments`.
    #[must_use]
    pub fn rpc_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.rpc.{role}"))
    }

    /// Returns the exchange for cancellations, by which RPC clients report requests they no longer wait for:
    /// `doorstep.rpc.payments.cancel`.
    #[must_use]
    pub fn cancel_exchange(&self, role: &str) -> String {
        format!("{self}.rpc.{role}.cancel")
    }

    /// Returns a server's own queue at that exchange, named by the server's id: `doorstep.rpc.payments.cancel.8c1f`.
    pub(crate) fn cancel_queue(&self, role: &str, server: &str) -> QueueName {
        QueueName::new(format!("{self}.rpc.{role}.cancel.{server}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_start_with_the_namespace() {
        let namespace: Namespace = "shop".parse().unwrap();
        assert_eq!(namespace.events_exchange(), "shop.events");
        assert_eq!(
            namespace.role_queue("tracking", 0).as_str(),
            "shop.tracking.0"
        );
        assert_eq!(
            namespace.quarantine_queue("tracking").as_str(),
            "shop.tracking.quarantine"
        );
        assert_eq!(
            namespace.dead_letter_queue("tracking").as_str(),
            "shop.tracking.dlq"
        );
        assert_eq!(
            namespace.rpc_queue("tracking").as_str(),
            "shop.rpc.tracking"
        );
    }
}
