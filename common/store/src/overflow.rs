//! The JSON form of a dead letter in the overflow file: one rule for every store.

use base64::{Engine, prelude::BASE64_STANDARD};
use doorstep_event::Timestamp;
use serde::Serialize;

use crate::DeadLetter;

/// A line of the overflow file. `number` comes first, where [`number_of`] finds it.
#[derive(Debug, Serialize)]
struct Record<'a> {
    number: u64,
    id: &'a str,
    at: Timestamp,
    fingerprint: &'a str,
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Attributes<'a>>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Debug, Serialize)]
struct Attributes<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: Option<Timestamp>,
    traceparent: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Body<'a> {
    Body(&'a str),
    BodyBase64(String),
}

/// Returns a dead letter as a line of JSON. Numbers increase within a store; a repeated one belongs to a commit that
/// was retried.
pub(crate) fn line(number: u64, row: &DeadLetter) -> Result<Vec<u8>, String> {
    let record = Record {
        number,
        id: &row.id.0,
        at: row.since,
        fingerprint: &row.fingerprint,
        reason: &row.reason,
        detail: &row.detail,
        event: row.event.as_ref().map(|event| Attributes {
            id: event.id.as_str(),
            source: event.source.as_str(),
            kind: event.event_type.as_str(),
            subject: event.subject.as_str(),
            time: event.time,
            traceparent: event.traceparent.as_deref(),
        }),
        body: match std::str::from_utf8(&row.body) {
            Ok(text) => Body::Body(text),
            Err(_) => Body::BodyBase64(BASE64_STANDARD.encode(&row.body)),
        },
    };
    let mut line = serde_json::to_vec(&record)
        .map_err(|e| format!("a dead letter cannot be written as JSON: {e}"))?;
    line.push(b'\n');
    Ok(line)
}

/// Returns the number at the beginning of a line.
pub(crate) fn number_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(br#"{"number":"#)?;
    let end = digits.iter().position(|b| !b.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
