//! What is to exist on the broker, as data: it can be printed, compared and declared.
//!
//! The arguments are those of a queue for good: the broker refuses to declare an existing queue with others.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{names::QueueName, settings::Namespace};

/// Every exchange, queue and binding that a Doorstep needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared next.
    pub queues: Vec<Queue>,
    /// Bound last.
    pub bindings: Vec<Binding>,
    /// Declared by each role's store that starts, see [`OwnerClaim`](crate::OwnerClaim); not with the rest.
    pub owners: Vec<Owner>,
}

/// The exchange that records which store a role's queues belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The role.
    pub role: String,
    /// The exchange.
    pub exchange: String,
}

/// An exchange, always durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// By patterns over the words of the routing key.
    Topic,
    /// To every queue that is bound.
    Fanout,
    /// By a hash of the routing key, evenly and always the same: for the partitions of a role.
    #[serde(rename = "x-consistent-hash")]
    ConsistentHash,
}

impl ExchangeKind {
    /// What the broker calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
            Self::ConsistentHash => "x-consistent-hash",
        }
    }

    /// The broker's plugin that brings it, unless the broker has it by itself.
    #[must_use]
    pub fn plugin(self) -> Option<&'static str> {
        match self {
            Self::Topic | Self::Fanout => None,
            Self::ConsistentHash => Some("rabbitmq_consistent_hash_exchange"),
        }
    }
}

/// A queue, always durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// What it is for.
    pub purpose: QueuePurpose,
    /// Its arguments, which cannot change later.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueuePurpose {
    /// Holds a role's backlog: created again, it may have lost messages.
    Role,
    /// Holds what the broker took out of a role's queue after too many attempts.
    Net,
    /// Shows copies of dead letters; nothing reads them back.
    Dead,
    /// Holds requests until their deadline.
    Rpc,
}

impl QueuePurpose {
    /// What it is for, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Role => "a role's events",
            Self::Net => "what the broker gave up on",
            Self::Dead => "copies of dead letters",
            Self::Rpc => "requests",
        }
    }

    /// Whether it matters that the queue had to be created: copies are of the past, and who asks hears of it by itself.
    pub(crate) fn is_durable_work(self) -> bool {
        match self {
            Self::Role | Self::Net => true,
            Self::Dead | Self::Rpc => false,
        }
    }
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A number, always sent as 64 bits: the broker compares values, not widths.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// Where messages come from.
    pub exchange: String,
    /// Where they go.
    pub queue: QueueName,
    /// Which of them.
    pub routing_key: String,
}

/// A role and the kinds of subject whose events it wants: whole subjects, since a filter would punch gaps into sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleQueues {
    /// The role's name.
    pub role: &'static str,
    /// The first segments of its subjects: `order` for `order/536365`.
    pub subjects: &'static [&'static str],
    /// Whether it answers requests, and so has a queue for them.
    pub handles_requests: bool,
}

/// How often a message may be given out again before the broker takes it out of a role's queue and puts it into the net.
const DELIVERY_LIMIT: i64 = 100;
/// The same of the net, behind which there is nothing: a number that is never reached, since what the broker takes out of the net is
/// gone without a row in any store. Left out, it is 20 from RabbitMQ 4.0 on, and -1, which means none there, is refused by 3.x.
const NET_DELIVERY_LIMIT: i64 = 2_147_483_647;
/// The bounds of a role's backlog; at either the broker refuses to publish, and the outbox keeps what it refused.
const ROLE_MAX_LENGTH: i64 = 5_000_000;
const ROLE_MAX_BYTES: i64 = 8 * 1024 * 1024 * 1024;
/// The bound of what a process may die of again and again before someone looks.
const NET_MAX_LENGTH: i64 = 100_000;
/// The bounds of the shown copies, oldest dropped first.
const DEAD_MAX_LENGTH: i64 = 10_000;
const DEAD_MAX_BYTES: i64 = 256 * 1024 * 1024;
/// The bounds of the requests that wait for a role; at either the broker takes no more, and whose command it was hears so at once.
pub(crate) const RPC_MAX_LENGTH: u32 = 10_000;
const RPC_MAX_BYTES: i64 = 256 * 1024 * 1024;
/// The longest that a request waits for a role, whatever it says of itself. Without it, one whose bytes no client can read, and which
/// therefore ends the connection of every server that is given it, would go back to the head of the queue and end the next, for ever.
pub(crate) const RPC_MAX_WAIT: Duration = Duration::from_mins(10);

