//! Binds a subscription's queues again periodically.
//!
//! A deleted binding causes no error: the role silently gets nothing, and publishers notice it only if no other queue takes the event. AMQP
//! cannot list bindings, but binding again changes nothing if the binding exists.

use std::{convert::Infallible, future::pending};

use tokio::time::sleep;

use super::jitter::jittered;
use crate::{
    connection::{
        Connection,
        error::{ConnectErrorKind, Denial},
    },
    settings::BrokerSettings,
    topology::{
        Topology,
        declare::{Rebound, rebind},
        names::QueueName,
    },
};

/// Returns the part of a topology with these queues' bindings.
pub(super) fn bindings_of<'a>(
    topology: &Topology,
    queues: impl Iterator<Item = &'a QueueName>,
) -> Topology {
    let queues: Vec<_> = queues.collect();
    let Topology {
        exchanges,
        bindings,
        ..
    } = topology;
    let bindings = bindings
        .iter()
        .filter(|binding| queues.contains(&&binding.queue));
    let bindings: Vec<_> = bindings.cloned().collect();
    let exchanges = exchanges
        .iter()
        .filter(|exchange| bindings.iter().any(|b| b.exchange == exchange.name));
    Topology {
        exchanges: exchanges.cloned().collect(),
        bindings,
        ..Topology::none()
    }
}

/// Binds periodically, on its own channel, while the connection lasts. Stops if the user lacks the permission. Another task notices a lost
/// connection. Never ends. Cancel-safe.
pub(super) async fn rebind_loop(
    connection: &Connection,
    own: &Topology,
    settings: &BrokerSettings,
) -> Infallible {
    if own.bindings.is_empty() {
        return pending().await;
    }
    // Logs a reason once until another one occurs.
    let mut logged = None;
    loop {
        sleep(jittered(settings.rebind_interval)).await;
        let failure = match rebind(connection, own, settings.connect_timeout).await {
            Ok(Rebound::All) => None,
            Ok(Rebound::Forbidden(reason)) => {
                tracing::debug!(reason, "this user may not restore deleted bindings");
                return pending().await;
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &failure
            && failure != logged
        {
            tracing::warn!(error = %error, "cannot restore bindings");
            if error.kind() == ConnectErrorKind::Denied(Denial::Permission) {
                return pending().await;
            }
        }
        logged = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{settings::Namespace, topology::RoleQueues};

    #[test]
    fn bindings_are_limited_to_own_queues() {
        let namespace: Namespace = "shop".parse().unwrap();
        let role = |role, subjects| RoleQueues {
            role,
            subjects,
            handles_requests: true,
        };
        let roles = [
            role("orders", &["order", "return"][..]),
            role("stock", &["stock"]),
        ];
        let topology = Topology::for_roles(&namespace, &roles);
        let (queue, quarantine) = (
            namespace.role_queue("orders", 0),
            namespace.quarantine_queue("orders"),
        );
        let own = bindings_of(&topology, [&queue].into_iter());
        let keys: Vec<_> = own.bindings.iter().map(|b| &b.routing_key).collect();
        assert_eq!(keys, ["order.#", "return.#"]);
        let exchanges: Vec<_> = own.exchanges.iter().map(|e| &e.name).collect();
        assert_eq!(exchanges, ["shop.events"]);
        assert!(own.queues.is_empty() && own.owners.is_empty());
        assert_eq!(
            bindings_of(&topology, [&quarantine].into_iter()),
            Topology::none()
        );
    }
}
