//! Effective policies on Doorstep's queues that can lose messages.
//!
//! A policy and an operator policy work beside the arguments that a queue was declared with. Of two numbers, RabbitMQ
//! takes the smaller; of two overflows on a quorum queue, the policy's. An argument about dead-lettering, or the
//! overflow of a classic queue, beats a policy. So only a policy with an effect is a finding.

use doorstep_messaging::{Argument, Finding, Queue, QueuePurpose};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Management, ManagementError};

/// A queue's policies as the API shows them.
#[derive(Debug, Deserialize)]
struct Shown {
    policy: Option<String>,
    operator_policy: Option<String>,
    /// Absent while the node has no statistics of the queue. RabbitMQ writes an empty object as an empty list.
    effective_policy_definition: Option<Value>,
}

/// The effective policies of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effective {
    /// Known, with all that can lose messages.
    Known(Vec<Finding>),
    /// Not shown: the node has no statistics of the queue, or none yet.
    NotShown,
    /// There is no such queue.
    NoQueue,
}

/// The name makes sure that a column is present: RabbitMQ writes an object without any of the columns as an empty list.
const COLUMNS: &str = "?columns=name,policy,operator_policy,effective_policy_definition";

/// Reads the policies of a queue and returns those that can lose messages.
///
/// # Errors
/// The API request failed.
pub async fn read(management: &Management, queue: &Queue) -> Result<Effective, ManagementError> {
    let shown = management.of_queue(&queue.name, COLUMNS).await?;
    Ok(match shown {
        None => Effective::NoQueue,
        Some(shown) => judge(queue, shown, management.vhost()),
    })
}

fn judge(queue: &Queue, shown: Shown, vhost: &str) -> Effective {
    let definition = match shown.effective_policy_definition {
        Some(Value::Object(definition)) => definition,
        Some(Value::Array(list)) if list.is_empty() => Map::new(),
        Some(_) | None => return Effective::NotShown,
    };
    let name = |kind: &str, name: Option<String>| {
        name.filter(|name| !name.is_empty())
            .map(|name| format!("{kind} {name}"))
    };
    let names = [
        name("policy", shown.policy),
        name("operator policy", shown.operator_policy),
    ];
    let names: Vec<_> = names.into_iter().flatten().collect();
    let policy = match names.as_slice() {
        [] => "a policy".to_owned(),
        names => names.join(" with "),
    };
    let findings = definition.iter().filter_map(|(key, value)| {
        let effect = effect(queue, key, value, &definition)?;
        Some(Finding::PolicyLoses {
            queue: queue.name.clone(),
            purpose: queue.purpose,
            policy: policy.clone(),
            key: key.clone(),
            value: written(value),
            effect,
            vhost: vhost.to_owned(),
        })
    });
    Effective::Known(findings.collect())
}

/// Returns the effect of a policy's key on a queue beyond its own arguments; `None` if it loses no messages.
fn effect(
    queue: &Queue,
    key: &str,
    value: &Value,
    definition: &Map<String, Value>,
) -> Option<&'static str> {
    // Copies of dead letters are bounded and expire anyway; the dead letters are in the store.
    if queue.purpose == QueuePurpose::DeadLetters {
        return None;
    }
    let ours = queue.arguments.get(format!("x-{key}").as_str());
    let is_classic = queue.purpose == QueuePurpose::Rpc;
    match key {
        "message-ttl" if is_lower(value, ours) => {
            Some("what waits for so many milliseconds is taken out of the queue")
        }
        "expires" if is_lower(value, ours) => Some(
            "the queue is deleted with its messages after so many milliseconds without a consumer",
        ),
        "max-length" | "max-length-bytes" if is_lower(value, ours) => {
            Some(if drops(queue, definition) {
                "messages beyond that bound are dropped"
            } else {
                "the queue rejects messages beyond that bound, before its own is reached"
            })
        }
        "overflow" if !is_classic && drops(queue, definition) => {
            Some("a full queue drops its oldest messages instead of rejecting new ones")
        }
        "delivery-limit" if !is_classic && is_lower(value, ours) => Some(match queue.purpose {
            QueuePurpose::Role => {
                "messages leave the queue for the quarantine after so many deliveries"
            }
            QueuePurpose::Quarantine | QueuePurpose::DeadLetters | QueuePurpose::Rpc => {
                "messages are dropped after so many deliveries"
            }
        }),
        "dead-letter-exchange" if ours.is_none() && queue.purpose == QueuePurpose::Quarantine => {
            Some("what leaves the queue goes to an exchange where no role finds it")
        }
        "dead-letter-routing-key"
            if ours.is_none() && queue.purpose == QueuePurpose::Quarantine =>
        {
            Some("what leaves the queue goes where no role finds it")
        }
        _ => None,
    }
}

