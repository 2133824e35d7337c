//! CloudEvents in structured mode: one JSON object per event, as `producer publish` reads them from a file or a pipe.

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    Event, EventId, EventType, Source, Subject,
    attributes::shown,
    headers::{self, Decoded, RawHeaders, SPEC_VERSION, Value},
    media,
};

#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("the data is not JSON: {0}")]
    Data(#[from] serde_json::Error),
    /// The line is not an event; the text says why.
    #[error("{0}")]
    Defect(String),
}

/// The known members; others are ignored, as CloudEvents specifies for extensions.
const MEMBERS: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "sequence",
    "epoch",
    "traceparent",
    "datacontenttype",
    "data",
    "data_base64",
];

/// Adds the attributes of an event in structured mode to those of its headers. Contradictory and repeated, different values become
/// [`Value::Invalid`].
#[must_use]
pub fn add<'a>(mut raw: RawHeaders<'a>, body: &'a [u8]) -> RawHeaders<'a> {
    let members = match members(body) {
        Ok(members) => members,
        Err(e) => {
            raw.defects
                .push(format!("not a CloudEvents object in JSON: {e}"));
            return raw;
        }
    };
    let (mut data, mut encoded) = (None, None);
    for (name, value) in members {
        match name {
            "data" => take_once(name, &mut data, value, &mut raw.defects),
            "data_base64" => take_once(name, &mut encoded, value, &mut raw.defects),
            "traceparent" => {
                if let Value::Text(text) = text(name, value) {
                    raw.traceparent = Some(text);
                }
            }
            "datacontenttype" => match text(name, value) {
                Value::Text(text) => raw.defects.extend(media::mode(&text).1),
                Value::Invalid(defect) => raw.defects.push(defect),
                Value::Absent => {}
            },
            _ => raw.put(name, text(name, value)),
        }
    }
    raw.data = Some(match (data, encoded) {
        (None, None) => Bytes::new(),
        (Some(data), None) => Bytes::copy_from_slice(data.as_bytes()),
        (None, Some(encoded)) => match decoded(encoded) {
            Ok(data) => data.into(),
            Err(defect) => {
                raw.defects.push(defect);
                Bytes::copy_from_slice(encoded.as_bytes())
            }
        },
        (Some(data), Some(_)) => {
            raw.defects
                .push("there are both data and data_base64".to_owned());
            Bytes::copy_from_slice(data.as_bytes())
        }
    });
    raw
}

/// Takes a member that must occur only once. `null` counts as absent.
fn take_once<'a>(
    name: &str,
    slot: &mut Option<&'a str>,
    value: &'a RawValue,
    defects: &mut Vec<String>,
) {
    let value = value.get();
    match slot {
        None if name == "data_base64" && value == "null" => {}
        None => *slot = Some(value),
        Some(first) if *first == value => {}
        Some(_) => defects.push(format!("there are two values of {name}")),
    }
}

fn decoded(encoded: &str) -> Result<Vec<u8>, String> {
    let text: String =
        serde_json::from_str(encoded).map_err(|e| format!("data_base64 is not text: {e}"))?;
    BASE64_STANDARD
        .decode(text)
        .map_err(|e| format!("data_base64 is not Base64: {e}"))
}

/// Returns an attribute's text. Integers are converted, since other programs write sequences as numbers.
fn text<'a>(name: &str, value: &'a RawValue) -> Value<'a> {
    let value = value.get();
    let kind = match value.as_bytes().first() {
        Some(b'"') => {
            return match serde_json::from_str(value) {
                Ok(text) => Value::Text(Cow::Owned(text)),
                Err(e) => Value::Invalid(format!("{name} is not valid text: {e}")),
            };
        }
        Some(b'n') => return Value::Absent,
        Some(b'-' | b'0'..=b'9') => {
            if value.bytes().all(|b| b == b'-' || b.is_ascii_digit()) {
                return Value::Text(Cow::Borrowed(value));
            }
            "a number with a fraction or an exponent"
        }
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        _ => "a boolean",
    };
    Value::Invalid(format!(
        "{name} is {kind} ({}), not {}",
        shown(value),
        headers::form(name)
    ))
}

fn members(body: &[u8]) -> Result<Vec<(&'static str, &RawValue)>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let members = reader.deserialize_map(Members)?;
    reader.end()?;
    Ok(members)
}

