//! The minimal permissions of a user, as the patterns that RabbitMQ takes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    settings::Namespace,
    topology::{Owner, Queue, QueuePurpose, Topology, names::MARKER_SUFFIX, queue_owner::MARKER},
};

/// Patterns of resource names by kind of access, each anchored at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// Permission to declare and delete it.
    pub configure: String,
    /// Publish to; for a program that declares the topology, also bind to.
    pub write: String,
    /// Consume from; for a program that declares the topology, also bind from.
    pub read: String,
    /// Topic permissions on the events exchange. `None` if the user has no access to that exchange.
    pub topics: Option<TopicPermissions>,
}

/// Patterns of routing keys of a topic exchange. Without topic permissions on an exchange, RabbitMQ allows every key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissions {
    pub exchange: String,
    /// Publish: the families of event types that the program emits.
    pub write: String,
    pub read: String,
}

/// The party that declares the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyOwner {
    /// Every program, when it connects.
    Programs,
    /// A separate step before, for example an import of definitions. The programs only use the topology.
    Others,
}

/// Stands for any last word of a name.
const ANY_WORD: &str = "*";

/// Stands for all owner records. No other Doorstep name begins with `@`.
const ANY_RECORD: &str = "@*";

/// The default exchange's name in permissions.
pub(crate) const DEFAULT_EXCHANGE: &str = "amq.default";

impl Permissions {
    /// Permissions to monitor whether the roles' queues exist, and how full they are. Older brokers show that to any user of the virtual
    /// host, newer ones only to users with a permission on the queue.
    #[must_use]
    pub fn for_monitoring(namespace: &Namespace, topology: &Topology) -> Self {
        let mut names = Names::default();
        names.consume(topology.queues.iter());
        names.patterns(namespace)
    }

    /// Permissions to publish events of these families, given the whole topology.
    #[must_use]
    pub fn for_publisher(
        namespace: &Namespace,
        topology: &Topology,
        declared_by: TopologyOwner,
        emits: &[&str],
    ) -> Self {
        let mut names = Names::for_admin(topology, declared_by);
        names.publish(namespace, emits);
        names.patterns(namespace)
    }

    /// Permissions to call roles and publish events of these families, given the whole topology. Read access to a request queue shows
    /// whether it has a consumer.
    #[must_use]
    pub fn for_rpc_client(
        namespace: &Namespace,
        topology: &Topology,
        declared_by: TopologyOwner,
        emits: &[&str],
    ) -> Self {
        let mut names = Names::for_admin(topology, declared_by);
        names.publish(namespace, emits);
        names.write.insert(DEFAULT_EXCHANGE.to_owned());
        let cancel = topology.exchanges.iter().map(|e| e.name.clone());
        names.write.extend(cancel);
        let of_requests = |queue: &&Queue| queue.purpose == QueuePurpose::Rpc;
        names.consume(topology.queues.iter().filter(of_requests));
        names.patterns(namespace)
    }

    /// Permissions to consume the queues of one role, or of all of `topology` if `role` is `None`. They include publishing the families
    /// that the role emits, and the copies of its dead letters.
    #[must_use]
    pub fn for_consumer(
        namespace: &Namespace,
        topology: &Topology,
        role: Option<&str>,
        declared_by: TopologyOwner,
        emits: &[&str],
    ) -> Self {
        let mut names = Names::for_admin(topology, declared_by);
        names.publish(namespace, emits);
        names.write.insert(DEFAULT_EXCHANGE.to_owned());
        let of_queue = |queue: &&Queue| {
            role.is_none_or(|role| {
                queue.name == namespace.role_queue(role, 0)
                    || queue.name == namespace.quarantine_queue(role)
                    || queue.name == namespace.rpc_queue(role)
            })
        };
        for queue in topology.queues.iter().filter(of_queue) {
            if queue.purpose == QueuePurpose::Rpc {
                names.consume_cancellations(queue);
            }
            names.mark(queue);
        }
        let of_role = |owner: &&Owner| role.is_none_or(|role| owner.role == role);
        names.own(topology.owners.iter().filter(of_role));
        names.consume(topology.queues.iter().filter(of_queue));
        names.patterns(namespace)
    }

