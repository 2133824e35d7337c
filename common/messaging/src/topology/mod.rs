//! The topology at the broker as data: it can be printed, compared and declared.
//!
//! A queue's arguments are permanent: the broker rejects a redeclaration with other arguments.

pub(crate) mod declare;
pub(crate) mod delete;
pub(crate) mod names;
pub(crate) mod permissions;
pub(crate) mod precondition_failed;
pub(crate) mod queue_owner;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use strum::IntoStaticStr;

use crate::{settings::Namespace, topology::names::QueueName};

/// All exchanges, queues and bindings that Doorstep needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub exchanges: Vec<Exchange>,
    pub queues: Vec<Queue>,
    pub bindings: Vec<Binding>,
    /// Declared not with the rest, but by each role's store at its start, see [`OwnerClaim`](crate::OwnerClaim).
    pub owners: Vec<Owner>,
}

/// The exchange that records which store owns a role's queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    pub role: String,
    pub exchange: String,
}

/// An exchange; Doorstep declares only durable ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    pub name: String,
    pub kind: ExchangeKind,
}

/// The routing algorithm of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum ExchangeKind {
    /// Matches patterns against the words of the routing key.
    Topic,
    /// Routes to every bound queue.
    Fanout,
    /// Distributes by a hash of the routing key, evenly and deterministically: for the partitions of a role.
    #[serde(rename = "x-consistent-hash")]
    #[strum(serialize = "x-consistent-hash")]
    ConsistentHash,
}

impl ExchangeKind {
    /// Returns AMQP's name of the type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the broker plugin that provides the type; `None` if it is built in.
    #[must_use]
    pub fn plugin(self) -> Option<&'static str> {
        match self {
            Self::Topic | Self::Fanout => None,
            Self::ConsistentHash => Some("rabbitmq_consistent_hash_exchange"),
        }
    }
}

/// A queue; Doorstep declares only durable ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    pub name: QueueName,
    pub purpose: QueuePurpose,
    /// Arguments, which cannot change after the declaration.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The purpose of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueuePurpose {
    /// A role's backlog. If the queue is created again, messages may have been lost.
    Role,
    /// Quarantine: messages that the broker took out of a role's queue after too many deliveries.
    Quarantine,
    /// Copies of dead letters, for people to read. No program consumes them.
    DeadLetters,
    /// Holds RPC requests until their deadline.
    Rpc,
}

impl QueuePurpose {
    /// Describes the purpose for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Role => "a role's events",
            Self::Quarantine => "messages in quarantine",
            Self::DeadLetters => "copies of dead letters",
            Self::Rpc => "requests",
        }
    }

    /// Returns whether a new queue may mean lost work. Copies of dead letters only show the past, and an RPC client notices a lost request
    /// by itself.
    pub(crate) fn is_durable_work(self) -> bool {
        match self {
            Self::Role | Self::Quarantine => true,
            Self::DeadLetters | Self::Rpc => false,
        }
    }
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument {
    Text(String),
    /// Always sent with 64 bits: the broker compares values, not widths.
    Number(i64),
    Flag(bool),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    pub exchange: String,
    pub queue: QueueName,
    pub routing_key: String,
}

/// A role and the kinds of subject whose events it needs. It gets whole subjects, since a filter would leave gaps in sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleQueues {
    pub role: &'static str,
    /// First segments of its subjects: `order` for `order/536365`.
    pub subjects: &'static [&'static str],
    /// True if the role handles requests, and so has a queue for them.
    pub handles_requests: bool,
}

