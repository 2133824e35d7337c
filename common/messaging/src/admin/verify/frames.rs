//! The frame size that message headers need. Unlike a body, headers are not split over several frames.

use doorstep_event::{MAX_EPOCH_BYTES, headers};

/// Maximum frame for any message's headers. The largest are those of a dead letter: its event's headers and a few more.
pub(crate) const NEEDED: u32 = (FRAME + EVENT_HEADERS + DEAD_LETTER + BROKER) as u32;

/// Bytes of the frame itself and of the properties that repeat headers: class, size, flags, content type, message id, type, timestamp,
/// delivery mode, and length of the header table.
const FRAME: usize = 8 + 14 + 3 * (1 + TEXT) + 8 + 1 + 4;
/// Maximum bytes of an attribute.
const TEXT: usize = 255;
/// An RFC 3339 time with nanoseconds, the digits of a sequence, and a trace context.
const TIME: usize = 35;
const SEQUENCE: usize = 20;
const TRACE: usize = 55;

/// All headers of an event, each at its maximum length.
const EVENT_HEADERS: usize = header(headers::HEADER_SPEC_VERSION, headers::SPEC_VERSION.len())
    + header(headers::HEADER_ID, TEXT)
    + header(headers::HEADER_SOURCE, TEXT)
    + header(headers::HEADER_TYPE, TEXT)
    + header(headers::HEADER_SUBJECT, TEXT)
    + header(headers::HEADER_PARTITION_KEY, TEXT)
    + header(headers::HEADER_TIME, TIME)
    + header(headers::HEADER_SEQUENCE, SEQUENCE)
    + header(headers::HEADER_EPOCH, MAX_EPOCH_BYTES)
    + header(headers::HEADER_TRACEPARENT, TRACE);
/// Additional headers of a dead letter's copy: role, reason, attempts, fingerprint, time, and a detail of at most 1,000 characters.
const DEAD_LETTER: usize = 1_000 * 4 + 512;
/// Headers that the broker adds when it dead-letters: queue, exchange, routing key and count.
const BROKER: usize = 2_048;

/// Bytes of a header: length and text of the name, type, length and value.
const fn header(name: &str, value: usize) -> usize {
    1 + name.len() + 1 + 4 + value
}

/// Returns whether frames are large enough; 0 means no limit.
pub(crate) fn is_enough(frame_max: u32) -> bool {
    frame_max == 0 || frame_max >= NEEDED
}

#[cfg(test)]
mod tests {
    use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject};

    use super::*;

    #[test]
    fn an_event_with_longest_attributes_fits() {
        let long = |start: &str| format!("{start}{}", "x".repeat(TEXT - start.len()));
        let event = Event {
            id: EventId::new(long("")).unwrap(),
            source: Source::new(long("s/")).unwrap(),
            event_type: EventType::new(format!("order.{}.v1", "x".repeat(TEXT - 9))).unwrap(),
            subject: Subject::new(long("order/")).unwrap(),
            time: Some("2026-11-23T10:00:00.123456789Z".parse().unwrap()),
            sequence: Some(Sequence::new(u64::MAX / 2).unwrap()),
            epoch: doorstep_event::Epoch::new(u64::MAX / 2, u64::MAX),
            traceparent: Some("x".repeat(TRACE)),
            data: bytes::Bytes::new(),
        };
        let written = headers::write(&event);
        let bytes: usize = written.iter().map(|(n, v)| header(n, v.len())).sum();
        assert!(bytes <= EVENT_HEADERS, "{bytes} of {EVENT_HEADERS}");
        assert!(bytes > EVENT_HEADERS - 10, "{bytes} of {EVENT_HEADERS}");
    }

    #[test]
    fn amqp_minimum_is_too_small_the_default_suffices() {
        assert!(!is_enough(4_096));
        assert!(is_enough(131_072) && is_enough(0));
        assert!((8_192..16_384).contains(&NEEDED), "{NEEDED}");
    }
}
