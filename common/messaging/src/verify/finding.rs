//! Differences found at a broker, each with its location and remedy.

use std::fmt;

use serde::Serialize;

use super::frames;
use crate::{
    names::{MARK, OWNER, QueueName},
    owner::MARKER,
    permissions::TopicPermissions,
    topology::QueuePurpose,
};

/// Consequence of a queue that cannot be marked.
const LOSS_UNDETECTED: &str = "the loss of its queue would not be noticed";

/// Consequence of an owner that cannot be recorded.
const UNRECORDED: &str = "roles start only with --without-owner-record";

/// A difference between the broker and Doorstep's needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Another product that speaks AMQP 0-9-1.
    OtherProduct {
        product: String,
    },
    /// A version without at-least-once dead-lettering.
    OldVersion {
        version: String,
    },
    /// Headers may not fit into a frame.
    SmallFrames {
        /// Maximum bytes of a frame.
        bytes: u32,
    },
    ExchangeMissing {
        exchange: String,
    },
    /// An exchange has another type, or is not durable.
    ExchangeDiffers {
        exchange: String,
        property: String,
        /// The value found at the broker.
        there: String,
        /// The value that Doorstep declares.
        wanted: String,
        vhost: String,
    },
    /// The broker lacks the plugin for an exchange type.
    PluginMissing {
        exchange: String,
        kind: &'static str,
        plugin: &'static str,
    },
    QueueMissing {
        queue: QueueName,
        purpose: QueuePurpose,
    },
    QueueDiffers {
        queue: QueueName,
        argument: String,
        /// The value found at the broker.
        there: String,
        /// The value that Doorstep declares.
        wanted: String,
        vhost: String,
    },
    BindingMissing {
        queue: QueueName,
        exchange: String,
        routing_key: String,
        vhost: String,
    },
    /// A queue has a binding outside Doorstep's topology.
    BindingSurplus {
        queue: QueueName,
        exchange: String,
        routing_key: String,
        vhost: String,
    },
    /// A policy, or an operator policy, can lose messages of a queue.
    PolicyLoses {
        queue: QueueName,
        purpose: QueuePurpose,
        /// The kind and name of the policy, or of both if the queue has both kinds.
        policy: String,
        /// Key of the policy's definition.
        key: String,
        value: String,
        effect: &'static str,
        vhost: String,
    },
    /// A user's topic permissions differ from its program's needs.
    TopicsDiffer {
        user: String,
        /// The present topic permissions. `None` if there are none, which allows every key.
        there: Option<TopicPermissions>,
        /// The topic permissions that the program needs.
        wanted: TopicPermissions,
        vhost: String,
    },
    /// The comparison of a queue or exchange ended early.
    NotCompared {
        what: &'static str,
        name: String,
        answer: String,
    },
    /// The user lacks a permission.
    Forbidden {
        right: Permission,
        what: &'static str,
        /// The object; the default exchange is `amq.default`, as in permissions.
        name: String,
        user: String,
        vhost: String,
    },
}

/// One of a user's three permissions in a virtual host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Permission to declare and delete it.
    Configure,
    /// Permission to publish to it.
    Write,
    /// Permission to consume from it.
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
                "frames have at most {bytes} bytes, but headers may need {}: set frame_max = 131072 in rabbitmq.conf",
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
                "exchange {exchange} differs: {property} is {there}, expected {wanted}; stop all programs, delete it in virtual host {vhost} and start again, or choose another namespace"
            ),
            Self::PluginMissing {
                exchange,
                kind,
                plugin,
            } => write!(
                f,
                "exchange {exchange} has type {kind}, which the broker does not know: enable it with rabbitmq-plugins enable {plugin}"
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
                "queue {queue} differs: {argument} is {there}, expected {wanted}; drain it and delete it with rabbitmqctl delete_queue -p {vhost} {queue}, or choose another namespace"
            ),
            Self::BindingMissing {
                queue,
                exchange,
                routing_key,
                vhost,
            } => write!(
                f,
                "queue {queue} is not bound to exchange {exchange} by {routing_key} in virtual host {vhost}, so its role gets none of these events: a running role with the permission binds it within two minutes, otherwise import `consumers topology show --definitions`; then republish the missed events"
            ),
            Self::BindingSurplus {
                queue,
                exchange,
                routing_key,
                vhost,
            } => write!(
                f,
                "queue {queue} is bound to exchange {exchange} by {routing_key:?} in virtual host {vhost}, which is no binding of Doorstep's, so its role gets unwanted messages: remove it in the management UI"
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
                        "user {user} may publish {} and bind {} at exchange {exchange}, expected {write} and {read}",
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
                "{what} {name} could not be compared completely, because the broker replies: {answer}; check it in the management UI"
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
                    (Permission::Configure, _) => {
                        ("configure", "this user can neither declare nor compare it")
                    }
                    // Messages reach queues through exchanges.
                    (Permission::Write, "queue") => ("write to", "this user cannot bind it"),
                    (Permission::Write, _) => ("write to", "this user cannot publish to it"),
                    (Permission::Read, _) => ("read from", "this user cannot consume from it"),
                };
                write!(
                    f,
                    "user {user} may not {may_not} {what} {name} in virtual host {vhost}, so {meaning}: grant it with rabbitmqctl set_permissions, see `consumers topology permissions`"
                )
            }
        }
    }
}