/// Deliveries of a message before the broker moves it from a role's queue to the quarantine queue.
const DELIVERY_LIMIT: i64 = 100;
/// Delivery limit of the quarantine queue, so high that it is never reached. Behind that queue there is none, so the broker would drop the
/// message without a record in any store. Without a limit, RabbitMQ 4.0 uses 20; -1, which disables it there, is rejected by 3.x.
const QUARANTINE_DELIVERY_LIMIT: i64 = 2_147_483_647;
/// Bounds of a role's backlog. At either bound the broker rejects a publish, and the outbox keeps the event.
const ROLE_MAX_LENGTH: i64 = 5_000_000;
const ROLE_MAX_BYTES: i64 = 8 * 1024 * 1024 * 1024;
/// Bound of the messages in quarantine, which may have crashed a process repeatedly, until an operator looks at them.
const QUARANTINE_MAX_LENGTH: i64 = 100_000;
/// Bounds of the dead-letter copies. The oldest is dropped first.
const DLQ_MAX_LENGTH: i64 = 10_000;
const DLQ_MAX_BYTES: i64 = 256 * 1024 * 1024;
/// Bounds of the requests waiting for a role. At either bound the broker rejects a request, and the client learns at once that its command
/// was not sent.
pub(crate) const RPC_MAX_LENGTH: u32 = 10_000;
const RPC_MAX_BYTES: i64 = 256 * 1024 * 1024;
/// Maximum time a request waits for a role, regardless of its own expiration. A request whose bytes no client can parse ends the connection
/// of every server that receives it. Without this limit it would return to the head of the queue and end the next connection, forever.
pub(crate) const RPC_MAX_WAIT: Duration = Duration::from_mins(10);

impl Topology {
    /// Builds the topology of these roles in this namespace. Producers and consumers both declare it, so no event is published before its
    /// queue exists.
    #[must_use]
    pub fn for_roles(namespace: &Namespace, roles: &[RoleQueues]) -> Self {
        let exchange = namespace.events_exchange();
        let mut topology = Self::none();
        topology.exchanges.push(Exchange {
            name: exchange.clone(),
            kind: ExchangeKind::Topic,
        });
        for role in roles {
            let queue = namespace.role_queue(role.role, 0);
            let quarantine = namespace.quarantine_queue(role.role);
            let dead = namespace.dead_letter_queue(role.role);
            // Targets before sources: a dead-lettered message must find its queue, even between two declarations.
            topology.queues.push(dead_letter_queue(dead));
            topology.queues.push(quarantine_queue(quarantine.clone()));
            topology.queues.push(role_queue(queue.clone(), &quarantine));
            topology.owners.push(Owner {
                role: role.role.to_owned(),
                exchange: namespace.owner_exchange(role.role),
            });
            for subject in role.subjects {
                topology.bindings.push(Binding {
                    exchange: exchange.clone(),
                    queue: queue.clone(),
                    routing_key: format!("{subject}.#"),
                });
            }
            if role.handles_requests {
                topology
                    .queues
                    .push(rpc_queue(namespace.rpc_queue(role.role)));
                topology.exchanges.push(Exchange {
                    name: namespace.cancel_exchange(role.role),
                    kind: ExchangeKind::Fanout,
                });
            }
        }
        topology
    }

    /// Returns an empty topology, for read-only programs.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

fn role_queue(name: QueueName, quarantine: &QueueName) -> Queue {
    let mut arguments = consumed_queue(DELIVERY_LIMIT, ROLE_MAX_LENGTH);
    arguments.insert("x-max-length-bytes", Argument::Number(ROLE_MAX_BYTES));
    // At-least-once dead-lettering survives a broker failure in between; the default strategy can lose messages. It requires
    // reject-publish.
    arguments.insert("x-dead-letter-exchange", text(""));
    arguments.insert("x-dead-letter-routing-key", text(quarantine.as_str()));
    arguments.insert("x-dead-letter-strategy", text("at-least-once"));
    Queue {
        name,
        purpose: QueuePurpose::Role,
        arguments,
    }
}

/// Has no dead-letter target: a message stays in quarantine until the role has processed it, however often connections are lost. The store
/// counts the crashes, and after a few attempts makes the message a dead letter.
fn quarantine_queue(name: QueueName) -> Queue {
    Queue {
        name,
        purpose: QueuePurpose::Quarantine,
        arguments: consumed_queue(QUARANTINE_DELIVERY_LIMIT, QUARANTINE_MAX_LENGTH),
    }
}

/// Arguments shared by the queues that a role consumes: a single active consumer, and nothing dropped when full.
fn consumed_queue(delivery_limit: i64, max_length: i64) -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", Argument::Flag(true)),
        ("x-delivery-limit", Argument::Number(delivery_limit)),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", Argument::Number(max_length)),
    ])
}