/// Returns whether a policy's number is below that of the argument. A negative number means no limit.
fn is_lower(value: &Value, ours: Option<&Argument>) -> bool {
    match (value.as_i64(), ours) {
        (Some(there), Some(Argument::Number(ours))) => (0..*ours).contains(&there),
        (Some(there), _) => there >= 0,
        // A value of an unknown kind may mean any number.
        (None, _) => true,
    }
}

/// Returns whether a full queue drops messages: by the policy on a quorum queue, else by its argument.
fn drops(queue: &Queue, definition: &Map<String, Value>) -> bool {
    let of_policy = definition.get("overflow").and_then(Value::as_str);
    let of_queue = match queue.arguments.get("x-overflow") {
        Some(Argument::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let effective = match queue.purpose {
        QueuePurpose::Rpc => of_queue.or(of_policy),
        QueuePurpose::Role | QueuePurpose::Quarantine | QueuePurpose::DeadLetters => {
            of_policy.or(of_queue)
        }
    };
    effective != Some("reject-publish")
}

/// Returns a value as a person writes it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use doorstep_messaging::{RoleQueues, Topology};
    use serde_json::json;

    use super::*;

    /// Returns the keys found on the queue whose name has this ending.
    fn found(queue: &str, definition: Value) -> Vec<String> {
        let role = RoleQueues {
            role: "orders",
            subjects: &["order"],
            handles_requests: true,
        };
        let topology = Topology::for_roles(&"shop".parse().unwrap(), &[role]);
        let mut queues = topology.queues.iter();
        let queue = queues.find(|q| q.name.as_str().ends_with(queue)).unwrap();
        let shown = json!({"policy": "p", "effective_policy_definition": definition});
        let shown = serde_json::from_value(shown).unwrap();
        match judge(queue, shown, "/") {
            Effective::Known(findings) => findings
                .into_iter()
                .map(|finding| match finding {
                    Finding::PolicyLoses { key, effect, .. } => format!("{key}: {effect}"),
                    other => other.to_string(),
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn keys(queue: &str, definition: Value) -> Vec<String> {
        let found = found(queue, definition).into_iter();
        found
            .map(|f| f.split_once(':').unwrap().0.to_owned())
            .collect()
    }

    #[test]
    fn lossy_policies_are_found_on_their_queues() {
        let all = json!({
            "dead-letter-exchange": "dlx", "dead-letter-routing-key": "lost", "delivery-limit": 5, "expires": 60000,
            "max-length": 10, "max-length-bytes": 10, "message-ttl": 1000, "overflow": "drop-head",
        });
        assert_eq!(
            keys("orders.0", all.clone()),
            [
                "delivery-limit",
                "expires",
                "max-length",
                "max-length-bytes",
                "message-ttl",
                "overflow"
            ]
        );
        assert_eq!(
            keys("orders.quarantine", all.clone()),
            [
                "dead-letter-exchange",
                "dead-letter-routing-key",
                "delivery-limit",
                "expires",
                "max-length",
                "max-length-bytes",
                "message-ttl",
                "overflow"
            ]
        );
        assert_eq!(keys("orders.dlq", all.clone()), [""; 0]);
        assert_eq!(
            keys("rpc.orders", all),
            ["expires", "max-length", "max-length-bytes", "message-ttl"]
        );
    }

    #[test]
    fn overridden_policy_is_no_finding() {
        let nothing = [""; 0];
        let harmless = json!({
            "dead-letter-exchange": "dlx", "delivery-limit": 100, "ha-mode": "all", "max-length": 5_000_000,
            "overflow": "reject-publish", "queue-leader-locator": "balanced",
        });
        assert_eq!(keys("orders.0", harmless), nothing);
        assert_eq!(keys("orders.0", json!({"delivery-limit": -1})), nothing);
        assert_eq!(keys("rpc.orders", json!({"message-ttl": 600_000})), nothing);
        assert_eq!(keys("orders.0", json!([])), nothing);
    }

    #[test]
    fn bounds_differ_by_their_overflow() {
        let refuses = found("orders.0", json!({"max-length": 10}));
        assert!(refuses[0].contains("rejects"), "{refuses:?}");
        let drops = found(
            "orders.0",
            json!({"max-length": 10, "overflow": "drop-head"}),
        );
        assert!(drops[0].contains("are dropped"), "{drops:?}");
    }

    #[test]
    fn policy_is_named_and_absent_definition_unknown() {
        let queue = &Topology::for_roles(
            &"shop".parse().unwrap(),
            &[RoleQueues {
                role: "orders",
                subjects: &[],
                handles_requests: false,
            }],
        )
        .queues[2];
        let shown = |json| judge(queue, serde_json::from_value(json).unwrap(), "eu");
        assert_eq!(shown(json!({"policy": null})), Effective::NotShown);
        let both = json!({
            "policy": "a", "operator_policy": "b", "effective_policy_definition": {"expires": 5},
        });
        let Effective::Known(findings) = shown(both) else {
            panic!("not known");
        };
        let text = findings[0].to_string();
        for part in [
            "policy a with operator policy b",
            "expires",
            "shop.orders.0",
            "list_policies -p eu",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
