//! The content header that stands for one that the client could not read.

use std::sync::LazyLock;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    CONTENT_HEADER, FRAME_END, FRAME_HEADER, check::BEFORE_PROPERTIES, defect::Defect, show,
};

/// The only header of a replacement. Its random part is known to this process alone, so no publisher can make a message that looks
/// like a replacement.
static HEADER: LazyLock<String> =
    LazyLock::new(|| format!("doorstep-undecodable-{:032x}", rand::random::<u128>()));

const REASON: &str = "reason";
const ORIGINAL: &str = "original";
const ROUTING: &str = "routing";
const LENGTH: &str = "length";
const SHA256: &str = "sha256";

/// The flag that says that headers are all there is.
const HEADERS_ONLY: u16 = 1 << 13;
/// More than a replacement needs beside the reason, the short string and the original.
const OVERHEAD: usize = 256;

/// Makes the frame of a replacement: the same channel, class and body size, and the original as far as it fits the limit.
pub(super) fn frame(
    channel: u16,
    payload: &[u8],
    defect: Defect,
    mended: Option<Vec<u8>>,
    frame_max: usize,
) -> Vec<u8> {
    let reason = defect.to_string();
    let original = show::without_broker_headers(payload);
    let mended = mended.unwrap_or_default();
    let room = frame_max.saturating_sub(OVERHEAD + reason.len() + mended.len());
    let kept = &original[..original.len().min(room)];

    let mut fields = Vec::with_capacity(kept.len() + OVERHEAD);
    field(&mut fields, REASON, b'S', reason.as_bytes());
    field(&mut fields, ORIGINAL, b'x', kept);
    if !mended.is_empty() {
        field(&mut fields, ROUTING, b'x', &mended);
    }
    if kept.len() < original.len() {
        let length = original.len().to_string();
        field(&mut fields, LENGTH, b'S', length.as_bytes());
        field(&mut fields, SHA256, b'x', &Sha256::digest(&original));
    }
    let mut table = Vec::with_capacity(fields.len() + OVERHEAD);
    field(&mut table, &HEADER, b'F', &fields);

    let mut replaced = Vec::with_capacity(table.len() + OVERHEAD);
    replaced.push(CONTENT_HEADER);
    replaced.extend(channel.to_be_bytes());
    replaced.extend([0; 4]);
    // One that is too short for these was made by no broker; the client says so.
    replaced.extend(&payload[..payload.len().min(BEFORE_PROPERTIES)]);
    replaced.extend(HEADERS_ONLY.to_be_bytes());
    long_string(&mut replaced, &table);
    let length = long(replaced.len() - FRAME_HEADER);
    replaced[FRAME_HEADER - 4..FRAME_HEADER].copy_from_slice(&length);
    replaced.push(FRAME_END);
    replaced
}

/// Writes a field whose value has a length of four octets.
fn field(fields: &mut Vec<u8>, name: &str, kind: u8, value: &[u8]) {
    fields.push(name.len() as u8);
    fields.extend(name.as_bytes());
    fields.push(kind);
    long_string(fields, value);
}

fn long_string(into: &mut Vec<u8>, value: &[u8]) {
    into.extend(long(value.len()));
    into.extend(value);
}

fn long(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// A message whose content header the client could not have read, as the guard has replaced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undecodable {
    /// Why the client could not read it.
    pub(crate) reason: String,
    /// The payload of its content header, without the headers that the broker adds at each delivery.
    original: Vec<u8>,
    /// The short string of the delivery that was not UTF-8, if that was it.
    routing: Option<Vec<u8>>,
    /// The length and SHA-256 of the whole original, where it did not fit.
    whole: Option<(String, Vec<u8>)>,
}

impl Undecodable {
    /// Reads the mark of a replacement; `None` for any other message.
    pub(crate) fn of(properties: &BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?.inner();
        // The length says so of nearly every message.
        if headers.len() != 1 {
            return None;
        }
        let AMQPValue::FieldTable(mark) = headers.get(HEADER.as_str())? else {
            return None;
        };
        let length = bytes(mark, LENGTH).map(|length| text(&length));
        Some(Self {
            reason: bytes(mark, REASON).map_or_else(String::new, |reason| text(&reason)),
            original: bytes(mark, ORIGINAL).unwrap_or_default(),
            routing: bytes(mark, ROUTING),
            whole: length.zip(bytes(mark, SHA256)),
        })
    }

    /// The digest that tells it from other messages that the client could not have read.
    pub(crate) fn identity(&self) -> [&[u8]; 3] {
        let whole = self.whole.as_ref().map(|(_, sha256)| &**sha256);
        [
            &self.original,
            self.routing.as_deref().unwrap_or_default(),
            whole.unwrap_or_default(),
        ]
    }

    /// The correlation id, if it can be read.
    pub(crate) fn correlation_id(&self) -> Option<String> {
        let id = show::text_property(&self.original, "correlation_id")?;
        String::from_utf8(id.to_vec()).ok()
    }

    /// The readable part of it, as JSON: the properties and headers that can be read, with text that is not UTF-8 made readable, and
    /// all of it in hexadecimal digits.
    pub(crate) fn to_json(&self, exchange: &str, routing_key: &str) -> String {
        let mut shown: Map<String, Value> = show::properties(&self.original);
        shown.insert("exchange".to_owned(), exchange.into());
        shown.insert("routing_key".to_owned(), routing_key.into());
        if let Some(routing) = &self.routing {
            shown.insert("routing_hex".to_owned(), hex(routing).into());
        }
        shown.insert("wire_hex".to_owned(), hex(&self.original).into());
        if let Some((length, sha256)) = &self.whole {
            shown.insert("wire_length".to_owned(), length.as_str().into());
            shown.insert("wire_sha256".to_owned(), hex(sha256).into());
        }
        Value::Object(shown).to_string()
    }
}

fn bytes(mark: &FieldTable, name: &str) -> Option<Vec<u8>> {
    match mark.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes().to_vec()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice().to_vec()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}
