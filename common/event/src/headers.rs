//! CloudEvents in binary mode: every attribute as a header with the `cloudEvents:` prefix, the data as the body.
//!
//! The broker's client turns these pairs into AMQP headers and back; nothing here names it.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{
    AttributeError, Epoch, Event, EventId, EventType, MAX_DATA_BYTES, Sequence, Source, Subject,
    attributes::shown, time,
};

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
/// Header of [`Event::event_type`].
pub const HEADER_TYPE: &str = "cloudEvents:type";
/// Header of [`Event::subject`].
pub const HEADER_SUBJECT: &str = "cloudEvents:subject";
/// Header of [`Event::time`], RFC 3339.
pub const HEADER_TIME: &str = "cloudEvents:time";
/// Header of [`Event::sequence`]: the CloudEvents sequence extension asks for text that sorts, hence 20 digits with leading zeros.
pub const HEADER_SEQUENCE: &str = "cloudEvents:sequence";
/// Header of [`Event::epoch`], an extension of Doorstep's own.
pub const HEADER_EPOCH: &str = "cloudEvents:epoch";
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

/// An attribute as a message has it, not yet checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// No value.
    #[default]
    Absent,
    /// Its text.
    Text(Cow<'a, str>),
    /// A value that no attribute has, or several that contradict each other, in words that name them.
    Wrong(String),
}

/// The attributes as they stood in a message, not yet looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RawHeaders<'a> {
    /// [`HEADER_SPEC_VERSION`].
    pub spec_version: Value<'a>,
    /// [`HEADER_ID`].
    pub id: Value<'a>,
    /// [`HEADER_SOURCE`].
    pub source: Value<'a>,
    /// [`HEADER_TYPE`].
    pub kind: Value<'a>,
    /// [`HEADER_SUBJECT`].
    pub subject: Value<'a>,
    /// [`HEADER_TIME`].
    pub time: Value<'a>,
    /// [`HEADER_SEQUENCE`].
    pub sequence: Value<'a>,
    /// [`HEADER_EPOCH`].
    pub epoch: Value<'a>,
    /// [`HEADER_TRACEPARENT`].
    pub traceparent: Option<Cow<'a, str>>,
    /// The data where it is not the whole body: in structured mode.
    pub data: Option<Bytes>,
    /// A second fault of the message.
    pub defects: Vec<String>,
}

impl<'a> RawHeaders<'a> {
    /// Adds a value of the attribute of this CloudEvents name; names that Doorstep does not read are ignored. Two different values of
    /// one attribute are [`Value::Wrong`] from then on.
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
            (Value::Text(_), Value::Wrong(_)) => *slot = value,
            (Value::Text(one), Value::Text(other)) if !same(attribute, one, other) => {
                *slot = Value::Wrong(format!(
                    "{attribute} is both {} and {}",
                    shown(one),
                    shown(other)
                ));
            }
            (_, Value::Absent) | (Value::Text(_), Value::Text(_)) | (Value::Wrong(_), _) => {}
        }
    }
}

/// Describes values of an attribute, for a message that refuses one.
#[must_use]
pub fn form(attribute: &str) -> &'static str {
    match attribute {
        "sequence" => "a whole number or text",
        "time" => "a timestamp or text",
        _ => "text",
    }
}

/// Returns whether two texts of an attribute mean the same.
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

/// What came out of reading a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// An event. Its data has not been looked at: that is its contract's business.
    Valid(Event),
    /// Source, subject, sequence and id can be read, so the message has a place in a stream, but it is wrong in another way: it
    /// will be refused when it is next there. What could not be read is filled in by a stand-in ([`UNREADABLE_TYPE`]).
    Invalid(Event, String),
    /// Without a place in a stream: nothing follows it, nothing waits for it.
    Undecodable {
        /// What is wrong with it.
        defect: String,
        /// Its body.
        body: Bytes,
    },
}

/// The type that an event is given whose own type cannot be read.
pub const UNREADABLE_TYPE: &str = "unreadable.type.v1";

