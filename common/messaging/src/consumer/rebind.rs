//! Binding a subscription's queues again from time to time.
//!
//! A binding that somebody has deleted is no error to anybody: its role gets nothing, and publishers hear of it only where no other queue takes
//! the event. Over AMQP bindings cannot be looked at, but to bind what is bound changes nothing.

use std::{convert::Infallible, future::pending};

use tokio::time::sleep;

use super::jitter::jittered;
use crate::{
    connection::Connection,
    declare::{Rebound, rebind},
    error::{ConnectErrorKind, Refusal},
    names::QueueName,
    settings::BrokerSettings,
    topology::Topology,
};

/// The part of a topology that concerns the bindings of these queues.
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

/// Binds again and again, on a channel of its own, for as long as the connection lasts. A user who may not is asked for nothing more; that
/// the connection is lost is noticed elsewhere. Never ends. Cancel-safe.
pub(super) async fn rebind_loop(
    connection: &Connection,
    own: &Topology,
    settings: &BrokerSettings,
) -> Infallible {
    if own.bindings.is_empty() {
        return pending().await;
    }
    // Each reason is logged once as long as no other comes.
    let mut logged = None;
    loop {
        sleep(jittered(settings.rebind_interval)).await;
        let failure = match rebind(connection, own, settings.connect_timeout).await {
            Ok(Rebound::All) => None,
            Ok(Rebound::Forbidden(reason)) => {
                tracing::debug!(reason, "deleted bindings are not made again by this user");
                return pending().await;
            }
            Err(error) => Some(error),
        };
        if let Some(error) = &failure
            && failure != logged
        {
            tracing::warn!(reason = %error, "the queues could not be bound again");
            if error.kind() == ConnectErrorKind::Refused(Refusal::Permission) {
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
    fn only_the_bindings_of_its_own_queues_are_a_subscriptions() {
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
        let topology = Topology::of(&namespace, &roles);
        let (queue, net) = (
            namespace.role_queue("orders", 0),
            namespace.net_queue("orders"),
        );
        let own = bindings_of(&topology, [&queue].into_iter());
        let keys: Vec<_> = own.bindings.iter().map(|b| &b.routing_key).collect();
        assert_eq!(keys, ["order.#", "return.#"]);
        let exchanges: Vec<_> = own.exchanges.iter().map(|e| &e.name).collect();
        assert_eq!(exchanges, ["shop.events"]);
        assert!(own.queues.is_empty() && own.owners.is_empty());
        assert_eq!(bindings_of(&topology, [&net].into_iter()), Topology::none());
    }
}
