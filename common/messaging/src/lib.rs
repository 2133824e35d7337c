//! Everything that talks to RabbitMQ: connections, topology, publishing, subscriptions. The client library is named nowhere else, and
//! none of its types is visible from outside.
//!
//! - [`BrokerSettings`], [`Address`], [`Namespace`]: what is to be known about the broker.
//! - [`Topology`]: what is to exist on it, as data.
//! - [`Publisher`], [`Message`], [`PublishOutcome`]: publishing, confirmed, with the outcome as a type; [`EncodedEvents`] for what is sent until it
//!   is confirmed.
//! - [`Subscription`], [`Batch`], [`Delivery`]: consuming in batches, settled on their own channel or not at all.
//! - [`PublisherTotals`], [`ConsumerTotals`]: what they have done, to be read at any time by a [`PublisherStats`] or [`ConsumerStats`].
//! - [`RpcClient`], [`RpcServer`]: asking roles what cannot wait, and answering.
//! - [`OwnerClaim`], [`OwnerRecord`]: which store a role's queues belong to, recorded at the broker.
//! - [`Inspector`]: how full a queue is.
//! - [`verify`], [`Finding`]: how the broker differs from what is needed, without changing anything.
//! - [`delete`]: deletes a topology.
//! - [`Permissions`]: the least that a user must be allowed to do.
//! - [`UncheckedPublisher`]: messages that are wrong on purpose.
//!
//! What holds everywhere:
//! - Publishing and consuming have connections of their own, each with a supervisor that rebuilds everything from its description
//!   after any error. The client's own recovery is off.
//! - No wait is without a bound, and no buffer either.
//! - The client's own log (target `lapin`) is not fit for users: at level warn it holds messages that the broker returned, payload
//!   and all, and at level error every queue that was looked for and did not exist yet. Whatever matters of it is reported by this
//!   crate in its own words. A program sets the filter of its log to `lapin=off`.

mod address;
mod backoff;
mod connection;
mod connection_status;
mod consumer;
mod counts;
mod declare;
mod delete;
mod error;
mod inspect;
mod message;
mod names;
mod outage;
mod owner;
mod permissions;
mod precondition_failed;
mod probe_channel;
mod publisher;
mod rpc;
mod server_properties;
mod settings;
mod topology;
pub mod trace;
mod trace_context_cache;
mod unchecked;
mod verify;

pub use address::{Address, AddressError};
pub use backoff::{Backoff, BackoffError};
pub use connection_status::{ConnectionPhase, ConnectionStatus, PossibleLoss};
pub use consumer::{
    AckOutcome, Batch, ChannelId, ConsumerStats, Delivery, QueueSubscription, Subscription,
};
pub use counts::{ConsumerTotals, PublisherStats, PublisherTotals};
pub use delete::delete;
pub use doorstep_tls::{ClientFiles, TlsErrorKind, TlsSettings};
pub use error::{ConnectError, ConnectErrorKind, Refusal};
pub use inspect::{Depth, InspectError, Inspector};
pub use message::Message;
pub use names::QueueName;
pub use outage::OutageReasons;
pub use owner::{OwnerClaim, OwnerDecision, OwnerPolicy, OwnerRecord, PresentOwner, take_over};
pub use permissions::{Permissions, TopicPermissions, TopologyOwner};
pub use publisher::{PublishOutcome, Publisher};
pub use rpc::{
    CallError, Cancelled, IncomingRequest, Reply, ReplyHandle, ReplyOutcome, RpcClient,
    RpcClientSettings, RpcClientStats, RpcClientTotals, RpcServer, RpcServerSettings,
    RpcServerStats, RpcServerTotals,
};
pub use server_properties::ServerProperties;
pub use settings::{BrokerSettings, Namespace, SettingsError, UserId};
pub use topology::{
    Argument, Binding, Exchange, ExchangeKind, Owner, Queue, QueuePurpose, RoleQueues, Topology,
};
pub use trace_context_cache::EncodedEvents;
pub use unchecked::{RawMessage, RawValue, UncheckedPublisher};
pub use verify::{Finding, Permission, QueuesOf, Verified, check_version, verify};