    /// Permissions for [`verify`](fn@crate::verify), which compares everything and probes every permission.
    #[must_use]
    pub fn for_verifier(namespace: &Namespace, topology: &Topology) -> Self {
        let mut names = Names::default();
        names.configure(topology);
        let exchanges = topology.exchanges.iter().map(|e| e.name.clone());
        names.write.extend(exchanges);
        names.write.insert(DEFAULT_EXCHANGE.to_owned());
        let of_requests = |queue: &&Queue| queue.purpose == QueuePurpose::Rpc;
        for queue in topology.queues.iter().filter(of_requests) {
            names.consume_cancellations(queue);
        }
        topology.queues.iter().for_each(|queue| names.mark(queue));
        names.own(topology.owners.iter());
        names.consume(topology.queues.iter());
        names.patterns(namespace)
    }
}

/// The names for each kind of access.
#[derive(Default)]
struct Names {
    /// Families of events to publish.
    emits: BTreeSet<String>,
    /// Families of events to bind.
    binds: BTreeSet<String>,
    configure: BTreeSet<String>,
    write: BTreeSet<String>,
    read: BTreeSet<String>,
}

impl Names {
    fn for_admin(topology: &Topology, declared_by: TopologyOwner) -> Self {
        let mut names = Self::default();
        if declared_by == TopologyOwner::Others {
            return names;
        }
        names.configure(topology);
        // To create a queue that dead-letters, a user needs to read from it and write to its dead-letter target.
        for queue in &topology.queues {
            if queue.arguments.contains_key("x-dead-letter-exchange") {
                names.read.insert(queue.name.to_string());
                names.write.insert(DEFAULT_EXCHANGE.to_owned());
            }
        }
        for binding in &topology.bindings {
            let family = binding.routing_key.strip_suffix(".#");
            names.binds.extend(family.map(str::to_owned));
            names.read.insert(binding.exchange.clone());
            names.write.insert(binding.queue.to_string());
        }
        names
    }

    fn configure(&mut self, topology: &Topology) {
        let exchanges = topology.exchanges.iter().map(|e| e.name.clone());
        let queues = topology.queues.iter().map(|q| q.name.to_string());
        self.configure.extend(exchanges.chain(queues));
    }

    fn publish(&mut self, namespace: &Namespace, emits: &[&str]) {
        if emits.is_empty() {
            return;
        }
        self.emits
            .extend(emits.iter().map(|family| (*family).to_owned()));
        self.write.insert(namespace.events_exchange());
    }

    /// Each server declares and binds its own queue for cancellations.
    fn consume_cancellations(&mut self, requests: &Queue) {
        let exchange = format!("{}.cancel", requests.name);
        let queue = format!("{exchange}.{ANY_WORD}");
        self.read.insert(exchange);
        self.configure.insert(queue.clone());
        self.write.insert(queue.clone());
        self.read.insert(queue);
    }

    /// The consumer of a queue declares its marker and binds the queue to it, even if all else was declared before. A marker declared by
    /// others would reappear with the next queue, and hide its loss.
    fn mark(&mut self, queue: &Queue) {
        if !queue.purpose.is_durable_work() {
            return;
        }
        let mark = queue.name.marker();
        self.configure.insert(mark.clone());
        self.read.insert(mark);
        self.write.insert(queue.name.to_string());
    }

    /// A role records the owner of its queues, even if all else was declared before. To the broker, the record is the alternate exchange of
    /// an exchange: it takes read access to the exchange and write access to the alternate.
    fn own<'a>(&mut self, owners: impl Iterator<Item = &'a Owner>) {
        for owner in owners {
            self.configure.insert(owner.exchange.clone());
            self.read.insert(owner.exchange.clone());
            self.write.insert(ANY_RECORD.to_owned());
        }
    }

    /// Leaves out the copies of dead letters, which are for people.
    fn consume<'a>(&mut self, queues: impl Iterator<Item = &'a Queue>) {
        let consumed = queues.filter(|q| q.purpose != QueuePurpose::DeadLetters);
        self.read.extend(consumed.map(|q| q.name.to_string()));
    }

    fn patterns(&self, namespace: &Namespace) -> Permissions {
        Permissions {
            configure: pattern(namespace, &self.configure),
            write: pattern(namespace, &self.write),
            read: pattern(namespace, &self.read),
            topics: self.topics(namespace),
        }
    }

    fn topics(&self, namespace: &Namespace) -> Option<TopicPermissions> {
        let exchange = namespace.events_exchange();
        let is_used = self.write.contains(&exchange) || self.read.contains(&exchange);
        is_used.then(|| TopicPermissions {
            write: keys(&self.emits, ""),
            read: keys(&self.binds, "#$"),
            exchange,
        })
    }
}

