//! What things are called on the broker.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::settings::Namespace;

/// What the name of a queue's mark ends with.
pub(crate) const MARK: &str = ".mark";
/// The end of a net's name.
const NET: &str = "net";

/// The end of the name of an owner's record.
pub(crate) const OWNER: &str = ".owner";

/// A queue's name on the broker.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// A queue of any name, also one that Doorstep did not give.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl QueueName {
    /// The exchange that is deleted together with the queue: `doorstep.tracking.0.mark`.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{self}{MARK}")
    }

    /// Of a net, what the names of its role's queues start with: `doorstep.tracking.`.
    pub(crate) fn net_of(&self) -> Option<&str> {
        self.0.strip_suffix(NET).filter(|role| role.ends_with('.'))
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Namespace {
    /// The topic exchange that every event goes through: `doorstep.events`.
    #[must_use]
    pub fn events_exchange(&self) -> String {
        format!("{self}.events")
    }

    /// A role's queue: `doorstep.tracking.0`.
    #[must_use]
    pub fn role_queue(&self, role: &str, partition: u16) -> QueueName {
        QueueName::new(format!("{self}.{role}.{partition}"))
    }

    /// Where the broker puts what a role's queue gave up on: `doorstep.tracking.net`.
    #[must_use]
    pub fn net_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.{role}.{NET}"))
    }

    /// Where copies of a role's dead letters are shown: `doorstep.tracking.dead`.
    #[must_use]
    pub fn dead_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.{role}.dead"))
    }

    /// The exchange that records which store a role's queues belong to: `doorstep.tracking.owner`.
    #[must_use]
    pub fn owner_exchange(&self, role: &str) -> String {
        format!("{self}.{role}{OWNER}")
    }

    /// Where requests to a role wait: `doorstep.rpc.payments`.
    #[must_use]
    pub fn rpc_queue(&self, role: &str) -> QueueName {
        QueueName::new(format!("{self}.rpc.{role}"))
    }

    /// Where it is told that nobody waits for an answer any more: `doorstep.rpc.payments.cancel`.
    #[must_use]
    pub fn cancel_exchange(&self, role: &str) -> String {
        format!("{self}.rpc.{role}.cancel")
    }

    /// A server's own queue at that exchange, named by what tells servers apart: `doorstep.rpc.payments.cancel.8c1f`.
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
            namespace.net_queue("tracking").as_str(),
            "shop.tracking.net"
        );
        assert_eq!(
            namespace.dead_queue("tracking").as_str(),
            "shop.tracking.dead"
        );
        assert_eq!(
            namespace.rpc_queue("tracking").as_str(),
            "shop.rpc.tracking"
        );
    }
}
