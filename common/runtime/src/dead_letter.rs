//! The forms of a dead letter: the row in the store, and the copy for the management UI.

use std::collections::BTreeMap;

use bytes::Bytes;
use doorstep_event::{Event, EventId, Source, Timestamp};
use doorstep_store::{
    DeadLetter, DeadLetterId, DeadLetterStatus, NewDeadLetter, NewOutbox, OutboxKind, TaskRow,
};
use sha2::{Digest, Sha256};

/// The cause of a dead letter: a reason shared by all of its kind, and a detail with the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl Cause {
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// The reasons that the runtime itself gives.
pub(crate) mod reason {
    pub(crate) const UNREADABLE: &str = "unreadable";
    pub(crate) const UNKNOWN_TYPE: &str = "unknown type";
    pub(crate) const CONTRACT: &str = "breaks its contract";
    pub(crate) const REJECTED: &str = "breaks a rule";
    pub(crate) const PANIC: &str = "handler panicked";
    pub(crate) const WAIT_EXPIRED: &str = "awaited in vain";
    pub(crate) const CONFLICT: &str = "numbering conflict";
    pub(crate) const FOREIGN_SOURCE: &str = "foreign source";
    pub(crate) const BYPASS: &str = "not from the exchange";
    pub(crate) const POISON: &str = "poison";
    pub(crate) const TOO_OLD: &str = "too old to tell";
    pub(crate) const TASK_FAILED: &str = "task failed";
    pub(crate) const TASK_PANICKED: &str = "task panicked";
    pub(crate) const TASK_GAVE_UP: &str = "task gave up";
    pub(crate) const RESULT_REJECTED: &str = "result rejected";
}

/// Returns the first 64 bits of a SHA-256 over the parts, as 16 hexadecimal digits: short enough to type, long enough
/// to be unique.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..8])
}

/// Returns the SHA-256 of a body in hexadecimal digits.
pub(crate) fn body_digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Returns a text without its numbers and quoted values. Messages with the same cause have the same shape.
#[must_use]
pub fn shape(detail: &str) -> String {
    let mut shape = String::with_capacity(detail.len());
    let mut quoted = false;
    for c in detail.chars() {
        match c {
            '"' | '\'' | '`' => {
                quoted = !quoted;
                shape.push('"');
            }
            _ if quoted => {}
            c if c.is_ascii_digit() => {
                if !shape.ends_with('0') {
                    shape.push('0');
                }
            }
            c => shape.push(c),
        }
    }
    shape
}

/// Builds the dead letter of an event. `attempts` counts the rejections of this event: each rejection is a new dead
/// letter.
pub(crate) fn of_event(
    role: &str,
    event: &Event,
    defect: Option<String>,
    cause: Cause,
    attempts: u32,
    blocks: Blocking,
    now: Timestamp,
) -> NewDeadLetter {
    // A conflicting event may share everything else with one that was rejected for its own content.
    let name = match cause.reason {
        reason::CONFLICT => name(event, true),
        // Any program can send these, so each one with other content is a dead letter of its own.
        reason::FOREIGN_SOURCE | reason::BYPASS => digest([
            name(event, true).as_bytes(),
            cause.detail.as_bytes(),
            event.event_type.as_str().as_bytes(),
            event.data.as_ref(),
        ]),
        _ => name(event, false),
    };
    NewDeadLetter {
        row: DeadLetter {
            id: DeadLetterId(format!("{name}-{attempts}")),
            event: Some(event.clone()),
            body: event.data.clone(),
            blocks: blocks == Blocking::Stream,
            fingerprint: digest([
                role.as_bytes(),
                event.event_type.as_str().as_bytes(),
                cause.reason.as_bytes(),
                shape(&cause.detail).as_bytes(),
            ]),
            reason: cause.reason.to_owned(),
            detail: cause.detail,
            attempts,
            since: now,
            status: DeadLetterStatus::Open,
            defect,
            task: None,
        },
    }
}

