//! CloudEvents in binary mode: every attribute is a header with the prefix `cloudEvents:`, the data is the body.
//!
//! The messaging crate converts these pairs to AMQP headers and back; nothing here depends on AMQP.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    AttributeError, Epoch, Event, EventId, EventType, MAX_DATA_BYTES, Sequence, Source, Subject,
    attributes::shown, time,
};

/// The CloudEvents version that Doorstep writes, and the only one it accepts.
pub const SPEC_VERSION: &str = "1.0";
/// Media type of an event's data.
pub const CONTENT_TYPE: &str = "application/json";

/// Header of the CloudEvents version.
pub const HEADER_SPEC_VERSION: &str = "cloudEvents:specversion";
pub const HEADER_ID: &str = "cloudEvents:id";
pub const HEADER_SOURCE: &str = "cloudEvents:source";
pub const HEADER_TYPE: &str = "cloudEvents:type";
pub const HEADER_SUBJECT: &str = "cloudEvents:subject";
/// Header of [`Event::time`], RFC 3339.
pub const HEADER_TIME: &str = "cloudEvents:time";
/// Header of [`Event::sequence`]. The CloudEvents sequence extension requires sortable text, hence 20 digits with leading zeros.
pub const HEADER_SEQUENCE: &str = "cloudEvents:sequence";
/// Header of [`Event::epoch`], Doorstep's own extension.
pub const HEADER_EPOCH: &str = "cloudEvents:epoch";
/// Header of the CloudEvents partitioning extension.
pub const HEADER_PARTITION_KEY: &str = "cloudEvents:partitionkey";
/// Header of the W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// Returns an event's headers as pairs.
#[must_use]
pub fn write(event: &Event) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        (HEADER_SPEC_VERSION, SPEC_VERSION.to_owned()),
        (HEADER_ID, event.id.to_string()),
        (HEADER_SOURCE, event.source.to_string()),
        (HEADER_TYPE, event.event_type.to_string()),
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
    if let Some(epoch) = event.epoch {
        headers.push((HEADER_EPOCH, epoch.to_string()));
    }
    if let Some(traceparent) = &event.traceparent {
        headers.push((HEADER_TRACEPARENT, traceparent.clone()));
    }
    headers
}

/// An unvalidated attribute of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// An invalid or contradictory value. The text describes it.
    Invalid(String),
}

/// The unvalidated attributes of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RawHeaders<'a> {
    pub spec_version: Value<'a>,
    pub id: Value<'a>,
    pub source: Value<'a>,
    pub kind: Value<'a>,
    pub subject: Value<'a>,
    pub time: Value<'a>,
    pub sequence: Value<'a>,
    pub epoch: Value<'a>,
    pub traceparent: Option<Cow<'a, str>>,
    /// The data if it is not the whole body, in structured mode.
    pub data: Option<Bytes>,
    /// Other defects of the message.
    pub defects: Vec<String>,
}

impl<'a> RawHeaders<'a> {
    /// Adds a value of the attribute with this CloudEvents name; unknown names are ignored. Two different values make the attribute
    /// [`Value::Invalid`].
    pub fn put(&mut self, attribute: &str, value: Value<'a>) {
        let slot = match attribute {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "sequence" => &mut self.sequence,
            "epoch" => &mut self.epoch,
            _ => return,
        };
        match (&*slot, &value) {
            (Value::Absent, _) => *slot = value,
            (Value::Text(_), Value::Invalid(_)) => *slot = value,
            (Value::Text(one), Value::Text(other)) if !same(attribute, one, other) => {
                *slot = Value::Invalid(format!(
                    "{attribute} is both {} and {}",
                    shown(one),
                    shown(other)
                ));
            }
            (_, Value::Absent) | (Value::Text(_), Value::Text(_)) | (Value::Invalid(_), _) => {}
        }
    }
}

/// Describes the valid types of an attribute, for an error text.
#[must_use]
pub fn form(attribute: &str) -> &'static str {
    match attribute {
        "sequence" => "a whole number or text",
        "time" => "a timestamp or text",
        _ => "text",
    }
}

/// Returns whether two texts of an attribute are equivalent.
fn same(attribute: &str, one: &str, other: &str) -> bool {
    one == other
        || match attribute {
            "sequence" => one
                .parse::<Sequence>()
                .is_ok_and(|one| other.parse() == Ok(one)),
            "time" => time::parse(one).is_ok_and(|one| time::parse(other) == Ok(one)),
            _ => false,
        }
}

/// The result of decoding a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// An event. Its data has not been checked; that is up to its contract.
    Valid(Event),
    /// A defective event whose source, subject, sequence and id are readable, so it has a place in a stream: it is rejected when its turn
    /// comes. Unreadable attributes have placeholders ([`UNREADABLE_TYPE`]).
    Invalid(Event, String),
    /// A message that belongs to no stream, so no other event depends on it.
    Undecodable { defect: String, body: Bytes },
}

