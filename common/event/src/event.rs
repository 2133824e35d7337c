//! The event itself.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{AttributeError, Epoch, EventId, EventType, Sequence, Source, StreamKey, Subject};

/// The most bytes of data that an event may carry: 1 MiB. What is larger travels by claim check.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

/// A fact, past tense, immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Names the event among those of its source; the same id is the same event.
    pub id: EventId,
    /// Who numbered it.
    pub source: Source,
    /// Its versioned type.
    pub event_type: EventType,
    /// What it is about.
    pub subject: Subject,
    /// When the fact happened, as its source knows it.
    pub time: Option<Timestamp>,
    /// Its number in its stream; without one there is no order, and it is told apart by its id alone.
    pub sequence: Option<Sequence>,
    /// The epoch of the store that numbered it; none where its source has no store.
    pub epoch: Option<Epoch>,
    /// W3C trace context, handed through unread.
    pub traceparent: Option<String>,
    /// The data, in JSON.
    pub data: Bytes,
}

impl Event {
    /// The id that Doorstep's own sources give: the subject and the sequence, unique within a source.
    ///
    /// # Errors
    /// The subject is so long that the id does not fit 255 bytes.
    pub fn id_for(subject: &Subject, sequence: Sequence) -> Result<EventId, AttributeError> {
        EventId::new(format!("{subject}#{sequence}"))
    }

    /// The stream that the event is in, whether it is numbered there or not.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        StreamKey {
            source: self.source.clone(),
            subject: self.subject.clone(),
        }
    }

    /// About how many bytes the event takes in memory, in a queue or in a store: for bounds, not for billing.
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
