//! Differences found at a broker, each with its location and remedy.

use serde::Serialize;

use super::frames;
use crate::topology::{
    QueuePurpose,
    names::{MARKER_SUFFIX, OWNER, QueueName, former_names},
    permissions::TopicPermissions,
    queue_owner::MARKER,
};

/// Consequence of a queue that cannot be marked.
const LOSS_UNDETECTED: &str = "the loss of its queue would not be noticed";

/// Consequence of an owner that cannot be recorded.
const UNRECORDED: &str = "roles start only with --without-owner-record";

/// A difference between the broker and Doorstep's needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Another product that speaks AMQP 0-9-1.
    #[error(
        "the broker is {product}: Doorstep needs RabbitMQ, whose quorum queues dead-letter at least once"
    )]
    OtherProduct { product: String },
    /// A version without at-least-once dead-lettering.
    #[error(
        "the broker is RabbitMQ {version}, which cannot dead-letter at least once, so that events may be lost: upgrade it to 3.10 or later"
    )]
    OldVersion { version: String },
    /// Headers may not fit into a frame.
    #[error(
        "frames have at most {bytes} bytes, but headers may need {}: set frame_max = 131072 in rabbitmq.conf",
        frames::NEEDED
    )]
    SmallFrames {
        /// Maximum bytes of a frame.
        bytes: u32,
    },
    #[error(
        "exchange {exchange} is missing: start a role or a producer that may declare it, or import `consumers topology show --definitions`"
    )]
    ExchangeMissing { exchange: String },
    /// An exchange has another type, or is not durable.
    #[error(
        "exchange {exchange} differs: {property} is {there}, expected {wanted}; stop all programs, delete it in virtual host {vhost} and start again, or choose another namespace"
    )]
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
    #[error(
        "exchange {exchange} has type {kind}, which the broker does not know: enable it with rabbitmq-plugins enable {plugin}"
    )]
    PluginMissing {
        exchange: String,
        kind: &'static str,
        plugin: &'static str,
    },
    #[error("queue {queue} ({}) is missing: start a role or a producer that may declare it, or import `consumers topology show --definitions`", .purpose.describe())]
    QueueMissing {
        queue: QueueName,
        purpose: QueuePurpose,
    },
    #[error(
        "queue {queue} differs: {argument} is {there}, expected {wanted}; drain it and delete it with rabbitmqctl delete_queue -p {vhost} {queue}, or choose another namespace{}",
        former_names(argument, there)
    )]
    QueueDiffers {
        queue: QueueName,
        argument: String,
        /// The value found at the broker.
        there: String,
        /// The value that Doorstep declares.
        wanted: String,
        vhost: String,
    },
    #[error(
        "queue {queue} is not bound to exchange {exchange} by {routing_key} in virtual host {vhost}, so its role gets none of these events: a running role with the permission binds it within two minutes, otherwise import `consumers topology show --definitions`; then republish the missed events"
    )]
    BindingMissing {
        queue: QueueName,
        exchange: String,
        routing_key: String,
        vhost: String,
    },
    /// A queue has a binding outside Doorstep's topology.
    #[error(
        "queue {queue} is bound to exchange {exchange} by {routing_key:?} in virtual host {vhost}, which is no binding of Doorstep's, so its role gets unwanted messages: remove it in the management UI"
    )]
    BindingSurplus {
        queue: QueueName,
        exchange: String,
        routing_key: String,
        vhost: String,
    },
    /// A policy, or an operator policy, can lose messages of a queue.
    #[error("{policy} sets {key} = {value} on queue {queue} ({}): {effect}; change it or its pattern (rabbitmqctl list_policies -p {vhost}, list_operator_policies -p {vhost})", .purpose.describe())]
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
    #[error("{}", topics_differ(user, there.as_ref(), wanted, vhost))]
    TopicsDiffer {
        user: String,
        /// The present topic permissions. `None` if there are none, which allows every key.
        there: Option<TopicPermissions>,
        /// The topic permissions that the program needs.
        wanted: TopicPermissions,
        vhost: String,
    },
    /// The comparison of a queue or exchange ended early.
    #[error(
        "{what} {name} could not be compared completely, because the broker replies: {answer}; check it in the management UI"
    )]
    NotCompared {
        what: &'static str,
        name: String,
        answer: String,
    },
    /// The user lacks a permission.
    #[error("{}", forbidden(*right, what, name, user, vhost))]
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

fn topics_differ(
    user: &str,
    there: Option<&TopicPermissions>,
    wanted: &TopicPermissions,
    vhost: &str,
) -> String {
    let TopicPermissions {
        exchange,
        write,
        read,
    } = wanted;
    let differs = match there {
        None => format!(
            "user {user} has no topic permissions for exchange {exchange}, so it may publish every event"
        ),
        Some(there) => format!(
            "user {user} may publish {} and bind {} at exchange {exchange}, expected {write} and {read}",
            there.write, there.read
        ),
    };
    format!(
        "{differs}: rabbitmqctl set_topic_permissions -p {vhost} {user} {exchange} '{write}' '{read}'"
    )
}

fn forbidden(right: Permission, what: &str, name: &str, user: &str, vhost: &str) -> String {
    let (may_not, meaning) = denied(right, what, name);
    format!(
        "user {user} may not {may_not} {what} {name} in virtual host {vhost}, so {meaning}: grant it with rabbitmqctl set_permissions, see `consumers topology permissions`"
    )
}

/// Returns the denied action, as in "may not write to", and its consequence.
fn denied(right: Permission, what: &str, name: &str) -> (&'static str, &'static str) {
    let is_mark = name.ends_with(MARKER_SUFFIX);
    let is_record = name.ends_with(OWNER) || name.starts_with(MARKER);
    match (right, what) {
        (Permission::Configure, _) if is_mark => ("configure", LOSS_UNDETECTED),
        (Permission::Read, _) if is_mark => ("read from", LOSS_UNDETECTED),
        (Permission::Configure, _) if is_record => ("configure", UNRECORDED),
        (Permission::Write, _) if is_record => ("write to", UNRECORDED),
        (Permission::Read, _) if is_record => ("read from", UNRECORDED),
        (Permission::Configure, _) => ("configure", "this user can neither declare nor compare it"),
        // Messages reach queues through exchanges.
        (Permission::Write, "queue") => ("write to", "this user cannot bind it"),
        (Permission::Write, _) => ("write to", "this user cannot publish to it"),
        (Permission::Read, _) => ("read from", "this user cannot consume from it"),
    }
}
