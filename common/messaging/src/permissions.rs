//! The least that a user must be allowed to do, as the patterns that RabbitMQ takes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    names::MARK,
    owner::MARKER,
    settings::Namespace,
    topology::{Owner, Queue, QueuePurpose, Topology},
};

/// The patterns of the names with which a user may do what; each is anchored at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// Declare and delete.
    pub configure: String,
    /// Publish to; for whoever declares, also bind to.
    pub write: String,
    /// Consume from; for whoever declares, also bind from.
    pub read: String,
    /// Which events of the exchange of events. `None` where the user has no right to that exchange.
    pub topics: Option<TopicPermissions>,
}

/// The patterns of routing keys of a topic exchange. RabbitMQ allows every key to a user that has none for the exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissions {
    /// The exchange.
    pub exchange: String,
    /// Publish: the types of the families that the program emits.
    pub write: String,
    /// Bind.
    pub read: String,
}

/// Who brings the topology about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyOwner {
    /// Every program for itself, when it connects.
    Programs,
    /// Somebody before them, as by importing it. They only find it there.
    Others,
}

/// The last word of a name that has any last word.
const ANY_WORD: &str = "*";

/// All records of owners: no name of ours begins as they do.
const ANY_RECORD: &str = "@*";

/// How the default exchange is called in permissions.
pub(crate) const DEFAULT_EXCHANGE: &str = "amq.default";

impl Permissions {
    /// For looking whether the queues that roles work are there, and how full they are. Older brokers show that to whoever is let into
    /// the virtual host, newer ones to who has a right to the queue.
    #[must_use]
    pub fn for_monitoring(namespace: &Namespace, topology: &Topology) -> Self {
        let mut names = Names::default();
        names.consume(topology.queues.iter());
        names.patterns(namespace)
    }

    /// For publishing events of these families, where this whole topology is to exist.
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

    /// For asking roles and publishing events of these families, where this whole topology is to exist. To read a queue of requests is to be shown whether
    /// anybody answers them.
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

    /// For working the queues of one role, or of all of `topology` if none is named; also for publishing the families that it emits and the
    /// copies of its dead letters.
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
                    || queue.name == namespace.net_queue(role)
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

    /// For [`verify`](crate::verify), which compares everything and asks for every right.
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

/// The names for each right.
#[derive(Default)]
struct Names {
    /// The families of events to publish.
    emits: BTreeSet<String>,
    /// The families of events to bind.
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
        // Who creates a queue that dead-letters must be allowed to take from it, and to publish to where it dead-letters.
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

    /// Each server makes a queue of its own for that, and binds it.
    fn consume_cancellations(&mut self, requests: &Queue) {
        let exchange = format!("{}.cancel", requests.name);
        let queue = format!("{exchange}.{ANY_WORD}");
        self.read.insert(exchange);
        self.configure.insert(queue.clone());
        self.write.insert(queue.clone());
        self.read.insert(queue);
    }

    /// Whoever consumes from a queue makes its mark and binds the queue to it, also where all else was declared before: a mark that others
    /// make would be there again with the next queue.
    fn mark(&mut self, queue: &Queue) {
        if !queue.purpose.is_durable_work() {
            return;
        }
        let mark = queue.name.mark();
        self.configure.insert(mark.clone());
        self.read.insert(mark);
        self.write.insert(queue.name.to_string());
    }

    /// A role records the owner of its queues, also where all else was declared before: the record is the argument of an exchange, an
    /// alternate exchange as far as the broker knows, which takes the right to read the one and to write to the other.
    fn own<'a>(&mut self, owners: impl Iterator<Item = &'a Owner>) {
        for owner in owners {
            self.configure.insert(owner.exchange.clone());
            self.read.insert(owner.exchange.clone());
            self.write.insert(ANY_RECORD.to_owned());
        }
    }