/// Builds the dead letter of a task that has failed. It stands for the task, whose row is gone: its event has the task's
/// input as data. `source` is the role's own.
pub(crate) fn of_task(
    role: &str,
    source: &Source,
    task: &TaskRow,
    cause: Cause,
    now: Timestamp,
) -> NewDeadLetter {
    // An id may be used again while a dead letter of its former task is kept, so the number tells the tasks apart.
    let name = digest([task.id.as_str().as_bytes(), &task.number.to_be_bytes()]);
    let attempts = task.dead.saturating_add(1);
    #[expect(clippy::expect_used, reason = "ids of tasks are shorter")]
    let id = EventId::new(task.id.as_str()).expect("the id of a task is one of an event");
    NewDeadLetter {
        row: DeadLetter {
            id: DeadLetterId(format!("{name}-{attempts}")),
            event: Some(Event {
                id,
                source: source.clone(),
                event_type: task.kind.clone(),
                subject: task.subject.clone(),
                time: Some(task.since),
                sequence: None,
                epoch: None,
                traceparent: task.traceparent.clone(),
                data: task.input.clone(),
            }),
            body: task.input.clone(),
            blocks: false,
            fingerprint: digest([
                role.as_bytes(),
                task.kind.as_str().as_bytes(),
                cause.reason.as_bytes(),
                shape(&cause.detail).as_bytes(),
            ]),
            reason: cause.reason.to_owned(),
            detail: cause.detail,
            attempts,
            since: now,
            status: DeadLetterStatus::Open,
            defect: None,
            task: Some(task.id.clone()),
        },
    }
}

/// Returns whether this is a dead letter of that very event, rejected for its own content.
pub(crate) fn is_of(dead: &DeadLetterId, event: &Event) -> bool {
    let of = dead.0.rsplit_once('-').map(|(of, _)| of);
    of.is_some_and(|of| of == name(event, false))
}

fn name(event: &Event, conflicts: bool) -> String {
    let sequence = event.sequence.map_or(0, doorstep_event::Sequence::get);
    // A restored store gives out the same ids once more, under another epoch.
    let epoch = event.epoch.map(|epoch| epoch.to_string());
    digest(
        [
            event.source.as_str().as_bytes(),
            event.subject.as_str().as_bytes(),
            &sequence.to_be_bytes(),
            event.id.as_str().as_bytes(),
            if conflicts { b"conflict" } else { b"" },
        ]
        .into_iter()
        .chain(epoch.as_deref().map(str::as_bytes)),
    )
}

/// The effect of a dead letter on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// It blocks the stream, whose next event it is.
    Stream,
    /// It blocks nothing: it has no position in a stream, or another event has taken it.
    Nothing,
}

/// Builds the dead letter of a message that could not be decoded as an event.
pub(crate) fn of_body(
    role: &str,
    id: &EventId,
    body: Bytes,
    headers: &str,
    cause: Cause,
    now: Timestamp,
) -> NewDeadLetter {
    let name = digest([id.as_str().as_bytes()]);
    NewDeadLetter {
        row: DeadLetter {
            id: DeadLetterId(format!("{name}-1")),
            event: None,
            body,
            blocks: false,
            fingerprint: digest([
                role.as_bytes(),
                cause.reason.as_bytes(),
                shape(&cause.detail).as_bytes(),
            ]),
            reason: cause.reason.to_owned(),
            detail: if headers.is_empty() {
                cause.detail
            } else {
                format!("{}; its headers: {headers}", cause.detail)
            },
            attempts: 1,
            since: now,
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        },
    }
}

/// Builds the copy of a dead letter for the role's `.dlq` queue. Doorstep never reads it back.
pub(crate) fn copy(role: &str, dead: &DeadLetter) -> NewOutbox {
    let mut headers = BTreeMap::from([
        ("doorstep-role".to_owned(), role.to_owned()),
        ("doorstep-reason".to_owned(), dead.reason.clone()),
        // All headers together have to fit into one frame.
        (
            "doorstep-detail".to_owned(),
            dead.detail.chars().take(1_000).collect(),
        ),
        ("doorstep-attempts".to_owned(), dead.attempts.to_string()),
        ("doorstep-fingerprint".to_owned(), dead.fingerprint.clone()),
        ("doorstep-died-at".to_owned(), dead.since.to_string()),
    ]);
    if let Some(task) = &dead.task {
        headers.insert("doorstep-task".to_owned(), task.to_string());
    }
    if let Some(event) = &dead.event {
        headers.extend(
            doorstep_event::headers::write(event)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    NewOutbox {
        kind: OutboxKind::DeadCopy {
            id: dead.id.clone(),
            headers,
            body: dead.body.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_differing_in_values_share_a_shape() {
        assert_eq!(
            shape("stock 17 of \"A\" is below 3"),
            shape("stock 4 of \"BB\" is below 2210")
        );
        assert_ne!(shape("stock 17 is below 3"), shape("stock 17 is above 3"));
    }
}