/// Builds a pattern of exactly these names: `^(amq\.default|doorstep\.(events|(orders|tracking)\.(0|quarantine)))$`.
fn pattern(namespace: &Namespace, names: &BTreeSet<String>) -> String {
    let start = format!("{namespace}.");
    let mut others = Vec::new();
    let mut ours = Vec::new();
    let mut queues: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        match name.strip_prefix(&start) {
            None => others.push(escaped(name)),
            Some(rest) => {
                // A marker's name extends its queue's, so it is listed beside it.
                let queue = rest.strip_suffix(MARKER_SUFFIX).unwrap_or(rest);
                match queue.rfind('.') {
                    None => ours.push(escaped(rest)),
                    Some(dot) => {
                        let (role, queue) = (&rest[..dot], &rest[dot + 1..]);
                        queues.entry(role).or_default().insert(queue);
                    }
                }
            }
        }
    }
    // Roles with the same queues share one alternative, to keep the pattern short.
    let mut alike: BTreeMap<BTreeSet<&str>, Vec<String>> = BTreeMap::new();
    for (role, queues) in queues {
        alike.entry(queues).or_default().push(escaped(role));
    }
    for (queues, roles) in alike {
        let queues = queues.into_iter().map(escaped).collect();
        ours.push(format!("{}\\.{}", either(roles), either(queues)));
    }
    if !ours.is_empty() {
        others.push(format!("{}{}", escaped(&start), either(ours)));
    }
    match others.as_slice() {
        [] => "^$".to_owned(),
        _ => format!("^{}$", either(others)),
    }
}

/// Builds a pattern of the families' keys: `^(order|stock)\.`.
fn keys(families: &BTreeSet<String>, rest: &str) -> String {
    if families.is_empty() {
        return "^$".to_owned();
    }
    let families = families.iter().map(|family| escaped(family)).collect();
    format!("^{}\\.{rest}", either(families))
}

fn either(mut alternatives: Vec<String>) -> String {
    match alternatives.len() {
        1 => alternatives.remove(0),
        _ => format!("({})", alternatives.join("|")),
    }
}

