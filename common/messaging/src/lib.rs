//! Everything that talks to RabbitMQ: connections, topology, publishing, subscriptions. The client library is named nowhere else, and
//! none of its types is visible from outside.
//!
//! - [`BrokerSettings`], [`Address`], [`Namespace`]: what is to be known about the broker.
//! - [`Topology`]: what is to exist on it, as data.
//! - [`Publisher`], [`Message`], [`Outcome`]: publishing, confirmed, with the outcome as a type; [`EventMessages`] for what is sent until it
//!   is confirmed.
//! - [`Subscription`], [`Batch`], [`Delivery`]: consuming in batches, settled on their own channel or not at all.
//! - [`PublishCounts`], [`ConsumeCounts`]: what they have done, to be read at any time by a [`PublishMeter`] or [`ConsumeMeter`].
//! - [`Requester`], [`Responder`]: asking roles what cannot wait, and answering.
//! - [`OwnerClaim`], [`OwnerRecord`]: which store a role's queues belong to, recorded at the broker.
//! - [`Inspector`]: how full a queue is.
//! - [`verify`], [`Finding`]: how the broker differs from what is needed, without changing anything.
//! - [`remove`]: taking away what was declared.
//! - [`Rights`]: the least that a user must be allowed to do.
//! - [`RawPublisher`]: messages that are wrong on purpose.
//!
//! What holds everywhere:
//! - Publishing and consuming have connections of their own, each with a supervisor that rebuilds everything from its description
//!   after any error. The client's own recovery is off.
//! - No wait is without a bound, and no buffer either.
//! - The client's own log (target `lapin`) is not fit for users: at level warn it holds messages that the broker returned, payload
//!   and all, and at level error every queue that was looked for and did not exist yet. Whatever matters of it is reported by this
//!   crate in its own words. A program sets the filter of its log to `lapin=off`.

mod address;
mod again;
mod asker;
mod backoff;
mod connection;
mod consume;
mod counts;
mod declare;
mod difference;
mod error;
mod greeting;
mod inspect;
mod link;
mod message;
mod names;
mod outage;
mod owner;
mod publish;
mod raw;
mod remove;
mod rights;
mod rpc;
mod settings;
mod topology;
pub mod trace;
mod verify;

pub use address::{Address, AddressError};
pub use again::EventMessages;
pub use backoff::{Backoff, BackoffError};
pub use consume::{
    Batch, ConsumeMeter, Delivery, Generation, QueueSubscription, Settled, Subscription,
};
pub use counts::{ConsumeCounts, PublishCounts, PublishMeter};
pub use doorstep_tls::{ClientFiles, TlsErrorKind, TlsSettings};
pub use error::{ConnectError, ConnectErrorKind, Refusal};
pub use greeting::Greeting;
pub use inspect::{Depth, InspectError, Inspector};
pub use link::{LinkState, Phase, PossibleLoss};
pub use message::Message;
pub use names::QueueName;
pub use outage::OutageReasons;
pub use owner::{OwnerClaim, OwnerDecision, OwnerPolicy, OwnerRecord, PresentOwner, take_over};
pub use publish::{Outcome, Publisher};
pub use raw::{RawMessage, RawPublisher, RawValue};
pub use remove::remove;
pub use rights::{DeclaredBy, Rights, TopicRights};
pub use rpc::{
    AnswerCounts, AnswerMeter, AnswerSettings, AskCounts, AskError, AskMeter, AskSettings, Asked,
    Cancelled, Replied, Reply, ReplyHandle, Requester, Responder,
};
pub use settings::{BrokerSettings, Namespace, SettingsError, UserId};
pub use topology::{
    Argument, Binding, Exchange, ExchangeKind, Owner, Queue, QueuePurpose, RoleQueues, Topology,
};
pub use verify::{Finding, QueuesOf, Right, Verified, old_broker, verify};
