//! The event type, shared by all crates.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{AttributeError, Epoch, EventId, EventType, Sequence, Source, StreamKey, Subject};

/// Maximum bytes of an event's data: 1 MiB. Larger data uses the claim-check pattern.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

/// A fact, past tense, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique among the events of its source: the same id is the same event.
    pub id: EventId,
    /// The store that assigned its sequence.
    pub source: Source,
    pub event_type: EventType,
    pub subject: Subject,
    /// Time of the fact, as known to its source.
    pub time: Option<Timestamp>,
    /// Its number in its stream. Without one the event has no order, and duplicates are recognized only by the id.
    pub sequence: Option<Sequence>,
    /// Epoch of the store that numbered it; `None` if its source has no store.
    pub epoch: Option<Epoch>,
    /// W3C trace context, passed through unread.
    pub traceparent: Option<String>,
    /// The data in JSON.
    pub data: Bytes,
}

impl Event {
    /// Returns the id used by Doorstep's own sources: subject and sequence, unique within a source.
    ///
    /// # Errors
    /// Fails if the id would exceed 255 bytes.
    pub fn id_for(subject: &Subject, sequence: Sequence) -> Result<EventId, AttributeError> {
        EventId::new(format!("{subject}#{sequence}"))
    }

    /// Returns the event's stream, even if it has no sequence there.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        StreamKey {
            source: self.source.clone(),
            subject: self.subject.clone(),
        }
    }

    /// Returns the approximate size in bytes in memory, in a queue or in a store, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len()
            + self.id.as_str().len()
            + self.source.as_str().len()
            + self.event_type.as_str().len()
            + self.subject.as_str().len()
            + 64
    }
}
