//! The wire format of requests and replies.
//!
//! A request's attributes are AMQP properties if there is an equivalent: message id, type, and the caller as app id. The rest is in one
//! header, `query asked 2026-11-23T10:00:00Z until 2026-11-23T10:00:05Z`. For direct reply-to, the broker decodes and encodes the
//! properties of each request again, and each header makes that measurably slower. The body is the data in JSON. A reply's type is its
//! kind: `reply`, with the data in JSON as the body; `refused`, with code and detail; `overloaded`, with the milliseconds after which to
//! retry, and whether a lost server may have begun the request before.

use std::time::Duration;

use bytes::Bytes;
use doorstep_event::{
    AttributeError, EventType, Idempotency, MAX_DATA_BYTES, Rejection, Request, RequestId,
    RequestKind, Source, Timestamp,
    headers::{CONTENT_TYPE, HEADER_TRACEPARENT},
};
use lapin::{
    BasicProperties,
    message::Delivery as Received,
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Serialize};

use super::error::CallError;
use crate::{
    amqp::{long_string, short_string},
    topology::RPC_MAX_WAIT,
};

/// The pseudo-queue of direct reply-to: a channel that consumes from it gets the replies to its own requests.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

const HEADER_REQUEST: &str = "doorstep-request";

const COMMAND: &str = "command";
const QUERY: &str = "query";

const KIND_REPLY: &str = "reply";
const KIND_REFUSED: &str = "refused";
const KIND_OVERLOADED: &str = "overloaded";

/// AMQP's delivery mode for messages that do not survive a restart.
const TRANSIENT: u8 = 1;

/// Returns a request's properties. The expiration is at least a millisecond, since the broker would drop the request at once otherwise. It
/// is at most the queue's own limit: a value too large for the broker would close the channel for all callers.
pub(super) fn request(request: &Request, correlation: &str, left: Duration) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut put = |name: &str, value: String| {
        headers.insert(name.into(), long_string(value));
    };
    let act = match request.act {
        RequestKind::Command => COMMAND,
        RequestKind::Query => QUERY,
    };
    let (time, deadline) = (request.time, request.deadline);
    put(
        HEADER_REQUEST,
        format!("{act} asked {time} until {deadline}"),
    );
    if let Some(traceparent) = &request.traceparent {
        put(HEADER_TRACEPARENT, traceparent.clone());
    }
    let milliseconds = left.min(RPC_MAX_WAIT).as_millis().max(1);
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(TRANSIENT)
        .with_message_id(short_string(request.id.as_str()))
        .with_app_id(short_string(request.caller.as_str()))
        .with_type(short_string(request.kind.as_str()))
        .with_correlation_id(correlation.into())
        .with_reply_to(REPLY_TO.into())
        .with_expiration(milliseconds.to_string().into())
        .with_headers(headers)
}

pub(super) fn read_request(received: &mut Received) -> Result<Request, Rejection> {
    let data = Bytes::from(std::mem::take(&mut received.data));
    if data.len() > MAX_DATA_BYTES {
        return Err(doorstep_event::ContractError::TooLarge(data.len()).into());
    }
    let properties = &received.properties;
    let id = text_of(properties.message_id(), "message id")?;
    let kind = text_of(properties.kind(), "type")?;
    let caller = text_of(properties.app_id(), "app id")?;
    let (act, time, deadline) = parse_timing(header(properties, HEADER_REQUEST)?)?;
    Ok(Request {
        id: id.parse::<RequestId>()?,
        caller: caller.parse::<Source>()?,
        kind: kind.parse::<EventType>()?,
        act,
        time,
        deadline,
        idempotency: Idempotency::Retryable,
        traceparent: header(properties, HEADER_TRACEPARENT)
            .ok()
            .map(str::to_owned),
        data,
    })
}

fn bad_request(detail: String) -> Rejection {
    Rejection::new(Rejection::BAD_REQUEST, detail)
}

