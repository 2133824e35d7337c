//! The id of an undecodable message: a digest of everything its publisher sent.

use doorstep_event::EventId;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use sha2::{Digest, Sha256};

/// Headers that brokers add or remove when they redeliver, dead-letter or forward a message.
const BROKERS_OWN: [&str; 10] = [
    "CC",
    "x-acquired-count",
    "x-death",
    "x-delivery-count",
    "x-received-from",
    "x-routed-by-routing-key",
    "x-routing-transit-node",
    "x-shovelled",
    "x-shovelled-timestamp",
    "x-stream-offset",
];
/// Prefixes of further headers of that kind.
const BROKERS_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Returns the message's id. It is the same for each delivery, on any queue, and differs from every other message's.
pub(super) fn message_id(
    properties: &BasicProperties,
    routing_key: &str,
    body: &[u8],
) -> Option<EventId> {
    let mut hash = Hash(Sha256::new());
    hash.bytes(published_under(properties, routing_key).as_bytes());
    for text in [
        properties.message_id(),
        properties.kind(),
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.app_id(),
        properties.user_id(),
        properties.cluster_id(),
    ] {
        hash.text(text.as_ref());
    }
    if let Some(timestamp) = properties.timestamp() {
        hash.bytes(&timestamp.to_be_bytes());
    }
    for (name, value) in properties.headers().iter().flatten() {
        if !is_brokers_own(name.as_str()) {
            hash.bytes(name.as_str().as_bytes());
            hash.value(value);
        }
    }
    hash.bytes(body);
    hash.id()
}

/// Returns the id of a message that lapin could not parse, of which only bytes are known.
pub(super) fn unparsed_id(parts: &[&[u8]], body: &[u8]) -> Option<EventId> {
    let mut hash = Hash(Sha256::new());
    for part in parts {
        hash.bytes(part);
    }
    hash.bytes(body);
    hash.id()
}

/// Returns whether brokers add or remove this header.
pub(crate) fn is_brokers_own(header: &str) -> bool {
    BROKERS_OWN.contains(&header)
        || BROKERS_PREFIXES
            .iter()
            .any(|prefix| header.starts_with(prefix))
}

/// Returns the routing key that the message was published with. A dead-lettered message has another one; its first key is in the oldest
/// entry of `x-death`, the last of the list.
fn published_under<'a>(properties: &'a BasicProperties, routing_key: &'a str) -> &'a str {
    let first = || {
        let AMQPValue::FieldArray(deaths) = field(properties.headers().as_ref()?, "x-death")?
        else {
            return None;
        };
        let AMQPValue::FieldTable(oldest) = deaths.as_slice().last()? else {
            return None;
        };
        let AMQPValue::FieldArray(keys) = field(oldest, "routing-keys")? else {
            return None;
        };
        match keys.as_slice().first()? {
            AMQPValue::LongString(key) => std::str::from_utf8(key.as_bytes()).ok(),
            _ => None,
        }
    };
    first().unwrap_or(routing_key)
}

fn field<'a>(table: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    table.inner().get(name)
}

/// A hash in which each part has its length and each value its type, so that different messages never have the same bytes.
struct Hash(Sha256);

impl Hash {
    fn id(self) -> Option<EventId> {
        EventId::new(hex::encode(self.0.finalize())).ok()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: Option<&ShortString>) {
        match text {
            Some(text) => {
                self.0.update(b"+");
                self.bytes(text.as_str().as_bytes());
            }
            None => self.0.update(b"-"),
        }
    }

