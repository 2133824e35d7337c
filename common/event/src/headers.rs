//! CloudEvents in binary mode: every attribute as a header with the `cloudEvents:` prefix, the data as the body.
//!
//! The broker's client turns these pairs into AMQP headers and back; nothing here names it.

use bytes::Bytes;

use crate::{AttributeError, Event, EventId, EventType, MAX_DATA_BYTES, Sequence, Source, Subject};

/// The version of the CloudEvents specification that Doorstep writes, and the only one it reads.
pub const SPEC_VERSION: &str = "1.0";
/// The media type of an event's data.
pub const CONTENT_TYPE: &str = "application/json";

/// Header of the specification's version.
pub const HEADER_SPEC_VERSION: &str = "cloudEvents:specversion";
/// Header of [`Event::id`].
pub const HEADER_ID: &str = "cloudEvents:id";
/// Header of [`Event::source`].
pub const HEADER_SOURCE: &str = "cloudEvents:source";
/// Header of [`Event::kind`].
pub const HEADER_TYPE: &str = "cloudEvents:type";
/// Header of [`Event::subject`].
pub const HEADER_SUBJECT: &str = "cloudEvents:subject";
/// Header of [`Event::time`], RFC 3339.
pub const HEADER_TIME: &str = "cloudEvents:time";
/// Header of [`Event::sequence`]: the CloudEvents sequence extension asks for text that sorts, hence 20 digits with leading zeros.
pub const HEADER_SEQUENCE: &str = "cloudEvents:sequence";
/// Header of the CloudEvents partitioning extension.
pub const HEADER_PARTITION_KEY: &str = "cloudEvents:partitionkey";
/// Header of the W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// The headers of an event, as pairs.
#[must_use]
pub fn write(event: &Event) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        (HEADER_SPEC_VERSION, SPEC_VERSION.to_owned()),
        (HEADER_ID, event.id.to_string()),
        (HEADER_SOURCE, event.source.to_string()),
        (HEADER_TYPE, event.kind.to_string()),
        (HEADER_SUBJECT, event.subject.to_string()),
        (
            HEADER_PARTITION_KEY,
            event.subject.partition_key().to_owned(),
        ),
    ];
    if let Some(time) = event.time {
        headers.push((HEADER_TIME, time.to_string()));
    }
    if let Some(sequence) = event.sequence {
        headers.push((HEADER_SEQUENCE, format!("{:020}", sequence.get())));
    }
    if let Some(traceparent) = &event.traceparent {
        headers.push((HEADER_TRACEPARENT, traceparent.clone()));
    }
    headers
}

/// The attributes as they stood in a message's headers, not yet looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Raw {
    /// [`HEADER_SPEC_VERSION`].
    pub spec_version: Option<String>,
    /// [`HEADER_ID`].
    pub id: Option<String>,
    /// [`HEADER_SOURCE`].
    pub source: Option<String>,
    /// [`HEADER_TYPE`].
    pub kind: Option<String>,
    /// [`HEADER_SUBJECT`].
    pub subject: Option<String>,
    /// [`HEADER_TIME`].
    pub time: Option<String>,
    /// [`HEADER_SEQUENCE`].
    pub sequence: Option<String>,
    /// [`HEADER_TRACEPARENT`].
    pub traceparent: Option<String>,
}

/// What came out of reading a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// An event. Its data has not been looked at: that is its contract's business.
    Event(Event),
    /// Source, subject, sequence and id can be read, so the message has a place in a stream, but it is wrong in another way: it
    /// will be refused when it is next there. What could not be read is filled in by a stand-in ([`UNREADABLE_TYPE`]).
    Spoiled(Event, String),
    /// Without a place in a stream: nothing follows it, nothing waits for it.
    Unreadable(String),
}

/// The type that an event is given whose own type cannot be read.
pub const UNREADABLE_TYPE: &str = "unreadable.type.v1";

