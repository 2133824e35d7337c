//! The kernel: what an event is, what it is called and how it is written down.
//!
//! Nothing here does I/O and nothing here knows RabbitMQ, a store or an order. Everything else in Doorstep meets in these types.
//!
//! - [`Event`]: a fact with its CloudEvents 1.0 attributes and its data in JSON.
//! - [`Source`], [`Subject`], [`Sequence`]: who numbered it, what it is about, and its number there. A *stream* is the events of
//!   one source about one subject, see [`StreamKey`].
//! - [`Epoch`]: one start of the store that numbered an event.
//! - [`Contract`]: the tie between a Rust type and a versioned event type such as `order.placed.v1`.
//! - [`Request`], [`RequestContract`]: what is asked of a role over RPC, as a command or a query, and its reply.
//! - [`headers`]: CloudEvents in binary mode, as pairs of header and value.
//! - [`json`]: CloudEvents in structured mode, one JSON object an event.
//! - [`media`], [`time`]: content types and times as other programs write them.

mod attributes;
mod contract;
mod epoch;
mod event;
pub mod headers;
pub mod json;
pub mod media;
mod request;
mod sender;
pub mod time;

pub use attributes::{
    AttributeError, EventId, EventType, RequestId, Sequence, Source, StreamKey, Subject,
};
pub use contract::{Contract, ContractError};
pub use epoch::{Epoch, MAX_EPOCH_BYTES};
pub use event::{Event, MAX_DATA_BYTES};
pub use jiff::Timestamp;
pub use request::{Idempotency, Rejection, Request, RequestContract, RequestKind, RequestResult};
pub use sender::{BrokerUser, Sender};