fn dead_letter_queue(name: QueueName) -> Queue {
    Queue {
        name,
        purpose: QueuePurpose::DeadLetters,
        arguments: BTreeMap::from([
            ("x-queue-type", text("quorum")),
            ("x-max-length", Argument::Number(DLQ_MAX_LENGTH)),
            ("x-max-length-bytes", Argument::Number(DLQ_MAX_BYTES)),
            ("x-overflow", text("drop-head")),
        ]),
    }
}

/// Requests are short-lived and useless after a crash, so they use a classic queue, the fastest type.
fn rpc_queue(name: QueueName) -> Queue {
    Queue {
        name,
        purpose: QueuePurpose::Rpc,
        arguments: BTreeMap::from([
            ("x-queue-type", text("classic")),
            ("x-max-length", Argument::Number(RPC_MAX_LENGTH.into())),
            ("x-max-length-bytes", Argument::Number(RPC_MAX_BYTES)),
            ("x-overflow", text("reject-publish")),
            ("x-message-ttl", milliseconds(RPC_MAX_WAIT)),
        ]),
    }
}

fn text(value: &str) -> Argument {
    Argument::Text(value.to_owned())
}

fn milliseconds(time: Duration) -> Argument {
    Argument::Number(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_gets_three_queues_and_its_bindings() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = Topology::for_roles(
            &namespace,
            &[RoleQueues {
                role: "orders",
                subjects: &["order", "return"],
                handles_requests: false,
            }],
        );
        let json = serde_json::to_value(&topology).unwrap();
        assert_eq!(json["exchanges"][0]["name"], "shop.events");
        assert_eq!(json["exchanges"][0]["kind"], "topic");
        assert_eq!(json["queues"][2]["name"], "shop.orders.0");
        let role = &json["queues"][2]["arguments"];
        assert_eq!(role["x-single-active-consumer"], true);
        assert_eq!(role["x-dead-letter-routing-key"], "shop.orders.quarantine");
        assert_eq!(role["x-max-length-bytes"], 8_589_934_592_i64);
        let quarantine = &json["queues"][1]["arguments"];
        assert_eq!(quarantine["x-delivery-limit"], 2_147_483_647);
        assert_eq!(quarantine["x-overflow"], "reject-publish");
        for name in quarantine.as_object().unwrap().keys() {
            assert!(!name.starts_with("x-dead-letter"), "{name}");
        }
        assert_eq!(role["x-delivery-limit"], 100);
        assert_eq!(role["x-dead-letter-strategy"], "at-least-once");
        assert_eq!(json["queues"][0]["arguments"]["x-overflow"], "drop-head");
        let keys: Vec<_> = topology.bindings.iter().map(|b| &b.routing_key).collect();
        assert_eq!(keys, ["order.#", "return.#"]);
    }

    #[test]
    fn an_rpc_role_gets_queue_and_cancel_exchange() {
        let namespace: Namespace = "shop".parse().unwrap();
        let role = RoleQueues {
            role: "payments",
            subjects: &["order"],
            handles_requests: true,
        };
        let json = serde_json::to_value(Topology::for_roles(&namespace, &[role])).unwrap();
        assert_eq!(json["queues"][3]["name"], "shop.rpc.payments");
        assert_eq!(json["queues"][3]["purpose"], "rpc");
        let arguments = &json["queues"][3]["arguments"];
        assert_eq!(arguments["x-queue-type"], "classic");
        assert_eq!(arguments["x-message-ttl"], 600_000);
        assert_eq!(json["exchanges"][1]["name"], "shop.rpc.payments.cancel");
        assert_eq!(json["exchanges"][1]["kind"], "fanout");
    }
}