/// Names consist of letters, digits, dashes, underscores and dots; only the dot needs escaping.
fn escaped(name: &str) -> String {
    if name == ANY_WORD {
        return "[^.]+".to_owned();
    }
    if name == ANY_RECORD {
        return format!("{MARKER}.*");
    }
    name.replace('.', "\\.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::RoleQueues;

    fn topology(namespace: &Namespace) -> Topology {
        let role = |role, subjects| RoleQueues {
            role,
            subjects,
            handles_requests: false,
        };
        let roles = [role("orders", &["order"][..]), role("stock", &["stock"])];
        Topology::for_roles(namespace, &roles)
    }

    #[test]
    fn without_declaring_only_used_names_are_needed() {
        let namespace: Namespace = "shop.eu".parse().unwrap();
        let topology = topology(&namespace);
        let others = TopologyOwner::Others;
        let producer =
            Permissions::for_publisher(&namespace, &topology, others, &["stock", "order"]);
        assert_eq!(producer.configure, "^$");
        assert_eq!(producer.write, r"^shop\.eu\.events$");
        assert_eq!(producer.read, "^$");
        let topics = producer.topics.unwrap();
        assert_eq!(topics.exchange, "shop.eu.events");
        assert_eq!((&*topics.write, &*topics.read), (r"^(order|stock)\.", "^$"));
        let role =
            Permissions::for_consumer(&namespace, &topology, Some("orders"), others, &["payment"]);
        // The exceptions are its queues' markers and its owner record, which only the role can create.
        assert_eq!(
            role.configure,
            r"^shop\.eu\.orders\.(0\.marker|owner|quarantine\.marker)$"
        );
        assert_eq!(
            role.write,
            r"^(@.*|amq\.default|shop\.eu\.(events|orders\.(0|quarantine)))$"
        );
        let read = r"^shop\.eu\.orders\.(0|0\.marker|owner|quarantine|quarantine\.marker)$";
        assert_eq!(role.read, read);
        assert_eq!(role.topics.unwrap().write, r"^payment\.");
        let all = Permissions::for_consumer(&namespace, &topology, None, others, &[]);
        let read = r"^shop\.eu\.(orders|stock)\.(0|0\.marker|owner|quarantine|quarantine\.marker)$";
        assert_eq!(all.read, read);
        // Publishes only copies of dead letters and the owner record.
        assert_eq!(
            all.write,
            r"^(@.*|amq\.default|shop\.eu\.(orders|stock)\.(0|quarantine))$"
        );
        assert_eq!(all.topics, None);
    }

    #[test]
    fn declaring_needs_binding_and_dead_lettering() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = topology(&namespace);
        let producer =
            Permissions::for_publisher(&namespace, &topology, TopologyOwner::Programs, &["order"]);
        assert_eq!(
            producer.configure,
            r"^shop\.(events|(orders|stock)\.(0|dlq|quarantine))$"
        );
        assert_eq!(
            producer.write,
            r"^(amq\.default|shop\.(events|(orders|stock)\.0))$"
        );
        assert_eq!(producer.read, r"^shop\.(events|(orders|stock)\.0)$");
        let topics = producer.topics.unwrap();
        assert_eq!(
            (&*topics.write, &*topics.read),
            (r"^order\.", r"^(order|stock)\.#$")
        );
        let role = Permissions::for_consumer(
            &namespace,
            &topology,
            Some("stock"),
            TopologyOwner::Programs,
            &["stock"],
        );
        assert_eq!(
            role.configure,
            r"^shop\.(events|stock\.(0|0\.marker|dlq|owner|quarantine|quarantine\.marker)|orders\.(0|dlq|quarantine))$"
        );
        assert_eq!(
            role.write,
            r"^(@.*|amq\.default|shop\.(events|orders\.0|stock\.(0|quarantine)))$"
        );
    }

    #[test]
    fn a_verifier_may_probe_everything() {
        let namespace: Namespace = "shop".parse().unwrap();
        let rights = Permissions::for_verifier(&namespace, &topology(&namespace));
        assert_eq!(
            rights.configure,
            r"^shop\.(events|(orders|stock)\.(0|0\.marker|dlq|owner|quarantine|quarantine\.marker))$"
        );
        assert_eq!(
            rights.write,
            r"^(@.*|amq\.default|shop\.(events|(orders|stock)\.(0|quarantine)))$"
        );
        let read = r"^shop\.(orders|stock)\.(0|0\.marker|owner|quarantine|quarantine\.marker)$";
        assert_eq!(rights.read, read);
    }

    fn with_requests(namespace: &Namespace) -> Topology {
        let role = |role, handles_requests| RoleQueues {
            role,
            subjects: &["order"],
            handles_requests,
        };
        Topology::for_roles(namespace, &[role("orders", false), role("payments", true)])
    }

    #[test]
    fn an_rpc_server_declares_its_cancel_queue() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = with_requests(&namespace);
        let rights = Permissions::for_consumer(
            &namespace,
            &topology,
            Some("payments"),
            TopologyOwner::Others,
            &["payment"],
        );
        assert_eq!(
            rights.configure,
            r"^shop\.(rpc\.payments\.cancel\.[^.]+|payments\.(0\.marker|owner|quarantine\.marker))$"
        );
        assert_eq!(
            rights.write,
            r"^(@.*|amq\.default|shop\.(events|rpc\.payments\.cancel\.[^.]+|payments\.(0|quarantine)))$"
        );
        assert_eq!(
            rights.read,
            r"^shop\.(rpc\.payments\.cancel\.[^.]+|payments\.(0|0\.marker|owner|quarantine|quarantine\.marker)|rpc\.payments\.cancel|rpc\.payments)$"
        );
    }

    #[test]
    fn an_rpc_client_publishes_and_sees_consumers() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = with_requests(&namespace);
        let rights =
            Permissions::for_rpc_client(&namespace, &topology, TopologyOwner::Others, &["order"]);
        assert_eq!(rights.configure, "^$");
        assert_eq!(
            rights.write,
            r"^(amq\.default|shop\.(events|rpc\.payments\.cancel))$"
        );
        assert_eq!(rights.read, r"^shop\.rpc\.payments$");
    }

    #[test]
    fn monitoring_only_reads() {
        let namespace: Namespace = "shop".parse().unwrap();
        let rights = Permissions::for_monitoring(&namespace, &topology(&namespace));
        assert_eq!((&*rights.configure, &*rights.write), ("^$", "^$"));
        assert_eq!(rights.read, r"^shop\.(orders|stock)\.(0|quarantine)$");
    }
}
