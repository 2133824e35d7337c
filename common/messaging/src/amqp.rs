//! Strings and options that many requests share.

use lapin::{
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, LongString, ShortString},
};

/// Options of a message that the broker returns if no queue is bound for it.
pub(crate) const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

/// Options of a declaration that only checks an existing queue.
pub(crate) const PASSIVE_QUEUE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

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
