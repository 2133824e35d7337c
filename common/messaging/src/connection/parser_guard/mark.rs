//! The content header that replaces one that lapin cannot parse.

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

/// The only header of a replacement. Its random part is known only to this process, so no publisher can forge a replacement.
static HEADER: LazyLock<String> =
    LazyLock::new(|| format!("doorstep-undecodable-{:032x}", rand::random::<u128>()));

const REASON: &str = "reason";
const ORIGINAL: &str = "original";
const ROUTING: &str = "routing";
const LENGTH: &str = "length";
const SHA256: &str = "sha256";

/// Property flags with only the headers set.
const HEADERS_ONLY: u16 = 1 << 13;
/// Upper bound of a replacement's bytes besides the reason, the short string and the original.
const OVERHEAD: usize = 256;

/// Builds the frame of a replacement: the same channel, class and body size, and as much of the original as the frame limit allows.
pub(super) fn frame(
    channel: u16,
    payload: &[u8],
    defect: Defect,
    repaired: Option<Vec<u8>>,
    frame_max: usize,
) -> Vec<u8> {
    let reason = defect.to_string();
    let original = show::without_broker_headers(payload);
    let repaired = repaired.unwrap_or_default();
    let room = frame_max.saturating_sub(OVERHEAD + reason.len() + repaired.len());
    let kept = &original[..original.len().min(room)];

    let mut fields = Vec::with_capacity(kept.len() + OVERHEAD);
    field(&mut fields, REASON, b'S', reason.as_bytes());
    field(&mut fields, ORIGINAL, b'x', kept);
    if !repaired.is_empty() {
        field(&mut fields, ROUTING, b'x', &repaired);
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
    // No broker sends a payload that is too short for these; lapin rejects it.
    replaced.extend(&payload[..payload.len().min(BEFORE_PROPERTIES)]);
    replaced.extend(HEADERS_ONLY.to_be_bytes());
    long_string(&mut replaced, &table);
    let length = long(replaced.len() - FRAME_HEADER);
    replaced[FRAME_HEADER - 4..FRAME_HEADER].copy_from_slice(&length);
    replaced.push(FRAME_END);
    replaced
}

/// Writes a field whose value has a four-byte length.
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

/// A message whose content header lapin cannot parse, as replaced by the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undecodable {
    pub(crate) reason: String,
    /// Payload of its content header, without the headers that the broker adds at each delivery.
    original: Vec<u8>,
    /// The delivery's short string that is not UTF-8, if that is the defect.
    routing: Option<Vec<u8>>,
    /// Length and SHA-256 of the whole original, if it did not fit.
    whole: Option<(String, Vec<u8>)>,
}

impl Undecodable {
    /// Parses a replacement; `None` for any other message.
    pub(crate) fn from_properties(properties: &BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?.inner();
        // A quick check that excludes nearly all messages.
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

    /// Returns the bytes that distinguish it from other undecodable messages.
    pub(crate) fn identity(&self) -> [&[u8]; 3] {
        let whole = self.whole.as_ref().map(|(_, sha256)| &**sha256);
        [
            &self.original,
            self.routing.as_deref().unwrap_or_default(),
            whole.unwrap_or_default(),
        ]
    }

    /// Returns the correlation id if it is readable.
    pub(crate) fn correlation_id(&self) -> Option<String> {
        let id = show::text_property(&self.original, "correlation_id")?;
        String::from_utf8(id.to_vec()).ok()
    }

    /// Formats it as JSON: the readable properties and headers, with invalid UTF-8 replaced, and the whole payload in hexadecimal.
    pub(crate) fn to_json(&self, exchange: &str, routing_key: &str) -> String {
        let mut shown: Map<String, Value> = show::properties(&self.original);
        shown.insert("exchange".to_owned(), exchange.into());
        shown.insert("routing_key".to_owned(), routing_key.into());
        if let Some(routing) = &self.routing {
            shown.insert("routing_hex".to_owned(), hex::encode(routing).into());
        }
        shown.insert("wire_hex".to_owned(), hex::encode(&self.original).into());
        if let Some((length, sha256)) = &self.whole {
            shown.insert("wire_length".to_owned(), length.as_str().into());
            shown.insert("wire_sha256".to_owned(), hex::encode(sha256).into());
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
