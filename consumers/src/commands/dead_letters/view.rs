//! A dead letter as programs see it.

use doorstep_event::{Event, Sequence, Timestamp};
use doorstep_store::{DeadLetter, DeadLetterStatus, TaskId};
use serde::Serialize;
use serde_json::value::RawValue;

/// A dead letter without its data.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLetterView<'a> {
    role: &'a str,
    id: &'a str,
    status: DeadLetterStatus,
    /// Set if it blocks a stream.
    blocks: bool,
    reason: &'a str,
    detail: &'a str,
    attempts: u32,
    since: Timestamp,
    fingerprint: &'a str,
    /// The id of the task that has failed; absent for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    /// `null` for a message that could not be decoded as an event.
    event: Option<EventView<'a>>,
}

/// The attributes of its event.
#[derive(Debug, Serialize)]
struct EventView<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    sequence: Option<u64>,
    epoch: Option<String>,
    time: Option<Timestamp>,
    traceparent: Option<&'a str>,
}

/// A dead letter with its data.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLetterDetail<'a> {
    #[serde(flatten)]
    letter: DeadLetterView<'a>,
    #[serde(flatten)]
    body: Body<'a>,
}

/// The data, in the clearest form without loss.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body<'a> {
    Data(&'a RawValue),
    /// Text that is not JSON.
    DataText(&'a str),
    /// Binary data, in hexadecimal digits.
    DataHex(String),
}

/// The original data, if it was edited.
#[derive(Debug, Serialize)]
pub(super) struct Original<'a> {
    original: Body<'a>,
}

impl<'a> Original<'a> {
    pub(super) fn if_edited(row: &'a DeadLetter) -> Option<Self> {
        row.is_edited().then(|| Self {
            original: Body::from_bytes(&row.body),
        })
    }
}

impl<'a> DeadLetterView<'a> {
    pub(super) fn new(role: &'a str, row: &'a DeadLetter) -> Self {
        Self {
            role,
            id: &row.id.0,
            status: row.status,
            blocks: row.blocks,
            reason: &row.reason,
            detail: &row.detail,
            attempts: row.attempts,
            since: row.since,
            fingerprint: &row.fingerprint,
            task: row.task.as_ref().map(TaskId::as_str),
            event: row.event.as_ref().map(EventView::new),
        }
    }
}

impl<'a> EventView<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            id: event.id.as_str(),
            source: event.source.as_str(),
            kind: event.event_type.as_str(),
            subject: event.subject.as_str(),
            sequence: event.sequence.map(Sequence::get),
            epoch: event.epoch.map(|epoch| epoch.to_string()),
            time: event.time,
            traceparent: event.traceparent.as_deref(),
        }
    }
}

impl<'a> DeadLetterDetail<'a> {
    pub(super) fn new(role: &'a str, row: &'a DeadLetter) -> Self {
        Self {
            letter: DeadLetterView::new(role, row),
            body: Body::from_bytes(body(row)),
        }
    }
}

impl<'a> Body<'a> {
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Self {
        match (serde_json::from_slice(bytes), std::str::from_utf8(bytes)) {
            (Ok(json), _) => Self::Data(json),
            (_, Ok(text)) => Self::DataText(text),
            _ => Self::DataHex(hex::encode(bytes)),
        }
    }
}

/// Returns the message's body, event or not.
pub(super) fn body(row: &DeadLetter) -> &[u8] {
    match &row.event {
        Some(event) => &event.data,
        None => &row.body,
    }
}

#[cfg(test)]
mod tests {
    use doorstep_store::DeadLetterId;

    use super::*;

    fn dead(body: &[u8]) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId("3f2a-1".into()),
            event: None,
            body: body.to_vec().into(),
            blocks: false,
            reason: "unreadable".into(),
            detail: "header cloudEvents:id is missing".into(),
            fingerprint: "77".into(),
            attempts: 1,
            since: "2026-11-23T09:00:00Z".parse().unwrap(),
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        }
    }

    fn json(body: &[u8]) -> serde_json::Value {
        serde_json::to_value(DeadLetterDetail::new("orders", &dead(body))).unwrap()
    }

    #[test]
    fn body_is_shown_in_clearest_lossless_form() {
        assert_eq!(json(b"{\"a\": 1}")["data"]["a"], 1);
        assert_eq!(json(b"{\"a\": ")["data_text"], "{\"a\": ");
        assert_eq!(json(b"\xff\x00")["data_hex"], "ff00");
        assert_eq!(json(b"1")["reason"], "unreadable");
        assert_eq!(json(b"1")["event"], serde_json::Value::Null);
        assert_eq!(json(b"1").get("task"), None);
        let task = DeadLetter {
            task: Some(TaskId::new("mail/1").unwrap()),
            ..dead(b"1")
        };
        let shown = serde_json::to_value(DeadLetterDetail::new("orders", &task)).unwrap();
        assert_eq!(shown["task"], "mail/1");
    }
}