    fn value(&mut self, value: &AMQPValue) {
        match value {
            AMQPValue::Boolean(flag) => self.tagged(b't', &[u8::from(*flag)]),
            AMQPValue::ShortShortInt(n) => self.tagged(b'b', &n.to_be_bytes()),
            AMQPValue::ShortShortUInt(n) => self.tagged(b'B', &n.to_be_bytes()),
            AMQPValue::ShortInt(n) => self.tagged(b's', &n.to_be_bytes()),
            AMQPValue::ShortUInt(n) => self.tagged(b'u', &n.to_be_bytes()),
            AMQPValue::LongInt(n) => self.tagged(b'I', &n.to_be_bytes()),
            AMQPValue::LongUInt(n) => self.tagged(b'i', &n.to_be_bytes()),
            AMQPValue::LongLongInt(n) => self.tagged(b'l', &n.to_be_bytes()),
            AMQPValue::Float(n) => self.tagged(b'f', &n.to_be_bytes()),
            AMQPValue::Double(n) => self.tagged(b'd', &n.to_be_bytes()),
            AMQPValue::DecimalValue(n) => {
                self.tagged(b'D', &[n.scale]);
                self.0.update(n.value.to_be_bytes());
            }
            AMQPValue::ShortString(text) => self.tagged(b'S', text.as_str().as_bytes()),
            AMQPValue::LongString(text) => self.tagged(b'S', text.as_bytes()),
            AMQPValue::Timestamp(n) => self.tagged(b'T', &n.to_be_bytes()),
            AMQPValue::ByteArray(bytes) => self.tagged(b'x', bytes.as_slice()),
            AMQPValue::Void => self.tagged(b'V', &[]),
            AMQPValue::FieldArray(array) => {
                self.tagged(b'A', &(array.as_slice().len() as u64).to_be_bytes());
                for value in array.as_slice() {
                    self.value(value);
                }
            }
            AMQPValue::FieldTable(table) => {
                self.tagged(b'F', &(table.inner().len() as u64).to_be_bytes());
                for (name, value) in table {
                    self.bytes(name.as_str().as_bytes());
                    self.value(value);
                }
            }
        }
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update([tag]);
        self.bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn any_difference_changes_the_id() {
        let plain = headers(&[("a", AMQPValue::LongInt(1))]);
        let mut messages = vec![
            message_id(&plain, "key", b"body"),
            message_id(&plain, "other key", b"body"),
            message_id(&plain, "key", b"other body"),
            message_id(&plain.clone().with_message_id("1".into()), "key", b"body"),
            message_id(&plain.clone().with_message_id("2".into()), "key", b"body"),
            message_id(&plain.clone().with_app_id("1".into()), "key", b"body"),
            message_id(&plain.clone().with_timestamp(1), "key", b"body"),
            message_id(&headers(&[]), "key", b"body"),
            message_id(
                &BasicProperties::default().with_type("a".into()),
                "key",
                b"body",
            ),
        ];
        for value in [
            AMQPValue::LongInt(2),
            AMQPValue::LongUInt(1),
            AMQPValue::Double(f64::NAN),
            AMQPValue::Void,
            AMQPValue::LongString(vec![0xe8].into()),
            AMQPValue::LongString(vec![0xe9].into()),
        ] {
            messages.push(message_id(&headers(&[("a", value)]), "key", b"body"));
        }
        let all = messages.len();
        messages.sort_unstable();
        messages.dedup();
        assert_eq!(messages.len(), all);
        assert!(messages.iter().all(Option::is_some));
    }

    #[test]
    fn headers_of_the_broker_keep_the_id() {
        let first = headers(&[("a", text("b"))]);
        let mut death = FieldTable::default();
        let keys = vec![text("key")];
        death.insert("routing-keys".into(), AMQPValue::FieldArray(keys.into()));
        let redelivered = headers(&[
            ("a", text("b")),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
            ("x-acquired-count", AMQPValue::LongLongInt(4)),
            ("x-first-death-queue", text("q")),
            ("x-last-death-reason", text("rejected")),
            (
                "x-death",
                AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()),
            ),
        ]);
        assert_eq!(
            message_id(&first, "key", b""),
            message_id(&redelivered, "net", b"")
        );
        assert_ne!(
            message_id(&first, "net", b""),
            message_id(&redelivered, "net", b"")
        );
    }
}