/// Reads messages, one after the other. What one message has the next mostly has as well, and is then not made again.
#[derive(Debug, Default)]
pub struct Decoder {
    source: Option<Source>,
    kind: Option<EventType>,
}

/// Reads a single message's headers and body.
#[must_use]
pub fn read(raw: RawHeaders<'_>, body: Bytes) -> Decoded {
    Decoder::default().read(raw, body)
}

impl Decoder {
    /// Reads a message's headers and body.
    #[must_use]
    pub fn read(&mut self, raw: RawHeaders<'_>, body: Bytes) -> Decoded {
        let mut defects = raw.defects;
        let place = if raw.data.is_some() {
            ""
        } else {
            "header cloudEvents:"
        };
        let id = parse_header(&mut defects, place, "id", raw.id, str::parse::<EventId>);
        let source = parse_header(&mut defects, place, "source", raw.source, |text| {
            reuse_or_parse(&mut self.source, text, Source::as_str, str::parse::<Source>)
        });
        let subject = parse_header(
            &mut defects,
            place,
            "subject",
            raw.subject,
            str::parse::<Subject>,
        );
        let kind = parse_header(&mut defects, place, "type", raw.kind, |text| {
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
            Value::Wrong(defect) => defects.push(defect),
            Value::Absent => defects.push(format!("{place}specversion is missing")),
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
        let is_sound = defects.is_empty();
        // Whatever its other defects, with these it has a place in a stream; what has no sequence must be sound.
        let (Some(id), Some(source), Some(subject), true) =
            (id, source, subject, is_sound || sequence.is_some())
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
        if is_sound {
            Decoded::Valid(event)
        } else {
            Decoded::Invalid(event, defects.join("; "))
        }
    }
}

/// Parses an attribute that must be there, and notes what is wrong with it.
fn parse_header<T>(
    defects: &mut Vec<String>,
    place: &str,
    name: &str,
    value: Value<'_>,
    parse: impl FnOnce(&str) -> Result<T, AttributeError>,
) -> Option<T> {
    if value == Value::Absent {
        defects.push(format!("{place}{name} is missing"));
    }
    parse_optional(defects, value, parse)
}

/// Parses an attribute that may be absent, and notes what is wrong with it.
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
        Value::Wrong(defect) => defect,
    };
    defects.push(defect);
    None
}

/// The value that the last message had, if this one's is the same; otherwise a new one, which is kept for the next.
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
    fn what_is_written_is_read_back() {
        assert_eq!(read(raw(&event()), event().data), Decoded::Valid(event()));
    }

    #[test]
    fn what_the_last_message_had_is_not_taken_for_what_this_one_has() {
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
    fn a_spoiled_message_keeps_its_place_in_its_stream() {
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
                Decoded::Invalid(spoiled, defect) => {
                    assert_eq!(spoiled.stream(), event().stream());
                    assert_eq!(spoiled.sequence, event().sequence);
                    assert!(!defect.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
        let large = Bytes::from(vec![b' '; MAX_DATA_BYTES + 1]);
        assert!(matches!(read(raw(&event()), large), Decoded::Invalid(..)));
    }

    #[test]
    fn a_message_without_a_place_is_unreadable() {
        for spoil in [
            |r: &mut RawHeaders<'_>| r.source = Value::Absent,
            |r: &mut RawHeaders<'_>| r.subject = Value::Text("order".into()),
            |r: &mut RawHeaders<'_>| r.sequence = Value::Text("0".into()),
            |r: &mut RawHeaders<'_>| r.id = Value::Text(Cow::Borrowed("")),
        ] {
            let mut raw = raw(&event());
            spoil(&mut raw);
            assert!(matches!(
                read(raw, event().data),
                Decoded::Undecodable { .. }
            ));
        }
        let Decoded::Undecodable { defect, .. } = read(RawHeaders::default(), Bytes::new()) else {
            panic!("nothing was readable")
        };
        assert!(defect.contains("cloudEvents:id is missing"), "{defect}");
    }

    #[test]
    fn one_attribute_with_two_values_is_refused_by_both() {
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
                panic!("{attribute} was guessed")
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
