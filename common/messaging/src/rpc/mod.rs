//! RPC over AMQP: synchronous calls to roles.
//!
//! - [`RpcClient`] calls: many requests are in flight on one connection, each up to its deadline.
//! - [`RpcServer`] serves: it hands out requests, and sends a reply before it acks the request.
//! - `codec`: the wire format of requests and replies.
//!
//! Replies use the broker's direct reply-to. Nothing is persistent: if a request is lost, its caller repeats it with the same id.

mod client;
mod codec;
mod error;
mod pending_writes;
mod server;
mod span;
mod stats;

pub use client::{RpcClient, RpcClientSettings};
pub use error::CallError;
pub use server::{
    Cancelled, IncomingRequest, Reply, ReplyHandle, ReplyOutcome, RpcServer, RpcServerSettings,
};
pub use stats::{RpcClientStats, RpcClientTotals, RpcServerStats, RpcServerTotals};
