//! What is found to differ on a broker, each with what it is, where, and the remedy.

use std::fmt;

use serde::Serialize;

use super::frames;
use crate::{
    names::{MARK, OWNER, QueueName},
    owner::MARKER,
    permissions::TopicPermissions,
    topology::QueuePurpose,
};

/// What it means that a queue cannot be marked.
const LOSS_UNDETECTED: &str = "the loss of its queue would not be noticed";

/// Describes the consequence if the owner of queues cannot be recorded.
const UNRECORDED: &str = "roles do not start but with --without-owner-record";

/// A difference between the broker and what Doorstep needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// It speaks RabbitMQ's protocol and is another broker.
    OtherProduct {
        /// What it calls itself.
        product: String,
    },
    /// It does not yet have what the queues need.
    OldVersion {
        /// Its version.
        version: String,
    },
    /// Headers may not fit in a frame.
    SmallFrames {
        /// The most bytes of a frame.
        bytes: u32,
    },
    /// An exchange is not there.
    ExchangeMissing {
        /// Which.
        exchange: String,
    },
    /// An exchange is of another kind, or not durable.
    ExchangeDiffers {
        /// Which.
        exchange: String,
        /// In which property.
        property: String,
        /// The value that it has.
        there: String,
        /// The value that it should have.
        wanted: String,
        /// Its virtual host.
        vhost: String,
    },
    /// The broker does not know an exchange's kind.
    PluginMissing {
        /// Which exchange.
        exchange: String,
        /// Its kind.
        kind: &'static str,
        /// The plugin that brings it.
        plugin: &'static str,
    },
    /// A queue is not there.
    QueueMissing {
        /// Which.
        queue: QueueName,
        /// What it is for.
        purpose: QueuePurpose,
    },
    /// A queue has another argument.
    QueueDiffers {
        /// Which.
        queue: QueueName,
        /// In which argument.
        argument: String,
        /// The value that it has.
        there: String,
        /// The value that it should have.
        wanted: String,
        /// Its virtual host.
        vhost: String,
    },
    /// A binding of a queue is not there.
    BindingMissing {
        /// The queue.
        queue: QueueName,
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
        /// The virtual host.
        vhost: String,
    },
    /// A queue has a binding that Doorstep does not make.
    BindingSurplus {
        /// The queue.
        queue: QueueName,
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
        /// The virtual host.
        vhost: String,
    },
    /// A policy, or an operator policy, can lose messages of a queue.
    PolicyLoses {
        /// The queue.
        queue: QueueName,
        /// The purpose of the queue.
        purpose: QueuePurpose,
        /// The kind and name of the policy, of both kinds where the queue has both.
        policy: String,
        /// The key of its definition.
        key: String,
        /// The value.
        value: String,
        /// The effect on the queue.
        effect: &'static str,
        /// The virtual host.
        vhost: String,
    },
    /// A user has other topic permissions than its program needs.
    TopicsDiffer {
        /// The user.
        user: String,
        /// The topic permissions; `None` if there are none, so that every key is allowed.
        there: Option<TopicPermissions>,
        /// The topic permissions that are wanted.
        wanted: TopicPermissions,
        /// The virtual host.
        vhost: String,
    },
    /// A queue or exchange could not be compared to the end.
    NotCompared {
        /// `queue` or `exchange`.
        what: &'static str,
        /// Which.
        name: String,
        /// What the broker says.
        answer: String,
    },
    /// The user may not do something.
    Forbidden {
        /// What.
        right: Permission,
        /// `queue` or `exchange`.
        what: &'static str,
        /// With which; the default exchange is called as in permissions, `amq.default`.
        name: String,
        /// The user.
        user: String,
        /// The virtual host.
        vhost: String,
    },
}

