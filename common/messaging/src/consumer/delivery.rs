//! What is consumed, and what becomes of it.

use bytes::Bytes;
use doorstep_event::{EventId, Sender, headers::Decoded};

use crate::names::QueueName;

/// A queue to consume from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSubscription {
    /// The queue.
    pub queue: QueueName,
    /// How the consumer is shown in the management UI.
    pub consumer_tag: String,
    /// The most deliveries that are not settled. Quorum queues give no more than 2,000.
    pub prefetch: u16,
}

/// Names one channel of one connection. After a reconnect nothing has the same again, so a settlement cannot reach a channel that it
/// is not meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(super) u64);

/// Deliveries of one queue by one channel, in the order in which the broker gave them.
#[derive(Debug)]
pub struct Batch {
    /// The channel, on which alone they can be settled.
    pub channel: ChannelId,
    /// The queue that they come from.
    pub queue: QueueName,
    /// At least one.
    pub deliveries: Vec<Delivery>,
    /// The tag of the last: settling up to it settles the batch and all before.
    pub last_tag: u64,
}

/// A message from a queue.
#[derive(Debug)]
pub struct Delivery {
    /// Its number on its channel, from 1, without gaps.
    pub tag: u64,
    /// False if it was certainly never given to anyone before.
    pub redelivered: bool,
    /// How often it has come back to its queue, where the broker tells.
    pub delivery_count: Option<u64>,
    /// The sender, as far as the broker vouches for it.
    pub sender: Sender,
    /// The event that it carries, or what is wrong with it.
    pub read: Decoded,
    /// For those without a readable place in a stream: the headers and properties that could be read, as JSON.
    pub headers_json: Option<String>,
    /// For the same: its name, a digest of all that its publisher has sent, the same whenever it comes again.
    pub id: Option<EventId>,
}

impl Delivery {
    /// The body as it came.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match &self.read {
            Decoded::Valid(event) | Decoded::Invalid(event, _) => &event.data,
            Decoded::Undecodable { body, .. } => body,
        }
    }

    /// About how many bytes it takes in memory, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.read {
            Decoded::Valid(event) => event.size(),
            Decoded::Invalid(event, defect) => event.size() + defect.len(),
            Decoded::Undecodable { defect, body } => {
                body.len() + defect.len() + self.headers_json.as_ref().map_or(0, String::len)
            }
        }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Written to the broker.
    Acked,
    /// Its channel is no longer open. The broker gives the deliveries out again, and they are recognised as duplicates.
    ChannelGone,
}