    /// What holds copies of dead letters is for people to look at.
    fn consume<'a>(&mut self, queues: impl Iterator<Item = &'a Queue>) {
        let worked = queues.filter(|q| q.purpose != QueuePurpose::Dead);
        self.read.extend(worked.map(|q| q.name.to_string()));
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

/// The pattern of exactly these names: `^(amq\.default|doorstep\.(events|(orders|tracking)\.(0|net)))$`.
fn pattern(namespace: &Namespace, names: &BTreeSet<String>) -> String {
    let start = format!("{namespace}.");
    let mut others = Vec::new();
    let mut ours = Vec::new();
    let mut queues: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        match name.strip_prefix(&start) {
            None => others.push(escaped(name)),
            Some(rest) => {
                // A mark is named after its queue, so it stands beside it.
                let queue = rest.strip_suffix(MARK).unwrap_or(rest);
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
    // Roles with the same queues share one alternative, for brevity.
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

/// The pattern of the keys of these families: `^(order|stock)\.`.
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

/// Names are made of letters, digits, dashes, underscores and dots, of which only the dot means something in a pattern.
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
        Topology::of(namespace, &roles)
    }

    #[test]
    fn who_declares_nothing_needs_only_what_it_uses() {
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
        // But for the marks of its queues and the record of their owner, which only it can make.
        assert_eq!(
            role.configure,
            r"^shop\.eu\.orders\.(0\.mark|net\.mark|owner)$"
        );
        assert_eq!(
            role.write,
            r"^(@.*|amq\.default|shop\.eu\.(events|orders\.(0|net)))$"
        );
        let read = r"^shop\.eu\.orders\.(0|0\.mark|net|net\.mark|owner)$";
        assert_eq!(role.read, read);
        assert_eq!(role.topics.unwrap().write, r"^payment\.");
        let all = Permissions::for_consumer(&namespace, &topology, None, others, &[]);
        let read = r"^shop\.eu\.(orders|stock)\.(0|0\.mark|net|net\.mark|owner)$";
        assert_eq!(all.read, read);
        // Nothing to publish but copies, and the record of the owner.
        assert_eq!(
            all.write,
            r"^(@.*|amq\.default|shop\.eu\.(orders|stock)\.(0|net))$"
        );
        assert_eq!(all.topics, None);
    }

    #[test]
    fn who_declares_needs_to_bind_and_to_dead_letter_too() {
        let namespace: Namespace = "shop".parse().unwrap();
        let topology = topology(&namespace);
        let producer =
            Permissions::for_publisher(&namespace, &topology, TopologyOwner::Programs, &["order"]);
        assert_eq!(
            producer.configure,
            r"^shop\.(events|(orders|stock)\.(0|dead|net))$"
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
            r"^shop\.(events|stock\.(0|0\.mark|dead|net|net\.mark|owner)|orders\.(0|dead|net))$"
        );
        assert_eq!(
            role.write,
            r"^(@.*|amq\.default|shop\.(events|orders\.0|stock\.(0|net)))$"
        );
    }

    #[test]
    fn who_verifies_may_do_what_it_asks_for() {
        let namespace: Namespace = "shop".parse().unwrap();
        let rights = Permissions::for_verifier(&namespace, &topology(&namespace));
        assert_eq!(
            rights.configure,
            r"^shop\.(events|(orders|stock)\.(0|0\.mark|dead|net|net\.mark|owner))$"
        );
        assert_eq!(
            rights.write,
            r"^(@.*|amq\.default|shop\.(events|(orders|stock)\.(0|net)))$"
        );
        let read = r"^shop\.(orders|stock)\.(0|0\.mark|net|net\.mark|owner)$";
        assert_eq!(rights.read, read);
    }

    fn with_requests(namespace: &Namespace) -> Topology {
        let role = |role, answers| RoleQueues {
            role,
            subjects: &["order"],
            handles_requests: answers,
        };
        Topology::of(namespace, &[role("orders", false), role("payments", true)])
    }

    #[test]
    fn who_answers_hears_of_what_is_cancelled_by_a_queue_of_its_own() {
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
            r"^shop\.(rpc\.payments\.cancel\.[^.]+|payments\.(0\.mark|net\.mark|owner))$"
        );
        assert_eq!(
            rights.write,
            r"^(@.*|amq\.default|shop\.(events|rpc\.payments\.cancel\.[^.]+|payments\.(0|net)))$"
        );
        assert_eq!(
            rights.read,
            r"^shop\.(rpc\.payments\.cancel\.[^.]+|payments\.(0|0\.mark|net|net\.mark|owner)|rpc\.payments\.cancel|rpc\.payments)$"
        );
    }

    #[test]
    fn who_asks_may_publish_requests_and_see_whether_anybody_answers() {
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
    fn who_looks_may_only_read() {
        let namespace: Namespace = "shop".parse().unwrap();
        let rights = Permissions::for_monitoring(&namespace, &topology(&namespace));
        assert_eq!((&*rights.configure, &*rights.write), ("^$", "^$"));
        assert_eq!(rights.read, r"^shop\.(orders|stock)\.(0|net)$");
    }
}
