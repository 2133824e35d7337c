//! CloudEvents in structured mode: one JSON object an event, as `producer publish` reads them from a file or a pipe.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    AttributeError, Event, EventId, EventType, MAX_DATA_BYTES, Sequence, Source, Subject,
    headers::SPEC_VERSION,
};

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not an object with an event's attributes.
    #[error("not a CloudEvents object: {0}")]
    Form(#[from] serde_json::Error),
    /// An attribute is wrong.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// The event is of another CloudEvents version.
    #[error("specversion {0:?} is not {SPEC_VERSION}")]
    SpecVersion(String),
    /// The data exceeds the bound of 1 MiB.
    #[error("data has {0} bytes, at most 1 MiB (1048576) may travel in an event")]
    TooLarge(usize),
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    specversion: String,
    id: EventId,
    source: Source,
    #[serde(rename = "type")]
    kind: EventType,
    subject: Subject,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The sequence extension is text, but people write numbers: both are read.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

/// Reads one JSON object as an event. Its data is handed on as it was written; checking it is its contract's business.
///
/// # Errors
/// Says what is wrong with the line; unknown members are ignored, as CloudEvents asks for extensions.
pub fn read(line: &str) -> Result<Event, JsonError> {
    let line: Line<'_> = serde_json::from_str(line)?;
    if line.specversion != SPEC_VERSION {
        return Err(JsonError::SpecVersion(line.specversion));
    }
    line.kind.check_subject(&line.subject)?;
    let sequence = match line.sequence {
        None => None,
        Some(Number::Text(text)) => Some(text.parse()?),
        Some(Number::Number(number)) => Some(
            Sequence::new(number)
                .ok_or_else(|| AttributeError::SequenceForm(number.to_string()))?,
        ),
    };
    let data = line.data.get();
    if data.len() > MAX_DATA_BYTES {
        return Err(JsonError::TooLarge(data.len()));
    }
    Ok(Event {
        id: line.id,
        source: line.source,
        kind: line.kind,
        subject: line.subject,
        time: line.time,
        sequence,
        epoch: line.epoch.map(|text| text.parse()).transpose()?,
        traceparent: line.traceparent,
        data: Bytes::copy_from_slice(data.as_bytes()),
    })
}

/// Writes an event as one JSON object, without a line break in it.
///
/// # Errors
/// The event's data is not JSON.
pub fn write(event: &Event) -> Result<String, JsonError> {
    let data: &RawValue = serde_json::from_slice(&event.data)?;
    Ok(serde_json::to_string(&Line {
        specversion: SPEC_VERSION.to_owned(),
        id: event.id.clone(),
        source: event.source.clone(),
        kind: event.kind.clone(),
        subject: event.subject.clone(),
        time: event.time,
        sequence: event
            .sequence
            .map(|n| Number::Text(format!("{:020}", n.get()))),
        epoch: event.epoch.map(|epoch| epoch.to_string()),
        traceparent: event.traceparent.clone(),
        datacontenttype: None,
        data,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"specversion":"1.0","id":"a","source":"shop","type":"order.placed.v1","subject":"order/1","sequence":3,"epoch":"2-00000000000000ab","data":{"total":"1.10"},"color":"red"}"#;

    #[test]
    fn a_line_is_read_and_written_back() {
        let event = read(LINE).unwrap();
        assert_eq!(event.sequence, Sequence::new(3));
        assert_eq!(event.epoch, crate::Epoch::new(2, 0xab));
        assert_eq!(&event.data[..], br#"{"total":"1.10"}"#);
        assert_eq!(read(&write(&event).unwrap()).unwrap(), event);
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (from, to, says) in [
            ("\"1.0\"", "\"0.3\"", "specversion"),
            ("order.placed.v1", "stock.adjusted.v1", "does not belong"),
            ("\"sequence\":3", "\"sequence\":0", "whole number"),
            ("\"sequence\":3", "\"sequence\":\"x\"", "whole number"),
            ("\"2-", "\"0-", "COUNTER-RANDOM"),
            ("\"data\"", "\"date\"", "missing field `data`"),
        ] {
            let error = read(&LINE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(read("{").is_err());
    }
}
