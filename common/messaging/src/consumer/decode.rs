//! Decodes a message's headers and properties into an event.
//!
//! CloudEvents in binary mode: attributes are headers with the prefix `cloudEvents:`, or `cloudEvents_`, which other AMQP libraries write.
//! In structured mode the body contains the attributes. A missing id or type is taken from the corresponding AMQP property.

use bytes::Bytes;
use doorstep_event::{
    EventType, Sender,
    headers::{CONTENT_TYPE, Decoded, Decoder, HEADER_TRACEPARENT, RawHeaders, Value as Attribute},
    json,
    media::{self, Mode},
};
use lapin::{
    BasicProperties,
    message::Delivery as Received,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};

use super::{
    Delivery, identity,
    value::{attribute_value, number, text},
};
use crate::connection::Undecodable;

/// Decodes one message. Moves the body without copying it, except in structured mode.
pub(super) fn decode(reader: &mut Decoder, received: Received, sender: Sender) -> Delivery {
    if let Some(undecodable) = Undecodable::from_properties(&received.properties) {
        return decode_unparsed(undecodable, received, sender);
    }
    let properties = &received.properties;
    let body = Bytes::from(received.data);
    // Lives as long as the attributes that borrow from it.
    let mut structured = None;
    let mut raw = RawHeaders::default();
    let mut delivery_count = None;
    for (name, value) in properties.headers().iter().flatten() {
        let name = name.as_str();
        if let Some(attribute) = attribute(name) {
            if attribute == "datacontenttype" {
                check_data_type(value, &mut raw.defects);
            } else {
                raw.put(attribute, attribute_value(attribute, value));
            }
        } else if name == HEADER_TRACEPARENT {
            raw.traceparent = text(value);
        } else if name == "x-delivery-count" {
            delivery_count = number(value).and_then(|count| u64::try_from(count).ok());
        }
    }
    if let Some(encoding) = properties.content_encoding() {
        raw.defects
            .extend(media::encoding_defect(encoding.as_str()));
    }
    if let Some(content_type) = properties.content_type()
        && content_type.as_str() != CONTENT_TYPE
    {
        let (mode, defect) = media::mode(content_type.as_str());
        if mode == Mode::Structured {
            raw = json::add(raw, structured.insert(body.clone()));
        }
        raw.defects.extend(defect);
    }
    add_properties(&mut raw, properties);
    let read = reader.read(raw, body);
    let routing_key = received.routing_key.as_str();
    let (headers_json, id) = match &read {
        Decoded::Undecodable { body, .. } => (
            Some(to_json(properties, received.exchange.as_str(), routing_key)),
            identity::message_id(properties, routing_key, body),
        ),
        Decoded::Valid(_) | Decoded::Invalid(..) => (None, None),
    };
    Delivery {
        tag: received.delivery_tag,
        redelivered: received.redelivered,
        delivery_count,
        sender,
        decoded: read,
        headers_json,
        id,
    }
}

/// Decodes a message that lapin could not parse. It belongs to no stream, regardless of its headers.
fn decode_unparsed(undecodable: Undecodable, received: Received, sender: Sender) -> Delivery {
    let (exchange, routing_key) = (received.exchange.as_str(), received.routing_key.as_str());
    Delivery {
        tag: received.delivery_tag,
        redelivered: received.redelivered,
        delivery_count: None,
        sender,
        headers_json: Some(undecodable.to_json(exchange, routing_key)),
        id: identity::unparsed_id(&undecodable.identity(), &received.data),
        decoded: Decoded::Undecodable {
            defect: undecodable.reason,
            body: Bytes::from(received.data),
        },
    }
}

fn attribute(header: &str) -> Option<&str> {
    header.strip_prefix("cloudEvents")?.strip_prefix([':', '_'])
}

/// Takes a missing id or type from the message id or type property.
///
/// Neither property is a CloudEvents attribute, and other programs use them for other purposes, so a present attribute wins. Only a type
/// property in the form of an event type claims to be one, and then must agree.
fn add_properties<'a>(raw: &mut RawHeaders<'a>, properties: &'a BasicProperties) {
    if raw.id == Attribute::Absent
        && let Some(id) = properties.message_id()
    {
        raw.id = Attribute::Text(id.as_str().into());
    }
    if let Some(kind) = properties.kind() {
        let kind = kind.as_str();
        let agrees = matches!(&raw.kind, Attribute::Text(text) if text == kind);
        if !agrees && (raw.kind == Attribute::Absent || EventType::new(kind).is_ok()) {
            raw.put("type", Attribute::Text(kind.into()));
        }
    }
}

/// Records defects of a `datacontenttype` header. The content type property is its proper place.
fn check_data_type(value: &AMQPValue, defects: &mut Vec<String>) {
    match attribute_value("datacontenttype", value) {
        Attribute::Text(text) => defects.extend(media::mode(&text).1),
        Attribute::Invalid(defect) => defects.push(defect),
        Attribute::Absent => {}
    }
}

/// Formats headers and properties as JSON, to trace the origin of a message.
fn to_json(properties: &BasicProperties, exchange: &str, routing_key: &str) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), Value::String(value));
        }
    };
    let optional = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    put("exchange", Some(exchange.to_owned()));
    put("routing_key", Some(routing_key.to_owned()));
    put("message_id", optional(properties.message_id()));
    put("type", optional(properties.kind()));
    put("content_type", optional(properties.content_type()));
    put("content_encoding", optional(properties.content_encoding()));
    put("correlation_id", optional(properties.correlation_id()));
    put("reply_to", optional(properties.reply_to()));
    put("app_id", optional(properties.app_id()));
    put("user_id", optional(properties.user_id()));
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
