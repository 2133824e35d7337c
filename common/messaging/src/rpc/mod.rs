//! Requests and replies: asking a role what cannot wait, and answering.
//!
//! - [`RpcClient`] asks: many requests are under way on one connection, each ends at its deadline at the latest.
//! - [`RpcServer`] answers: it hands out what was asked, and a reply goes back before the request is acknowledged.
//! - `codec` is how a request and a reply travel.
//!
//! Replies come by the broker's direct reply-to. Nothing here is stored: a request that is lost is asked again by whoever asked, under
//! the same id.

mod client;
mod codec;
mod counts;
mod error;
mod server;
mod span;

pub use client::{RpcClient, RpcClientSettings};
pub use counts::{RpcClientStats, RpcClientTotals, RpcServerStats, RpcServerTotals};
pub use error::CallError;
pub use server::{
    Cancelled, IncomingRequest, Reply, ReplyHandle, ReplyOutcome, RpcServer, RpcServerSettings,
};
