//! AMQP's short and long strings.

use lapin::types::{AMQPValue, LongString, ShortString};

/// Truncates text to AMQP's 255 bytes for short strings; lapin would panic on longer text.
pub(crate) fn short_string(text: &str) -> ShortString {
    const MAX_BYTES: usize = 255;
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

/// Returns a header's or argument's value.
pub(crate) fn long_string(text: impl Into<LongString>) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