/// One of a user's three rights in a virtual host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Declare and delete.
    Configure,
    /// Publish to.
    Write,
    /// Consume from.
    Read,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherProduct { product } => write!(
                f,
                "the broker is {product}: Doorstep needs RabbitMQ, whose quorum queues dead-letter at least once"
            ),
            Self::OldVersion { version } => write!(
                f,
                "the broker is RabbitMQ {version}, which cannot dead-letter at least once, so that events may be lost: upgrade it to 3.10 or later"
            ),
            Self::SmallFrames { bytes } => write!(
                f,
                "frames have {bytes} bytes at most and headers may need {}: set frame_max = 131072 in rabbitmq.conf",
                frames::NEEDED
            ),
            Self::ExchangeMissing { exchange } => write!(
                f,
                "exchange {exchange} is missing: start a role or a producer that may declare it, or import `consumers topology show --definitions`"
            ),
            Self::ExchangeDiffers {
                exchange,
                property,
                there,
                wanted,
                vhost,
            } => write!(
                f,
                "exchange {exchange} differs: {property} is {there} there and {wanted} is wanted; stop all that uses it, delete it in virtual host {vhost}, and start again, or choose another namespace"
            ),
            Self::PluginMissing {
                exchange,
                kind,
                plugin,
            } => write!(
                f,
                "exchange {exchange} needs the kind {kind}, which the broker does not know: enable it with rabbitmq-plugins enable {plugin}"
            ),
            Self::QueueMissing { queue, purpose } => write!(
                f,
                "queue {queue} ({}) is missing: start a role or a producer that may declare it, or import `consumers topology show --definitions`",
                purpose.describe()
            ),
            Self::QueueDiffers {
                queue,
                argument,
                there,
                wanted,
                vhost,
            } => write!(
                f,
                "queue {queue} differs: {argument} is {there} there and {wanted} is wanted; let it run empty and delete it with rabbitmqctl delete_queue -p {vhost} {queue}, or choose another namespace"
            ),
            Self::BindingMissing {
                queue,
                exchange,
                routing_key,
                vhost,
            } => write!(
                f,
                "queue {queue} is not bound to exchange {exchange} by {routing_key} in virtual host {vhost}, so its role gets none of these events: a role that may bind does so again within two minutes; else import `consumers topology show --definitions`, and publish again what was missed"
            ),
            Self::BindingSurplus {
                queue,
                exchange,
                routing_key,
                vhost,
            } => write!(
                f,
                "queue {queue} is bound to exchange {exchange} by {routing_key:?} in virtual host {vhost}, which Doorstep does not do, so its role is sent what it does not want: remove it in the management UI"
            ),
            Self::PolicyLoses {
                queue,
                purpose,
                policy,
                key,
                value,
                effect,
                vhost,
            } => write!(
                f,
                "{policy} sets {key} = {value} on queue {queue} ({}): {effect}; change it or its pattern (rabbitmqctl list_policies -p {vhost}, list_operator_policies -p {vhost})",
                purpose.describe()
            ),
            Self::TopicsDiffer {
                user,
                there,
                wanted:
                    TopicPermissions {
                        exchange,
                        write,
                        read,
                    },
                vhost,
            } => {
                match there {
                    None => write!(
                        f,
                        "user {user} has no topic permissions for exchange {exchange}, so it may publish every event"
                    )?,
                    Some(there) => write!(
                        f,
                        "user {user} may publish {} and bind {} at exchange {exchange}, and {write} and {read} are wanted",
                        there.write, there.read
                    )?,
                }
                write!(
                    f,
                    ": rabbitmqctl set_topic_permissions -p {vhost} {user} {exchange} '{write}' '{read}'"
                )
            }
            Self::NotCompared { what, name, answer } => write!(
                f,
                "{what} {name} could not be compared to the end, since the broker answers: {answer}; look at it in the management UI"
            ),
            Self::Forbidden {
                right,
                what,
                name,
                user,
                vhost,
            } => {
                let is_mark = name.ends_with(MARK);
                let is_record = name.ends_with(OWNER) || name.starts_with(MARKER);
                let (may_not, meaning) = match (right, *what) {
                    (Permission::Configure, _) if is_mark => ("configure", LOSS_UNDETECTED),
                    (Permission::Read, _) if is_mark => ("read from", LOSS_UNDETECTED),
                    (Permission::Configure, _) if is_record => ("configure", UNRECORDED),
                    (Permission::Write, _) if is_record => ("write to", UNRECORDED),
                    (Permission::Read, _) if is_record => ("read from", UNRECORDED),
                    (Permission::Configure, _) => (
                        "configure",
                        "it can neither be declared nor compared by this user",
                    ),
                    // Messages come to queues by exchanges.
                    (Permission::Write, "queue") => ("write to", "it cannot be bound by this user"),
                    (Permission::Write, _) => ("write to", "nothing can be published to it"),
                    (Permission::Read, _) => ("read from", "nothing can be consumed from it"),
                };
                write!(
                    f,
                    "user {user} may not {may_not} {what} {name} in virtual host {vhost}, so {meaning}: grant it with rabbitmqctl set_permissions, `consumers topology permissions` shows how"
                )
            }
        }
    }
}