/// Collects the members of [`MEMBERS`] in their order, including repeated ones.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an event's attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(MEMBERS.len());
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match MEMBERS.into_iter().find(|member| *member == name) {
                Some(member) => members.push((member, map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// Parses one JSON object as an event. Its data is passed on unchanged; its contract checks it.
///
/// # Errors
/// [`JsonError::Defect`] describes the defect. Unknown members are ignored, as CloudEvents specifies for extensions.
pub fn read(line: &str) -> Result<Event, JsonError> {
    let raw = add(RawHeaders::default(), line.as_bytes());
    match headers::read(raw, Bytes::new()) {
        Decoded::Valid(event) if event.data.is_empty() => {
            Err(JsonError::Defect("data is missing".to_owned()))
        }
        Decoded::Valid(event) => Ok(event),
        Decoded::Invalid(_, defect) | Decoded::Undecodable { defect, .. } => {
            Err(JsonError::Defect(defect))
        }
    }
}

#[derive(Serialize)]
struct CloudEventJson<'a> {
    specversion: &'static str,
    id: &'a EventId,
    source: &'a Source,
    #[serde(rename = "type")]
    kind: &'a EventType,
    subject: &'a Subject,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: &'a RawValue,
}

/// Serializes an event as one JSON object without line breaks.
///
/// # Errors
/// [`JsonError::Data`] if the event's data is not JSON.
pub fn write(event: &Event) -> Result<String, JsonError> {
    let data: &RawValue = serde_json::from_slice(&event.data)?;
    Ok(serde_json::to_string(&CloudEventJson {
        specversion: SPEC_VERSION,
        id: &event.id,
        source: &event.source,
        kind: &event.event_type,
        subject: &event.subject,
        time: event.time,
        sequence: event.sequence.map(|n| format!("{:020}", n.get())),
        epoch: event.epoch.map(|epoch| epoch.to_string()),
        traceparent: event.traceparent.as_deref(),
        data,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_DATA_BYTES, Sequence};

    const LINE: &str = r#"{"specversion":"1.0","id":"a","source":"shop","type":"order.placed.v1","subject":"order/1","sequence":3,"epoch":"2-00000000000000ab","data":{"total":"1.10"},"color":"red"}"#;

    #[test]
    fn a_line_round_trips() {
        let event = read(LINE).unwrap();
        assert_eq!(event.sequence, Sequence::new(3));
        assert_eq!(event.epoch, crate::Epoch::new(2, 0xab));
        assert_eq!(&event.data[..], br#"{"total":"1.10"}"#);
        assert_eq!(read(&write(&event).unwrap()).unwrap(), event);
    }

    #[test]
    fn errors_name_the_defect() {
        for (from, to, says) in [
            ("\"1.0\"", "\"0.3\"", "specversion"),
            ("order.placed.v1", "stock.adjusted.v1", "does not belong"),
            ("\"sequence\":3", "\"sequence\":0", "whole number"),
            ("\"sequence\":3", "\"sequence\":\"x\"", "whole number"),
            ("\"2-", "\"0-", "COUNTER-RANDOM"),
            ("\"data\"", "\"date\"", "data is missing"),
            (
                "\"sequence\":3",
                "\"sequence\":1.0",
                "sequence is a number with a fraction",
            ),
            (
                "\"sequence\":3",
                "\"sequence\":true",
                "sequence is a boolean",
            ),
            (
                "\"sequence\":3",
                "\"sequence\":3,\"sequence\":4",
                "sequence is both",
            ),
            ("\"id\":\"a\"", "\"id\":\"a\",\"id\":\"b\"", "id is both"),
            ("\"id\":\"a\"", "\"id\":{}", "id is an object"),
            ("\"id\":\"a\"", "\"id\":null", "id is missing"),
            ("\"data\"", "\"data\":1,\"data\"", "two values of data"),
            (
                "\"data\"",
                "\"data_base64\":\"e30=\",\"data\"",
                "both data and data_base64",
            ),
            (
                "\"data\":{\"total\":\"1.10\"}",
                "\"data_base64\":\"e30\"",
                "not Base64",
            ),
            (
                "\"data\":{\"total\":\"1.10\"}",
                "\"data_base64\":3",
                "not text",
            ),
            (
                "\"color\"",
                "\"datacontenttype\":\"text/xml\",\"color\"",
                "text/xml",
            ),
            (
                "\"color\"",
                "\"datacontenttype\":true,\"color\"",
                "datacontenttype is a boolean",
            ),
            ("\"color\"", "\"time\":\"noon\",\"color\"", "RFC 3339"),
        ] {
            let error = read(&LINE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(read("{").is_err());
    }

    #[test]
    fn base64_data_is_decoded() {
        let line = LINE.replace(
            r#""data":{"total":"1.10"}"#,
            r#""data_base64":"eyJ0b3RhbCI6IjEuMTAifQ==","data_base64":"eyJ0b3RhbCI6IjEuMTAifQ==""#,
        );
        assert_eq!(read(&line).unwrap(), read(LINE).unwrap());
    }

    #[test]
    fn the_size_limit_applies_to_the_data() {
        let of = |bytes: usize| {
            LINE.replace(
                "{\"total\":\"1.10\"}",
                &format!("\"{}\"", "x".repeat(bytes - 2)),
            )
        };
        assert!(read(&of(MAX_DATA_BYTES)).is_ok());
        let error = read(&of(MAX_DATA_BYTES + 1)).unwrap_err().to_string();
        assert!(error.contains("1048577"), "{error}");
    }

    #[test]
    fn headers_must_agree_with_the_body() {
        let with = |id: &'static str| {
            let mut raw = RawHeaders::default();
            raw.put("id", Value::Text(id.into()));
            headers::read(add(raw, LINE.as_bytes()), Bytes::new())
        };
        assert_eq!(with("a"), Decoded::Valid(read(LINE).unwrap()));
        let Decoded::Undecodable { defect, .. } = with("b") else {
            panic!("contradictory ids were accepted")
        };
        assert_eq!(defect, r#"id is both "b" and "a""#);
    }

    #[test]
    fn ignored_members_may_be_nested_deeply() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        let ignored = LINE.replace("\"red\"", &deep);
        assert_eq!(read(&ignored).unwrap(), read(LINE).unwrap());
    }
}
