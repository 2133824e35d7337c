//! A delivery as the engine takes it, and its history.

use doorstep_event::{Event, EventId, Sender, headers::Decoded};

/// A delivery, decoded as far as possible.
#[derive(Debug, Clone)]
pub struct InboundMessage {
    /// An invalid event is rejected once it is next in its stream. An undecodable message has no position in any stream.
    pub decoded: Decoded,
    /// The headers of an undecodable message that could be read, as JSON.
    pub headers: String,
    /// The message id. Without one, the body identifies an undecodable message.
    pub id: Option<EventId>,
    /// The sender, as far as the broker vouches for it.
    pub sender: Sender,
}

impl InboundMessage {
    /// Creates a message with a valid event.
    #[must_use]
    pub fn event(event: Event, sender: Sender) -> Self {
        Self::new(Decoded::Valid(event), sender)
    }

    /// Creates a message without message id and headers.
    #[must_use]
    pub fn new(decoded: Decoded, sender: Sender) -> Self {
        Self {
            decoded,
            headers: String::new(),
            id: None,
            sender,
        }
    }
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
