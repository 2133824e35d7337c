//! Communication with RabbitMQ: connections, topology, publishing, subscriptions, RPC. Only this crate uses lapin, and it exposes none of
//! lapin's types.
//!
//! - [`BrokerSettings`], [`Address`], [`Namespace`]: broker settings.
//! - [`Topology`]: the exchanges, queues and bindings, as data.
//! - [`Publisher`], [`Message`], [`PublishOutcome`]: publishing with confirms and typed outcomes; [`EncodedEvents`] for messages that are
//!   resent until confirmed.
//! - [`Subscription`], [`Batch`], [`Delivery`]: consuming in batches, which are acked on their own channel or not at all.
//! - [`PublisherTotals`], [`ConsumerTotals`]: counters, readable at any time through [`PublisherStats`] or [`ConsumerStats`].
//! - [`RpcClient`], [`RpcServer`]: calling roles and serving calls.
//! - [`OwnerClaim`], [`OwnerRecord`]: the store that owns a role's queues, recorded at the broker.
//! - [`Inspector`]: queue depths.
//! - [`verify`](fn@verify), [`Finding`]: differences between the broker and the topology, found without changing anything.
//! - [`delete`](fn@delete): deletes a topology.
//! - [`Permissions`]: the minimal permissions of a user.
//! - [`UncheckedPublisher`]: invalid messages, for demos and tests.
//!
//! Folders: `connection` (with the supervisor that reconnects), `consumer`, `publisher`, `rpc`, `topology` (names, declaration, ownership,
//! permissions) and `admin` (verification, queue depths).
//!
//! Rules of this crate:
//! - Publishing and consuming use separate connections. A supervisor of each rebuilds everything from its description after any error.
//!   lapin's own recovery is off.
//! - Every wait and every buffer is bounded.
//! - lapin's own log (target `lapin`) is unsuitable for users: at level warn it contains returned messages with their payload, and at level
//!   error every queue that was checked and did not exist yet. This crate logs the relevant parts itself. A program sets its log filter to
//!   `lapin=off`.

mod admin;
mod amqp;
mod connection;
mod consumer;
mod counters;
mod locked;
mod publisher;
mod rpc;
mod settings;
mod topology;
pub mod trace;

pub use admin::{
    inspect::{Depth, InspectError, Inspector},
    server_properties::ServerProperties,
    verify::{Finding, Permission, RoleOwner, Verified, check_version, verify},
};
pub use connection::{
    address::{Address, AddressError},
    backoff::{Backoff, BackoffError},
    error::{ConnectError, ConnectErrorKind, Denial},
    outage::OutageReasons,
    status::{ConnectionPhase, ConnectionStatus, PossibleLoss},
};
pub use consumer::{
    AckOutcome, Batch, ChannelId, ConsumerStats, ConsumerTotals, Delivery, ProcessSpan,
    QueueSubscription, Subscription,
};
pub use doorstep_tls::{ClientFiles, TlsErrorKind, TlsSettings};
pub use publisher::{
    PublishOutcome, Publisher, PublisherStats, PublisherTotals,
    message::Message,
    trace_context_cache::EncodedEvents,
    unchecked::{RawMessage, RawValue, UncheckedPublisher},
};
pub use rpc::{
    CallError, Cancelled, IncomingRequest, Reply, ReplyHandle, ReplyOutcome, RpcClient,
    RpcClientSettings, RpcClientStats, RpcClientTotals, RpcServer, RpcServerSettings,
    RpcServerStats, RpcServerTotals,
};
pub use settings::{BrokerSettings, Namespace, SettingsError, UserId};
pub use topology::{
    Argument, Binding, Exchange, ExchangeKind, Owner, Queue, QueuePurpose, RoleQueues, Topology,
    delete::delete,
    names::QueueName,
    permissions::{Permissions, TopicPermissions, TopologyOwner},
    queue_owner::{OwnerClaim, OwnerDecision, OwnerPolicy, OwnerRecord, PresentOwner, take_over},
};
