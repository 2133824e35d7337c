//! Requests and replies: asking a role what cannot wait, and answering.
//!
//! - [`Requester`] asks: many requests are under way on one connection, each ends at its deadline at the latest.
//! - [`Responder`] answers: it hands out what was asked, and a reply goes back before the request is acknowledged.
//! - `wire` is how a request and a reply travel.
//!
//! Replies come by the broker's direct reply-to. Nothing here is stored: a request that is lost is asked again by whoever asked, under
//! the same id.

mod answer;
mod ask;
mod counts;
mod error;
mod wire;

pub use answer::{AnswerSettings, Asked, Cancelled, Replied, Reply, ReplyHandle, Responder};
pub use ask::{AskSettings, Requester};
pub use counts::{AnswerCounts, AnswerMeter, AskCounts, AskMeter};
pub use error::AskError;
