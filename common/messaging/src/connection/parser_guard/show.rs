//! Formats the content header of an undecodable message for people, as far as it is readable. Depth, number of values and text lengths are
//! bounded.

use serde_json::{Map, Value, json};

use super::check::{BEFORE_PROPERTIES, Bytes, PROPERTIES, PropertyType, fixed, is_set};
use crate::consumer::is_brokers_own;

/// Deeper tables and arrays are mentioned but not shown.
const SHOWN_DEPTH: usize = 8;
/// Maximum number of values shown.
const SHOWN_VALUES: usize = 500;
/// Maximum bytes shown of a text.
const SHOWN_TEXT: usize = 1024;

/// Visits the readable properties, and stops at the first unreadable one. For tables and texts it passes their content.
fn walk<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&'static str, PropertyType, &'a [u8]),
) -> Option<()> {
    let mut left = Bytes(payload);
    left.take(BEFORE_PROPERTIES)?;
    let flags = left.short()?;
    for (index, (name, form)) in PROPERTIES.into_iter().enumerate() {
        if is_set(flags, index) {
            let value = match form {
                PropertyType::Text => left.short_string()?,
                // As much of a truncated table as there is.
                PropertyType::Table => {
                    let length = left.long()?;
                    left.take(length.min(left.0.len()))?
                }
                PropertyType::Octet => left.take(1)?,
                PropertyType::Timestamp => left.take(8)?,
            };
            each(name, form, value);
        }
    }
    Some(())
}

/// Returns a text property's bytes.
pub(super) fn text_property<'a>(payload: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut found = None;
    walk(payload, |name, form, value| {
        if form == PropertyType::Text && name == wanted {
            found = Some(value);
        }
    });
    found
}

/// Formats the properties as JSON.
pub(super) fn properties(payload: &[u8]) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut budget = SHOWN_VALUES;
    walk(payload, |name, form, value| {
        let value = match form {
            PropertyType::Text => text(value),
            PropertyType::Table => container(value, true, 1, &mut budget),
            PropertyType::Octet => number(value),
            PropertyType::Timestamp => number(value),
        };
        shown.insert(name.to_owned(), value);
    });
    shown
}

/// Formats the fields of a table or array. Recurses at most [`SHOWN_DEPTH`] times.
fn container(fields: &[u8], has_names: bool, depth: usize, budget: &mut usize) -> Value {
    let mut left = Bytes(fields);
    let mut table = Map::new();
    let mut array = Vec::new();
    while !left.0.is_empty() {
        let before = left;
        let name = if has_names { left.short_string() } else { None };
        let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
        let value = match budget.checked_sub(1) {
            Some(less) => {
                *budget = less;
                value(&mut left, depth, budget)
            }
            None => None,
        };
        let (name, value, goes_on) = match value {
            Some(value) if !has_names || name.is_some() => (name, value, true),
            _ => {
                let count = before.0.len();
                let rest = format!("{count} bytes not shown");
                (None, rest.into(), false)
            }
        };
        if has_names {
            table.insert(name.unwrap_or_else(|| "…".to_owned()), value);
        } else {
            array.push(value);
        }
        if !goes_on {
            break;
        }
    }
    if has_names {
        Value::Object(table)
    } else {
        Value::Array(array)
    }
}

/// Formats a value preceded by its type; `None` if it is unreadable.
fn value(left: &mut Bytes<'_>, depth: usize, budget: &mut usize) -> Option<Value> {
    let kind = left.octet()?;
    Some(match kind {
        b'V' => Value::Null,
        b't' => json!(left.octet()? != 0),
        b'b' => json!(i8::from_be_bytes(left.array()?)),
        b's' | b'U' => json!(i16::from_be_bytes(left.array()?)),
        b'I' => json!(i32::from_be_bytes(left.array()?)),
        b'L' | b'l' => json!(i64::from_be_bytes(left.array()?)),
        b'f' => json!(f32::from_be_bytes(left.array()?)),
        b'd' => json!(f64::from_be_bytes(left.array()?)),
        b'D' => {
            let (scale, value) = (left.octet()?, u32::from_be_bytes(left.array()?));
            json!({"scale": scale, "value": value})
        }
        b'S' | b'x' => text(left.long_string()?),
        b'F' | b'A' => {
            let inner = left.long_string()?;
            if depth < SHOWN_DEPTH {
                container(inner, kind == b'F', depth + 1, budget)
            } else {
                let count = inner.len();
                format!("nested deeper, {count} bytes").into()
            }
        }
        other => number(left.take(fixed(other)?)?),
    })
}

/// Formats an unsigned number of any width.
fn number(bytes: &[u8]) -> Value {
    let number = bytes
        .iter()
        .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    json!(number)
}

fn text(bytes: &[u8]) -> Value {
    if bytes.len() <= SHOWN_TEXT {
        return String::from_utf8_lossy(bytes).into();
    }
    let beginning = String::from_utf8_lossy(&bytes[..SHOWN_TEXT]);
    format!("{beginning}… ({} bytes)", bytes.len()).into()
}

/// Returns the payload without the headers that brokers add, which differ at each delivery. The other headers are sorted by name, because a
/// broker that adds a header sorts them: so a redelivered message stays the same. If the headers cannot be separated, the payload is
/// returned unchanged.
pub(super) fn without_broker_headers(payload: &[u8]) -> Vec<u8> {
    strip(payload).unwrap_or_else(|| payload.to_vec())
}

fn strip(payload: &[u8]) -> Option<Vec<u8>> {
    let mut left = Bytes(payload);
    left.take(BEFORE_PROPERTIES)?;
    let flags = left.short()?;
    let headers = PROPERTIES
        .iter()
        .position(|(_, form)| *form == PropertyType::Table)?;
    for index in 0..headers {
        if is_set(flags, index) {
            left.short_string()?;
        }
    }
    if !is_set(flags, headers) {
        return None;
    }
    let from = payload.len() - left.0.len();
    let mut fields = Bytes(left.long_string()?);
    let mut kept: Vec<(&[u8], &[u8])> = Vec::new();
    while !fields.0.is_empty() {
        let field = fields.0;
        let name = fields.short_string()?;
        let kind = fields.octet()?;
        match fixed(kind) {
            Some(size) => fields.take(size)?,
            None if matches!(kind, b'S' | b'x' | b'F' | b'A') => fields.long_string()?,
            None => return None,
        };
        if !std::str::from_utf8(name).is_ok_and(is_brokers_own) {
            kept.push((name, &field[..field.len() - fields.0.len()]));
        }
    }
    kept.sort_by_key(|(name, _)| *name);
    let kept: Vec<u8> = kept.iter().flat_map(|(_, field)| *field).copied().collect();
    let mut stripped = payload[..from].to_vec();
    if kept.is_empty() {
        // A broker that adds a header also adds the table.
        let without = flags & !(1 << (15 - headers));
        stripped[BEFORE_PROPERTIES..BEFORE_PROPERTIES + 2].copy_from_slice(&without.to_be_bytes());
    } else {
        stripped.extend(u32::try_from(kept.len()).ok()?.to_be_bytes());
        stripped.extend(kept);
    }
    stripped.extend(left.0);
    Some(stripped)
}