/// Reads a message's headers and body.
#[must_use]
pub fn read(raw: Raw, body: Bytes) -> Read {
    let mut defects: Vec<String> = Vec::new();
    fn take<T>(
        defects: &mut Vec<String>,
        name: &'static str,
        text: Option<String>,
        parse: impl FnOnce(String) -> Result<T, AttributeError>,
    ) -> Option<T> {
        let Some(text) = text else {
            defects.push(format!("header {name} is missing"));
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(e) => {
                defects.push(e.to_string());
                None
            }
        }
    }
    let id = take(&mut defects, HEADER_ID, raw.id, EventId::new);
    let source = take(&mut defects, HEADER_SOURCE, raw.source, Source::new);
    let subject = take(&mut defects, HEADER_SUBJECT, raw.subject, Subject::new);
    let kind = take(&mut defects, HEADER_TYPE, raw.kind, EventType::new);
    let sequence = match raw.sequence {
        None => None,
        Some(text) => take(&mut defects, HEADER_SEQUENCE, Some(text), |t| {
            t.parse::<Sequence>()
        }),
    };
    let time = raw.time.and_then(|text| match text.parse() {
        Ok(time) => Some(time),
        Err(_) => {
            defects.push(format!("time {text:?} is not of the form of RFC 3339"));
            None
        }
    });
    match raw.spec_version.as_deref() {
        Some(SPEC_VERSION) => {}
        Some(other) => defects.push(format!("specversion {other:?} is not {SPEC_VERSION}")),
        None => defects.push(format!("header {HEADER_SPEC_VERSION} is missing")),
    }
    if let (Some(kind), Some(subject)) = (&kind, &subject)
        && let Err(e) = kind.check_subject(subject)
    {
        defects.push(e.to_string());
    }
    if body.len() > MAX_DATA_BYTES {
        defects.push(crate::ContractError::TooLarge(body.len()).to_string());
    }
    let event = |id, source, subject, kind, sequence| Event {
        id,
        source,
        kind,
        subject,
        time,
        sequence,
        traceparent: raw.traceparent,
        data: body,
    };
    match (id, source, subject, kind, sequence) {
        (Some(id), Some(source), Some(subject), Some(kind), sequence) if defects.is_empty() => {
            Read::Event(event(id, source, subject, kind, sequence))
        }
        (Some(id), Some(source), Some(subject), kind, Some(sequence)) => {
            let kind = kind.or_else(|| EventType::new(UNREADABLE_TYPE).ok());
            match kind {
                Some(kind) => Read::Spoiled(
                    event(id, source, subject, kind, Some(sequence)),
                    defects.join("; "),
                ),
                None => Read::Unreadable(defects.join("; ")),
            }
        }
        _ => Read::Unreadable(defects.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: EventId::new("order/1#7").unwrap(),
            source: Source::new("shop/1").unwrap(),
            kind: EventType::new("order.placed.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            time: Some("2026-11-23T10:00:00.25Z".parse().unwrap()),
            sequence: Sequence::new(7),
            traceparent: None,
            data: Bytes::from_static(b"{}"),
        }
    }

    fn raw(event: &Event) -> Raw {
        let mut raw = Raw::default();
        for (name, value) in write(event) {
            let slot = match name {
                HEADER_SPEC_VERSION => &mut raw.spec_version,
                HEADER_ID => &mut raw.id,
                HEADER_SOURCE => &mut raw.source,
                HEADER_TYPE => &mut raw.kind,
                HEADER_SUBJECT => &mut raw.subject,
                HEADER_TIME => &mut raw.time,
                HEADER_SEQUENCE => &mut raw.sequence,
                HEADER_TRACEPARENT => &mut raw.traceparent,
                _ => continue,
            };
            *slot = Some(value);
        }
        raw
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(read(raw(&event()), event().data), Read::Event(event()));
    }

    #[test]
    fn a_spoiled_message_keeps_its_place_in_its_stream() {
        let mut without_type = raw(&event());
        without_type.kind = None;
        let mut with_other_version = raw(&event());
        with_other_version.spec_version = Some("2.0".into());
        let mut off_subject = raw(&event());
        off_subject.kind = Some("stock.adjusted.v1".into());
        for raw in [without_type, with_other_version, off_subject] {
            match read(raw, event().data) {
                Read::Spoiled(spoiled, defect) => {
                    assert_eq!(spoiled.stream(), event().stream());
                    assert_eq!(spoiled.sequence, event().sequence);
                    assert!(!defect.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
        let large = Bytes::from(vec![b' '; MAX_DATA_BYTES + 1]);
        assert!(matches!(read(raw(&event()), large), Read::Spoiled(..)));
    }

    #[test]
    fn a_message_without_a_place_is_unreadable() {
        for spoil in [
            |r: &mut Raw| r.source = None,
            |r: &mut Raw| r.subject = Some("order".into()),
            |r: &mut Raw| r.sequence = Some("0".into()),
            |r: &mut Raw| r.id = Some(String::new()),
        ] {
            let mut raw = raw(&event());
            spoil(&mut raw);
            assert!(matches!(read(raw, event().data), Read::Unreadable(_)));
        }
        let Read::Unreadable(defect) = read(Raw::default(), Bytes::new()) else {
            panic!("nothing was readable")
        };
        assert!(defect.contains("cloudEvents:id is missing"), "{defect}");
    }
}
