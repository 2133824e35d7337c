//! AMQP's short strings, bounded.

use lapin::types::ShortString;

/// Truncates text to AMQP's 255 bytes for short strings; lapin would panic on longer text.
pub(crate) fn short_string(text: &str) -> ShortString {
    const MAX_BYTES: usize = 255;
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
