//! What is found to differ on a broker, each with what it is, where, and the remedy.

use std::fmt;

use serde::Serialize;

use super::frames;
use crate::{
    names::{MARK, OWNER, QueueName},
    owner::MARKER,
    topology::QueuePurpose,
};

/// What it means that a queue cannot be marked.
const UNNOTICED: &str = "the loss of its queue would not be noticed";

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
        right: Right,
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
pub enum Right {
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
                purpose.words()
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
                    (Right::Configure, _) if is_mark => ("configure", UNNOTICED),
                    (Right::Read, _) if is_mark => ("read from", UNNOTICED),
                    (Right::Configure, _) if is_record => ("configure", UNRECORDED),
                    (Right::Write, _) if is_record => ("write to", UNRECORDED),
                    (Right::Read, _) if is_record => ("read from", UNRECORDED),
                    (Right::Configure, _) => (
                        "configure",
                        "it can neither be declared nor compared by this user",
                    ),
                    // Messages come to queues by exchanges.
                    (Right::Write, "queue") => ("write to", "it cannot be bound by this user"),
                    (Right::Write, _) => ("write to", "nothing can be published to it"),
                    (Right::Read, _) => ("read from", "nothing can be consumed from it"),
                };
                write!(
                    f,
                    "user {user} may not {may_not} {what} {name} in virtual host {vhost}, so {meaning}: grant it with rabbitmqctl set_permissions, `consumers topology permissions` shows how"
                )
            }
        }
    }
}
