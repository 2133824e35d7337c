//! A delivery as the engine takes it, and its history.

use bytes::Bytes;
use doorstep_event::{Event, EventId, Sender};

/// A delivery, read as far as it could be.
#[derive(Debug, Clone)]
pub enum InboundMessage {
    /// An event. With a defect, it will be refused when it is next in its stream.
    Event {
        /// The event.
        event: Event,
        /// What is wrong with its message, if anything is.
        defect: Option<String>,
        /// The sender, as far as the broker vouches for it.
        sender: Sender,
    },
    /// A message that has no place in any stream.
    Unreadable {
        /// Its body.
        body: Bytes,
        /// What could be read of its headers, as JSON.
        headers: String,
        /// What is wrong with it.
        defect: String,
        /// Tells it from others; where there is none, its body does.
        id: Option<EventId>,
    },
}

/// What is known of a delivery's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryHistory {
    /// Nobody was ever given it.
    First,
    /// Somebody was given it before and has not settled it: a process may have died of it.
    Redelivered,
    /// The broker has given up on it: it comes from the role's net.
    LimitExceeded,
}