impl Decoded {
    /// Returns the event, if it has a place in a stream.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Valid(event) | Self::Invalid(event, _) => Some(event),
            Self::Undecodable { .. } => None,
        }
    }

    #[must_use]
    pub fn defect(&self) -> Option<&String> {
        match self {
            Self::Valid(_) => None,
            Self::Invalid(_, defect) | Self::Undecodable { defect, .. } => Some(defect),
        }
    }
}

/// Placeholder type of an event whose own type is unreadable.
pub const UNREADABLE_TYPE: &str = "unreadable.type.v1";

/// Decodes successive messages. Consecutive messages often share source and type, so these values are reused.
#[derive(Debug, Default)]
pub struct Decoder {
    source: Option<Source>,
    kind: Option<EventType>,
}

/// Decodes the headers and body of a single message.
#[must_use]
pub fn read(raw: RawHeaders<'_>, body: Bytes) -> Decoded {
    Decoder::default().read(raw, body)
}

impl Decoder {
    /// Decodes a message's headers and body.
    #[must_use]
    pub fn read(&mut self, raw: RawHeaders<'_>, body: Bytes) -> Decoded {
        let mut defects = raw.defects;
        let prefix = if raw.data.is_some() {
            ""
        } else {
            "header cloudEvents:"
        };
        let id = parse_header(&mut defects, prefix, "id", raw.id, str::parse::<EventId>);
        let source = parse_header(&mut defects, prefix, "source", raw.source, |text| {
            reuse_or_parse(&mut self.source, text, Source::as_str, str::parse::<Source>)
        });
        let subject = parse_header(
            &mut defects,
            prefix,
            "subject",
            raw.subject,
            str::parse::<Subject>,
        );
        let kind = parse_header(&mut defects, prefix, "type", raw.kind, |text| {
            reuse_or_parse(
                &mut self.kind,
                text,
                EventType::as_str,
                str::parse::<EventType>,
            )
        });
        let sequence = parse_optional(&mut defects, raw.sequence, str::parse::<Sequence>);
        let epoch = parse_optional(&mut defects, raw.epoch, str::parse::<Epoch>);
        let time = parse_optional(&mut defects, raw.time, time::parse);
        match raw.spec_version {
            Value::Text(version) if version == SPEC_VERSION => {}
            Value::Text(other) => {
                defects.push(format!(
                    "specversion {} is not {SPEC_VERSION}",
                    shown(&other)
                ));
            }
            Value::Invalid(defect) => defects.push(defect),
            Value::Absent => defects.push(format!("{prefix}specversion is missing")),
        }
        if let (Some(kind), Some(subject)) = (&kind, &subject)
            && let Err(e) = kind.check_subject(subject)
        {
            defects.push(e.to_string());
        }
        let data_len = raw.data.as_ref().map_or(body.len(), Bytes::len);
        if data_len > MAX_DATA_BYTES {
            defects.push(crate::ContractError::TooLarge(data_len).to_string());
        }
        let is_valid = defects.is_empty();
        // With these attributes, an event has a place in a stream despite other defects. An event without a sequence must have no defects.
        let (Some(id), Some(source), Some(subject), true) =
            (id, source, subject, is_valid || sequence.is_some())
        else {
            let defect = defects.join("; ");
            return Decoded::Undecodable { defect, body };
        };
        let event = Event {
            id,
            source,
            event_type: kind.unwrap_or_else(unreadable_type),
            subject,
            time,
            sequence,
            epoch,
            traceparent: raw.traceparent.map(Cow::into_owned),
            data: raw.data.unwrap_or(body),
        };
        if is_valid {
            Decoded::Valid(event)
        } else {
            Decoded::Invalid(event, defects.join("; "))
        }
    }
}

/// Parses a required attribute, and records its defects.
fn parse_header<T>(
    defects: &mut Vec<String>,
    prefix: &str,
    name: &str,
    value: Value<'_>,
    parse: impl FnOnce(&str) -> Result<T, AttributeError>,
) -> Option<T> {
    if value == Value::Absent {
        defects.push(format!("{prefix}{name} is missing"));
    }
    parse_optional(defects, value, parse)
}

/// Parses an optional attribute, and records its defects.
fn parse_optional<T>(
    defects: &mut Vec<String>,
    value: Value<'_>,
    parse: impl FnOnce(&str) -> Result<T, AttributeError>,
) -> Option<T> {
    let defect = match value {
        Value::Absent => return None,
        Value::Text(text) => match parse(&text) {
            Ok(value) => return Some(value),
            Err(e) => e.to_string(),
        },
        Value::Invalid(defect) => defect,
    };
    defects.push(defect);
    None
}

