//! The bindings of Doorstep's queues that the topology lacks or does not know.

use std::collections::BTreeSet;

use doorstep_messaging::{Binding, Finding, Queue, Topology};
use serde::Deserialize;

use super::{Management, ManagementError};

/// A binding of a queue as the API shows it.
#[derive(Debug, Clone, Deserialize)]
struct Shown {
    source: String,
    routing_key: String,
}

/// Lists every missing and every surplus binding of this topology's queues. Missing queues are left out: they are
/// another finding.
///
/// # Errors
/// The API request failed.
pub async fn compare(
    management: &Management,
    topology: &Topology,
) -> Result<Vec<Finding>, ManagementError> {
    let mut findings = Vec::new();
    for queue in &topology.queues {
        let shown = management.of_queue(&queue.name, "/bindings").await?;
        if let Some(shown) = shown {
            findings.extend(differences(queue, &topology.bindings, shown, management));
        }
    }
    Ok(findings)
}

fn differences(
    queue: &Queue,
    wanted: &[Binding],
    shown: Vec<Shown>,
    management: &Management,
) -> Vec<Finding> {
    let vhost = management.vhost();
    let wanted: BTreeSet<(&str, &str)> = wanted
        .iter()
        .filter(|binding| binding.queue == queue.name)
        .map(|binding| (binding.exchange.as_str(), binding.routing_key.as_str()))
        .collect();
    let there: BTreeSet<(&str, &str)> = shown
        .iter()
        .map(|shown| (shown.source.as_str(), shown.routing_key.as_str()))
        // The broker binds every queue to the default exchange, and a role marks the queues that it consumes from.
        .filter(|(source, _)| !source.is_empty() && *source != queue.name.marker())
        .collect();
    let missing = wanted
        .difference(&there)
        .map(|(exchange, key)| Finding::BindingMissing {
            queue: queue.name.clone(),
            exchange: (*exchange).to_owned(),
            routing_key: (*key).to_owned(),
            vhost: vhost.to_owned(),
        });
    let surplus = there
        .difference(&wanted)
        .map(|(exchange, key)| Finding::BindingSurplus {
            queue: queue.name.clone(),
            exchange: (*exchange).to_owned(),
            routing_key: (*key).to_owned(),
            vhost: vhost.to_owned(),
        });
    missing.chain(surplus).collect()
}

#[cfg(test)]
mod tests {
    use doorstep_messaging::RoleQueues;
    use doorstep_telemetry::HttpLogin;

    use super::*;

    #[test]
    fn missing_and_surplus_bindings_are_found() {
        let role = RoleQueues {
            role: "orders",
            subjects: &["order", "return"],
            handles_requests: false,
        };
        let topology = Topology::for_roles(&"shop".parse().unwrap(), &[role]);
        let queue = topology.queues.last().unwrap();
        let login = HttpLogin {
            user: "ops".to_owned(),
            password: "word".to_owned(),
        };
        let management = Management::new("http://localhost".parse().unwrap(), login, "eu");
        let shown = |source: &str, routing_key: &str| Shown {
            source: source.to_owned(),
            routing_key: routing_key.to_owned(),
        };
        let compare = |shown| differences(queue, &topology.bindings, shown, &management);
        let sound = vec![
            shown("", "shop.orders.0"),
            shown("shop.orders.0.marker", ""),
            shown("shop.events", "order.#"),
            shown("shop.events", "return.#"),
        ];
        assert_eq!(compare(sound.clone()), []);
        let mut other = sound;
        other[3] = shown("amq.fanout", "");
        let texts: Vec<_> = compare(other).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:#?}");
        for (text, parts) in texts.iter().zip([
            [
                "shop.orders.0 is not bound",
                "shop.events",
                "return.#",
                "topology show --definitions",
            ],
            ["shop.orders.0 is bound", "amq.fanout", "eu", "remove it"],
        ]) {
            for part in parts {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }
}
