//! The kernel: events, their attributes and their formats.
//!
//! This crate does no I/O, and knows neither RabbitMQ nor stores nor orders. All other crates share these types.
//!
//! - [`Event`]: a fact with its CloudEvents 1.0 attributes and its data in JSON.
//! - [`Source`], [`Subject`], [`Sequence`]: the store that numbered it, its subject, and its number. A *stream* is the events of one source
//!   about one subject, see [`StreamKey`].
//! - [`Epoch`]: one start of the store that numbered an event.
//! - [`Contract`]: ties a Rust type to a versioned event type such as `order.placed.v1`.
//! - [`Request`], [`RequestContract`]: RPC commands and queries, with their replies.
//! - [`headers`]: CloudEvents in binary mode, as pairs of header and value.
//! - [`json`]: CloudEvents in structured mode, one JSON object per event.
//! - [`media`], [`time`]: content types and times in the forms that other programs use.

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
