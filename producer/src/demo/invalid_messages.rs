//! The invalid messages of the demo: each breaks another rule, and each should become a dead letter with its reason.

use bytes::Bytes;
use doorstep_event::{MAX_DATA_BYTES, Source, Timestamp, headers};
use doorstep_messaging::{RawMessage, RawValue};
use serde::Serialize;

/// An invalid message and its expected outcome.
#[derive(Debug, Clone, Serialize)]
pub(super) struct InvalidMessage {
    /// The defect, for people to read.
    pub(super) what: &'static str,
    /// The role that consumes it.
    pub(super) role: &'static str,
    /// The expected reason of the dead letter.
    pub(super) reason: &'static str,
    /// True if it blocks its stream.
    pub(super) blocks: bool,
    #[serde(skip)]
    pub(super) message: RawMessage,
}

/// Returns all invalid messages, and a valid event that has to wait behind one of them.
pub(super) fn messages(source: &Source, exchange: &str, now: Timestamp) -> Vec<InvalidMessage> {
    let make = |kind: &str, subject: &str, sequence: u64, body: Bytes| {
        raw(source, exchange, kind, subject, sequence, now, body)
    };
    let picked_up = Bytes::from(format!(r#"{{"picked_up_at":"{now}"}}"#));
    let order = |total: &str| {
        Bytes::from(format!(
            r#"{{"placed_at":"{now}","country":"United Kingdom","lines":[{{"sku":"A","quantity":1,"unit_price":"2.00","amount":"2.00"}}],"total":"{total}"}}"#
        ))
    };
    let sale = |delta: i64| {
        Bytes::from(format!(
            r#"{{"delta":{delta},"reason":"sale","reference":"order/X1"}}"#
        ))
    };
    let mut bare = make("order.placed.v1", "order/X1", 1, order("2.00"));
    bare.headers.clear();
    bare.message_id = None;
    let bad = |what, role, reason, blocks, message| InvalidMessage {
        what,
        role,
        reason,
        blocks,
        message,
    };
    vec![
        bad(
            "not JSON",
            "orders",
            "breaks its contract",
            true,
            make("order.placed.v1", "order/X2", 1, "{\"placed_at\":".into()),
        ),
        bad("no attributes at all", "orders", "unreadable", false, bare),
        bad(
            "a type that no contract knows",
            "orders",
            "unknown type",
            true,
            make("order.teleported.v1", "order/X3", 1, "{}".into()),
        ),
        bad(
            "a version that no contract knows",
            "inventory",
            "unknown type",
            true,
            make("stock.adjusted.v9", "stock/X", 1, sale(-1)),
        ),
        bad(
            "a total that is not the sum",
            "orders",
            "breaks its contract",
            true,
            make("order.placed.v1", "order/X4", 1, order("3.00")),
        ),
        bad(
            "above 1 MiB",
            "orders",
            "unreadable",
            true,
            make(
                "order.placed.v1",
                "order/X5",
                1,
                vec![b' '; MAX_DATA_BYTES + 1].into(),
            ),
        ),
        bad(
            "picked up without being assigned",
            "tracking",
            "breaks a rule",
            true,
            make("delivery.picked_up.v1", "delivery/X6", 1, picked_up),
        ),
    ]
}

/// Returns a valid event behind an invalid one: it is deferred until an operator replays or skips that.
pub(super) fn held_behind(source: &Source, exchange: &str, now: Timestamp) -> RawMessage {
    let body = Bytes::from(format!(r#"{{"delivered_at":"{now}"}}"#));
    let kind = "delivery.delivered.v1";
    raw(source, exchange, kind, "delivery/X6", 2, now, body)
}

/// Returns a message with the attributes of an event. Each run has subjects of its own.
fn raw(
    source: &Source,
    exchange: &str,
    kind: &str,
    subject: &str,
    sequence: u64,
    now: Timestamp,
    body: Bytes,
) -> RawMessage {
    let subject = format!("{subject}-{:X}", now.as_second());
    let id = format!("{subject}#{sequence}");
    let texts = [
        (
            headers::HEADER_SPEC_VERSION,
            headers::SPEC_VERSION.to_owned(),
        ),
        (headers::HEADER_ID, id.clone()),
        (headers::HEADER_SOURCE, source.to_string()),
        (headers::HEADER_TYPE, kind.to_owned()),
        (headers::HEADER_SUBJECT, subject),
        (headers::HEADER_SEQUENCE, format!("{sequence:020}")),
        (headers::HEADER_TIME, now.to_string()),
    ];
    RawMessage {
        exchange: exchange.to_owned(),
        routing_key: kind.to_owned(),
        headers: texts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), RawValue::Text(value)))
            .collect(),
        message_id: Some(id),
        kind: Some(kind.to_owned()),
        content_type: Some(headers::CONTENT_TYPE.to_owned()),
        body,
    }
}
