//! From a message's headers and properties to an event.
//!
//! CloudEvents in binary mode: attributes as headers with the prefix `cloudEvents:`; `cloudEvents_`, which other AMQP libraries
//! write, is read as well. Where the id or the type has no header, the AMQP property that means the same stands in.

use std::borrow::Cow;

use bytes::Bytes;
use doorstep_event::{
    Timestamp,
    headers::{HEADER_TRACEPARENT, Raw, Read, Reader},
};
use lapin::{
    BasicProperties,
    message::Delivery as Received,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};

use super::Delivery;

/// Decodes one message. Its body is moved, never copied.
pub(super) fn decode(reader: &mut Reader, received: Received) -> Delivery {
    let properties = &received.properties;
    let mut raw = Raw::default();
    let mut delivery_count = None;
    for (name, value) in properties.headers().iter().flatten() {
        let name = name.as_str();
        if let Some(attribute) = attribute(name) {
            let slot = match attribute {
                "specversion" => &mut raw.spec_version,
                "id" => &mut raw.id,
                "source" => &mut raw.source,
                "type" => &mut raw.kind,
                "subject" => &mut raw.subject,
                "time" => &mut raw.time,
                "sequence" => &mut raw.sequence,
                "epoch" => &mut raw.epoch,
                _ => continue,
            };
            *slot = text(value);
        } else if name == HEADER_TRACEPARENT {
            raw.traceparent = text(value);
        } else if name == "x-delivery-count" {
            delivery_count = number(value);
        }
    }
    if raw.id.is_none() {
        raw.id = properties.message_id().as_ref().map(borrowed);
    }
    if raw.kind.is_none() {
        raw.kind = properties.kind().as_ref().map(borrowed);
    }
    let read = reader.read(raw, Bytes::from(received.data));
    let headers_json = matches!(read, Read::Unreadable { .. }).then(|| {
        to_json(
            properties,
            received.exchange.as_str(),
            received.routing_key.as_str(),
        )
    });
    Delivery {
        tag: received.delivery_tag,
        redelivered: received.redelivered,
        delivery_count,
        read,
        headers_json,
    }
}

fn attribute(header: &str) -> Option<&str> {
    header.strip_prefix("cloudEvents")?.strip_prefix([':', '_'])
}

/// An attribute's text. Numbers and times, which some libraries write as such, are written out; what is not text has none.
fn text(value: &AMQPValue) -> Option<Cow<'_, str>> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(Cow::Borrowed),
        AMQPValue::ShortString(text) => Some(borrowed(text)),
        AMQPValue::Timestamp(seconds) => Timestamp::from_second(i64::try_from(*seconds).ok()?)
            .ok()
            .map(|time| time.to_string().into()),
        other => number(other).map(|number| number.to_string().into()),
    }
}

fn borrowed(text: &ShortString) -> Cow<'_, str> {
    Cow::Borrowed(text.as_str())
}

fn number(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::ShortShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::ShortInt(n) => u64::try_from(*n).ok(),
        AMQPValue::ShortUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongInt(n) => u64::try_from(*n).ok(),
        AMQPValue::LongUInt(n) => Some(u64::from(*n)),
        AMQPValue::LongLongInt(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// Headers and properties as JSON text, for whoever has to find out where the message came from.
fn to_json(properties: &BasicProperties, exchange: &str, routing_key: &str) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), Value::String(value));
        }
    };
    let own = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    put("exchange", Some(exchange.to_owned()));
    put("routing_key", Some(routing_key.to_owned()));
    put("message_id", own(properties.message_id()));
    put("type", own(properties.kind()));
    put("content_type", own(properties.content_type()));
    put("content_encoding", own(properties.content_encoding()));
    put("correlation_id", own(properties.correlation_id()));
    put("reply_to", own(properties.reply_to()));
    put("app_id", own(properties.app_id()));
    put("user_id", own(properties.user_id()));
    if let Some(timestamp) = properties.timestamp() {
        fields.insert("timestamp".to_owned(), json!(timestamp));
    }
    if let Some(headers) = properties.headers() {
        fields.insert("headers".to_owned(), table(headers));
    }
    Value::Object(fields).to_string()
}

fn table(table: &FieldTable) -> Value {
    table
        .into_iter()
        .map(|(name, value)| (name.to_string(), value_json(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn value_json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(n) => json!(n),
        AMQPValue::ShortShortUInt(n) => json!(n),
        AMQPValue::ShortInt(n) => json!(n),
        AMQPValue::ShortUInt(n) => json!(n),
        AMQPValue::LongInt(n) => json!(n),
        AMQPValue::LongUInt(n) => json!(n),
        AMQPValue::LongLongInt(n) => json!(n),
        AMQPValue::Float(n) => json!(n),
        AMQPValue::Double(n) => json!(n),
        AMQPValue::DecimalValue(n) => json!({"scale": n.scale, "value": n.value}),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(value_json).collect(),
        AMQPValue::Timestamp(seconds) => json!(seconds),
        AMQPValue::FieldTable(inner) => table(inner),
        AMQPValue::ByteArray(bytes) => json!(String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::Void => Value::Null,
    }
}