fn text_of<'a>(
    property: &'a Option<lapin::types::ShortString>,
    name: &'static str,
) -> Result<&'a str, Rejection> {
    match property {
        Some(text) => Ok(text.as_str()),
        None => Err(AttributeError::Empty(name).into()),
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Result<&'a str, Rejection> {
    let value = properties
        .headers()
        .as_ref()
        .and_then(|table| table.inner().get(name));
    match value {
        Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes())
            .map_err(|_| bad_request(format!("header {name} is not UTF-8"))),
        Some(AMQPValue::ShortString(text)) => Ok(text.as_str()),
        Some(_) => Err(bad_request(format!("header {name} is not text"))),
        None => Err(bad_request(format!("header {name} is missing"))),
    }
}

/// Parses the kind, the time of the call and the deadline.
fn parse_timing(text: &str) -> Result<(RequestKind, Timestamp, Timestamp), Rejection> {
    let invalid = || {
        bad_request(format!(
            "{HEADER_REQUEST} {text:?} does not have the form `{QUERY} asked TIME until TIME` with RFC 3339 times"
        ))
    };
    let words: Vec<&str> = text.split(' ').collect();
    let &[act, "asked", time, "until", deadline] = words.as_slice() else {
        return Err(invalid());
    };
    let act = match act {
        COMMAND => RequestKind::Command,
        QUERY => RequestKind::Query,
        _ => return Err(invalid()),
    };
    let parse = |time: &str| time.parse().map_err(|_| invalid());
    Ok((act, parse(time)?, parse(deadline)?))
}

/// A server's reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The role's result: data, or a rejection.
    Result(doorstep_event::RequestResult),
    /// The server is overloaded and has not begun the request. If it is a command that a lost server had received before, the caller gets
    /// [`CallError::Unreachable`] instead, because that server may have executed it.
    Overloaded {
        /// Time after which a retry makes sense.
        retry_after: Duration,
    },
}

/// The history of a request that a server receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PriorAttempt {
    /// No earlier attempt has changed anything.
    None,
    /// A lost server may have begun the request, and its changes may be stored.
    MaybeStarted,
}

