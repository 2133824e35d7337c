//! A delivery as the engine takes it, and its history.

use bytes::Bytes;
use doorstep_event::{Event, EventId, Sender};

/// A delivery, decoded as far as possible.
#[derive(Debug, Clone)]
pub enum InboundMessage {
    /// An event. One with a defect is rejected once it is next in its stream.
    Event {
        event: Event,
        /// The defect of its message, if there is one.
        defect: Option<String>,
        /// The sender, as far as the broker vouches for it.
        sender: Sender,
    },
    /// A message that has no position in any stream.
    Unreadable {
        body: Bytes,
        /// The headers that could be read, as JSON.
        headers: String,
        defect: String,
        /// Its message id; without one, the body identifies it.
        id: Option<EventId>,
    },
}

/// The delivery history of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryHistory {
    /// No consumer has received it before.
    First,
    /// A consumer received it before and did not ack it: it may have crashed a process.
    Redelivered,
    /// The broker has stopped redelivering it: it comes from the role's quarantine.
    LimitExceeded,
}