impl Topology {
    /// What these roles need in this namespace. Producers declare it too, so that nothing is published before there is a queue for it.
    #[must_use]
    pub fn of(namespace: &Namespace, roles: &[RoleQueues]) -> Self {
        let exchange = namespace.events_exchange();
        let mut topology = Self {
            exchanges: vec![Exchange {
                name: exchange.clone(),
                kind: ExchangeKind::Topic,
            }],
            queues: Vec::new(),
            bindings: Vec::new(),
            owners: Vec::new(),
        };
        for role in roles {
            let queue = namespace.role_queue(role.role, 0);
            let net = namespace.net_queue(role.role);
            let dead = namespace.dead_queue(role.role);
            // Targets before sources: what is dead-lettered must find its queue, also in the moment between two declarations.
            topology.queues.push(dead_queue(dead));
            topology.queues.push(net_queue(net.clone()));
            topology.queues.push(role_queue(queue.clone(), &net));
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

    /// Nothing at all, for those who only look.
    #[must_use]
    pub fn none() -> Self {
        Self {
            exchanges: Vec::new(),
            queues: Vec::new(),
            bindings: Vec::new(),
            owners: Vec::new(),
        }
    }
}

fn role_queue(name: QueueName, net: &QueueName) -> Queue {
    let mut arguments = worked_queue(DELIVERY_LIMIT, ROLE_MAX_LENGTH);
    arguments.insert("x-max-length-bytes", Argument::Number(ROLE_MAX_BYTES));
    // The net is reached even if the broker fails on the way: the usual strategy can lose messages. It needs reject-publish.
    arguments.insert("x-dead-letter-exchange", text(""));
    arguments.insert("x-dead-letter-routing-key", text(net.as_str()));
    arguments.insert("x-dead-letter-strategy", text("at-least-once"));
    Queue {
        name,
        purpose: QueuePurpose::Role,
        arguments,
    }
}

/// Has no next queue: however often a connection is lost, what is in the net stays until the role has worked it. What processes die of is
/// counted in the store, where it becomes a dead letter after a few trials.
fn net_queue(name: QueueName) -> Queue {
    Queue {
        name,
        purpose: QueuePurpose::Net,
        arguments: worked_queue(NET_DELIVERY_LIMIT, NET_MAX_LENGTH),
    }
}

/// What a queue that a role works on has: one consumer at a time, and nothing dropped when it is full.
fn worked_queue(delivery_limit: i64, max_length: i64) -> BTreeMap<&'static str, Argument> {
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", Argument::Flag(true)),
        ("x-delivery-limit", Argument::Number(delivery_limit)),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", Argument::Number(max_length)),
    ])
}

fn dead_queue(name: QueueName) -> Queue {
    Queue {
        name,
        purpose: QueuePurpose::Dead,
        arguments: BTreeMap::from([
            ("x-queue-type", text("quorum")),
            ("x-max-length", Argument::Number(DEAD_MAX_LENGTH)),
            ("x-max-length-bytes", Argument::Number(DEAD_MAX_BYTES)),
            ("x-overflow", text("drop-head")),
        ]),
    }
}

/// Requests are short-lived and of no use after a crash, so their queue is a classic one: there is no quicker.
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
    fn a_role_has_three_queues_and_a_binding_for_each_subject() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = Topology::of(
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
        assert_eq!(role["x-dead-letter-routing-key"], "shop.orders.net");
        assert_eq!(role["x-max-length-bytes"], 8_589_934_592_i64);
        let net = &json["queues"][1]["arguments"];
        assert_eq!(net["x-delivery-limit"], 2_147_483_647);
        assert_eq!(net["x-overflow"], "reject-publish");
        for name in net.as_object().unwrap().keys() {
            assert!(!name.starts_with("x-dead-letter"), "{name}");
        }
        assert_eq!(role["x-delivery-limit"], 100);
        assert_eq!(role["x-dead-letter-strategy"], "at-least-once");
        assert_eq!(json["queues"][0]["arguments"]["x-overflow"], "drop-head");
        let keys: Vec<_> = topology.bindings.iter().map(|b| &b.routing_key).collect();
        assert_eq!(keys, ["order.#", "return.#"]);
    }

    #[test]
    fn a_role_that_answers_has_a_queue_for_requests_and_an_exchange_for_cancelling_them() {
        let namespace: Namespace = "shop".parse().unwrap();
        let role = RoleQueues {
            role: "payments",
            subjects: &["order"],
            handles_requests: true,
        };
        let json = serde_json::to_value(Topology::of(&namespace, &[role])).unwrap();
        assert_eq!(json["queues"][3]["name"], "shop.rpc.payments");
        assert_eq!(json["queues"][3]["purpose"], "rpc");
        let arguments = &json["queues"][3]["arguments"];
        assert_eq!(arguments["x-queue-type"], "classic");
        assert_eq!(arguments["x-message-ttl"], 600_000);
        assert_eq!(json["exchanges"][1]["name"], "shop.rpc.payments.cancel");
        assert_eq!(json["exchanges"][1]["kind"], "fanout");
    }
}