impl PriorAttempt {
    pub(super) fn new(act: RequestKind, redelivered: bool) -> Self {
        match (act, redelivered) {
            (RequestKind::Command, true) => Self::MaybeStarted,
            (RequestKind::Command, false) | (RequestKind::Query, _) => Self::None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Overload {
    retry_after_ms: u64,
    #[serde(default)]
    perhaps_begun: bool,
}

/// Returns a reply's properties and body.
pub(super) fn reply(
    reply: Reply,
    before: PriorAttempt,
    correlation: &str,
) -> (BasicProperties, Bytes) {
    let (kind, body) = match reply {
        Reply::Result(Ok(data)) => (KIND_REPLY, data),
        Reply::Result(Err(rejection)) => (KIND_REFUSED, json(&rejection)),
        Reply::Overloaded { retry_after } => {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            let overload = Overload {
                retry_after_ms,
                perhaps_begun: before == PriorAttempt::MaybeStarted,
            };
            (KIND_OVERLOADED, json(&overload))
        }
    };
    let properties = BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(TRANSIENT)
        .with_type(kind.into())
        .with_correlation_id(short_string(correlation));
    (properties, body)
}

fn json(value: &impl Serialize) -> Bytes {
    // Texts and numbers always serialize.
    serde_json::to_vec(value).unwrap_or_default().into()
}

pub(super) fn read_reply(properties: &BasicProperties, body: Vec<u8>) -> Result<Bytes, CallError> {
    let kind = properties.kind().as_ref().map_or("", |kind| kind.as_str());
    match kind {
        KIND_REPLY => Ok(body.into()),
        KIND_REFUSED => Err(match serde_json::from_slice::<Rejection>(&body) {
            Ok(rejection) => rejection.into(),
            Err(e) => CallError::Malformed(format!("invalid rejection: {e}")),
        }),
        KIND_OVERLOADED => Err(match serde_json::from_slice::<Overload>(&body) {
            Ok(overload) if overload.perhaps_begun => CallError::unreachable(
                "a lost server may have begun it, and another one is overloaded",
            ),
            Ok(overload) => CallError::Overloaded {
                retry_after: Duration::from_millis(overload.retry_after_ms),
            },
            Err(e) => CallError::Malformed(format!("invalid overload reply: {e}")),
        }),
        other => Err(CallError::Malformed(format!(
            "{other:?} is not a reply type"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_round_trips() {
        let rejection = Rejection::new("card_declined", "the card was declined");
        let retry_after = Duration::from_millis(250);
        for (sent, read) in [
            (
                Reply::Result(Ok(Bytes::from_static(b"{}"))),
                Ok(Bytes::from_static(b"{}")),
            ),
            (
                Reply::Result(Err(rejection.clone())),
                Err(CallError::Rejected(rejection)),
            ),
            (
                Reply::Overloaded { retry_after },
                Err(CallError::Overloaded { retry_after }),
            ),
        ] {
            let (properties, body) = reply(sent, PriorAttempt::None, "1-2");
            assert_eq!(
                properties.correlation_id().as_ref().unwrap().as_str(),
                "1-2"
            );
            assert_eq!(read_reply(&properties, body.to_vec()), read);
        }
    }

    #[test]
    fn overload_after_a_redelivered_command_is_ambiguous() {
        let read = |act, redelivered| {
            let retry_after = Duration::from_secs(1);
            let before = PriorAttempt::new(act, redelivered);
            let (properties, body) = reply(Reply::Overloaded { retry_after }, before, "1-2");
            read_reply(&properties, body.to_vec()).unwrap_err()
        };
        let not_begun = |error| matches!(error, CallError::Overloaded { .. });
        assert!(not_begun(read(RequestKind::Command, false)));
        assert!(not_begun(read(RequestKind::Query, true)));
        let ambiguous = read(RequestKind::Command, true);
        assert!(
            matches!(&ambiguous, CallError::Unreachable { reason } if reason.contains("may have begun")),
            "{ambiguous:?}"
        );
    }

    #[test]
    fn other_messages_are_malformed_replies() {
        for kind in ["", "answer", KIND_REFUSED, KIND_OVERLOADED] {
            let properties = BasicProperties::default().with_type(kind.into());
            let read = read_reply(&properties, b"no".to_vec());
            assert!(matches!(read, Err(CallError::Malformed(_))), "{kind}");
        }
    }

    #[test]
    fn a_request_round_trips_and_errors_name_headers() {
        let sent = Request {
            id: RequestId::new("r-1").unwrap(),
            caller: Source::new("shop/1").unwrap(),
            kind: EventType::new("payments.authorize.v1").unwrap(),
            act: RequestKind::Command,
            time: "2026-11-23T10:00:00Z".parse().unwrap(),
            deadline: "2026-11-23T10:00:05.25Z".parse().unwrap(),
            idempotency: Idempotency::Retryable,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            data: Bytes::from_static(b"{}"),
        };
        let expires = |left: Duration| {
            let properties = request(&sent, "1-2", left);
            properties.expiration().as_ref().unwrap().to_string()
        };
        // Neither zero, nor more than 2^32 ms, which the broker rejects.
        assert_eq!(expires(Duration::from_nanos(1)), "1");
        assert_eq!(expires(Duration::MAX), "600000");
        let properties = request(&sent, "1-2", Duration::from_secs(5));
        assert_eq!(properties.expiration().as_ref().unwrap().as_str(), "5000");
        let received = |properties: BasicProperties| {
            let mut delivery = Received::mock(1, "".into(), "q".into(), false, b"{}".to_vec());
            delivery.properties = properties;
            delivery
        };
        assert_eq!(read_request(&mut received(properties.clone())), Ok(sent));
        let rejected = read_request(&mut received(
            properties.with_headers(FieldTable::default()),
        ));
        assert!(rejected.unwrap_err().detail.contains(HEADER_REQUEST));
        for invalid in [
            "",
            "query",
            "ask asked 2026-11-23T10:00:00Z until 2026-11-23T10:00:00Z",
            "query asked now until then",
        ] {
            assert_eq!(
                parse_timing(invalid).unwrap_err().code,
                Rejection::BAD_REQUEST
            );
        }
    }
}