/// Returns the previous message's value if it is the same. Otherwise parses a new value and keeps it.
fn reuse_or_parse<T: Clone>(
    last: &mut Option<T>,
    text: &str,
    as_str: impl Fn(&T) -> &str,
    new: impl FnOnce(&str) -> Result<T, AttributeError>,
) -> Result<T, AttributeError> {
    match last {
        Some(last) if as_str(last) == text => Ok(last.clone()),
        _ => Ok(last.insert(new(text)?).clone()),
    }
}

fn unreadable_type() -> EventType {
    #[expect(clippy::expect_used, reason = "a constant of the program")]
    EventType::new(UNREADABLE_TYPE).expect("a well-formed type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: EventId::new("order/1#7").unwrap(),
            source: Source::new("shop/1").unwrap(),
            event_type: EventType::new("order.placed.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            time: Some("2026-11-23T10:00:00.25Z".parse().unwrap()),
            sequence: Sequence::new(7),
            epoch: Epoch::new(3, 0xfeed),
            traceparent: None,
            data: Bytes::from_static(b"{}"),
        }
    }

    fn raw(event: &Event) -> RawHeaders<'static> {
        let mut raw = RawHeaders::default();
        for (name, value) in write(event) {
            match name.strip_prefix("cloudEvents:") {
                Some(attribute) => raw.put(attribute, Value::Text(value.into())),
                None => raw.traceparent = Some(value.into()),
            }
        }
        raw
    }

    #[test]
    fn an_event_round_trips() {
        assert_eq!(read(raw(&event()), event().data), Decoded::Valid(event()));
    }

    #[test]
    fn cached_values_never_leak_into_other_messages() {
        let mut reader = Decoder::default();
        let mut other = event();
        other.source = Source::new("shop/2").unwrap();
        other.event_type = EventType::new("order.cancelled.v1").unwrap();
        for event in [event(), other, event()] {
            assert_eq!(
                reader.read(raw(&event), event.data.clone()),
                Decoded::Valid(event)
            );
        }
    }

    #[test]
    fn an_invalid_message_keeps_its_place() {
        let mut without_type = raw(&event());
        without_type.kind = Value::Absent;
        let mut with_other_version = raw(&event());
        with_other_version.spec_version = Value::Text("2.0".into());
        let mut off_subject = raw(&event());
        off_subject.kind = Value::Text("stock.adjusted.v1".into());
        let mut off_epoch = raw(&event());
        off_epoch.epoch = Value::Text("3".into());
        for raw in [without_type, with_other_version, off_subject, off_epoch] {
            match read(raw, event().data) {
                Decoded::Invalid(invalid, defect) => {
                    assert_eq!(invalid.stream(), event().stream());
                    assert_eq!(invalid.sequence, event().sequence);
                    assert!(!defect.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
        let large = Bytes::from(vec![b' '; MAX_DATA_BYTES + 1]);
        assert!(matches!(read(raw(&event()), large), Decoded::Invalid(..)));
    }

    #[test]
    fn a_message_without_stream_position_is_undecodable() {
        for change in [
            |r: &mut RawHeaders<'_>| r.source = Value::Absent,
            |r: &mut RawHeaders<'_>| r.subject = Value::Text("order".into()),
            |r: &mut RawHeaders<'_>| r.sequence = Value::Text("0".into()),
            |r: &mut RawHeaders<'_>| r.id = Value::Text(Cow::Borrowed("")),
        ] {
            let mut raw = raw(&event());
            change(&mut raw);
            assert!(matches!(
                read(raw, event().data),
                Decoded::Undecodable { .. }
            ));
        }
        let Decoded::Undecodable { defect, .. } = read(RawHeaders::default(), Bytes::new()) else {
            panic!("an empty message was decoded")
        };
        assert!(defect.contains("cloudEvents:id is missing"), "{defect}");
    }

    #[test]
    fn contradictory_values_are_rejected_naming_both() {
        for (attribute, other) in [
            ("id", "b"),
            ("source", "shop/2"),
            ("subject", "order/2"),
            ("type", "order.cancelled.v1"),
            ("time", "2026-11-23T10:00:00.26Z"),
            ("sequence", "8"),
            ("epoch", "4-000000000000feed"),
            ("specversion", "1.1"),
        ] {
            let mut raw = raw(&event());
            raw.put(attribute, Value::Text(other.into()));
            let (Decoded::Undecodable { defect, .. } | Decoded::Invalid(_, defect)) =
                read(raw, event().data)
            else {
                panic!("{attribute} was accepted")
            };
            assert!(
                defect.starts_with(&format!("{attribute} is both ")),
                "{defect}"
            );
            assert!(defect.contains(&format!("{other:?}")), "{defect}");
        }
        let mut equal = raw(&event());
        for (attribute, value) in [
            ("id", "order/1#7"),
            ("sequence", "7"),
            ("time", "2026-11-23T11:00:00.2500+01:00"),
        ] {
            equal.put(attribute, Value::Text(value.into()));
        }
        assert_eq!(read(equal, event().data), Decoded::Valid(event()));
    }
}
