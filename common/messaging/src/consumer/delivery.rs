//! Deliveries, batches and ack outcomes.

use bytes::Bytes;
use doorstep_event::{EventId, Sender, headers::Decoded};

use crate::topology::names::QueueName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSubscription {
    pub queue: QueueName,
    /// Shown in the management UI.
    pub consumer_tag: String,
    /// Maximum unacked deliveries. Quorum queues allow at most 2,000.
    pub prefetch: u16,
}

/// Identifies one channel of one connection. A reconnect creates new ids, so an ack never reaches another channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(super) u64);

/// Deliveries of one queue on one channel, in the broker's order.
#[derive(Debug)]
pub struct Batch {
    /// The only channel on which they can be acked.
    pub channel: ChannelId,
    pub queue: QueueName,
    pub deliveries: Vec<Delivery>,
    /// Tag of the last delivery: an ack up to it acks the batch and everything before.
    pub last_tag: u64,
}

#[derive(Debug)]
pub struct Delivery {
    /// Number on its channel, from 1 without gaps.
    pub tag: u64,
    /// False if the message was certainly never delivered before.
    pub redelivered: bool,
    /// Number of returns to the queue, if the broker reports it.
    pub delivery_count: Option<u64>,
    /// The sender, as far as the broker guarantees it.
    pub sender: Sender,
    pub decoded: Decoded,
    /// For an undecodable message: the readable headers and properties, as JSON.
    pub headers_json: Option<String>,
    /// For an undecodable message: an id, the digest of everything its publisher sent. It is stable across redeliveries.
    pub id: Option<EventId>,
}

impl Delivery {
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match &self.decoded {
            Decoded::Valid(event) | Decoded::Invalid(event, _) => &event.data,
            Decoded::Undecodable { body, .. } => body,
        }
    }

    /// Returns the approximate size in memory in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.decoded {
            Decoded::Valid(event) => event.size(),
            Decoded::Invalid(event, defect) => event.size() + defect.len(),
            Decoded::Undecodable { defect, body } => {
                body.len() + defect.len() + self.headers_json.as_ref().map_or(0, String::len)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    Acked,
    /// The channel is closed. The broker redelivers the messages, and they are recognized as duplicates.
    ChannelGone,
}
