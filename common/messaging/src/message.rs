//! What is published: an event to the exchange, or a copy straight to a queue.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use doorstep_event::{Event, EventId, EventType, headers};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use opentelemetry::trace::SpanContext;

use crate::{names::QueueName, trace};

/// A persistent message on its way out. Its properties are built by whoever makes it, so that the publisher's one task need not.
#[derive(Debug, Clone)]
pub struct Message {
    target: Target,
    properties: BasicProperties,
    body: Bytes,
    /// What the event travels under, where spans are made.
    created: Option<Box<SpanContext>>,
}

/// Where a message goes, and the id by which the broker returns it.
#[derive(Debug, Clone)]
enum Target {
    Events { id: EventId, kind: EventType },
    Queue { id: Arc<str>, queue: QueueName },
}

/// AMQP's delivery mode of messages that outlive a restart.
const PERSISTENT: u8 = 2;

impl Message {
    /// An event, to everyone who has bound its subject: routed by its type, its attributes as headers and properties.
    #[must_use]
    pub fn event(event: &Event) -> Self {
        Self::of_event(event, trace::start_create_span(event))
    }

    /// An event that travels under this, if spans are made.
    pub(crate) fn of_event(event: &Event, created: Option<SpanContext>) -> Self {
        let mut fields = headers::write(event)
            .into_iter()
            .map(|(name, value)| {
                (
                    short_string(name),
                    AMQPValue::LongString(LongString::from(value)),
                )
            })
            .collect::<std::collections::BTreeMap<_, _>>();
        if let Some(context) = &created {
            let travelling = AMQPValue::LongString(LongString::from(trace::write(context)));
            fields.insert(short_string(headers::HEADER_TRACEPARENT), travelling);
        }
        let table: FieldTable = fields.into();
        let mut properties = BasicProperties::default()
            .with_content_type(short_string(headers::CONTENT_TYPE))
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short_string(event.id.as_str()))
            .with_type(short_string(event.event_type.as_str()))
            .with_headers(table);
        // AMQP's timestamp counts whole seconds from 1970; the exact time is in its header.
        if let Some(seconds) = event.time.and_then(|t| u64::try_from(t.as_second()).ok()) {
            properties = properties.with_timestamp(seconds);
        }
        Self {
            target: Target::Events {
                id: event.id.clone(),
                kind: event.event_type.clone(),
            },
            properties,
            body: event.data.clone(),
            created: created.map(Box::new),
        }
    }

    /// A message straight to a queue, by the default exchange. What exceeds AMQP's 255 bytes for an id or the name of a header is
    /// cut there.
    #[must_use]
    pub fn to_queue(
        queue: QueueName,
        message_id: &str,
        headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Self {
        let id = short_string(message_id);
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(
                short_string(&name),
                AMQPValue::LongString(LongString::from(value)),
            );
        }
        Self {
            target: Target::Queue {
                id: id.as_str().into(),
                queue,
            },
            properties: BasicProperties::default()
                .with_delivery_mode(PERSISTENT)
                .with_message_id(id)
                .with_headers(table),
            body,
            created: None,
        }
    }

    /// The message as one that the broker drops if nobody has taken it for so long.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        let milliseconds = after.as_millis().to_string();
        self.properties = self.properties.with_expiration(milliseconds.into());
        self
    }

    /// About how many bytes it takes in memory, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        // Headers repeat what the id and the type say, with names of their own.
        self.body.len() + 4 * (self.message_id().len() + self.routing_key().len()) + 512
    }

    pub(crate) fn created(&self) -> Option<&SpanContext> {
        self.created.as_deref()
    }

    pub(crate) fn message_id(&self) -> &str {
        match &self.target {
            Target::Events { id, .. } => id.as_str(),
            Target::Queue { id, .. } => id,
        }
    }

    fn routing_key(&self) -> &str {
        match &self.target {
            Target::Events { kind, .. } => kind.as_str(),
            Target::Queue { queue, .. } => queue.as_str(),
        }
    }

    /// Takes it apart for the wire, leaving behind what a return is recognised by.
    pub(crate) fn into_parts(
        mut self,
        events_exchange: &str,
        user_id: Option<&ShortString>,
    ) -> (Parts, Sent) {
        let exchange = match &self.target {
            Target::Events { .. } => {
                // Copies for people carry none: they are of what others have sent.
                if let Some(user_id) = user_id {
                    self.properties = self.properties.with_user_id(user_id.clone());
                }
                short_string(events_exchange)
            }
            Target::Queue { .. } => ShortString::default(),
        };
        let parts = Parts {
            exchange,
            routing_key: short_string(self.routing_key()),
            properties: self.properties,
            body: self.body,
        };
        (parts, Sent(self.target))
    }
}

/// What the client publishes.
pub(crate) struct Parts {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// What is kept of a message until it is confirmed, and recognises it when it is returned.
#[derive(Debug)]
pub(crate) struct Sent(Target);

impl Sent {
    /// Whether a returned message is this one: by exchange, routing key and id, since a dead letter's copy has its event's id.
    pub(crate) fn is(&self, returned: &Returned) -> bool {
        match &self.0 {
            Target::Events { id, kind } => {
                !returned.by_default_exchange
                    && returned.message_id == id.as_str()
                    && returned.routing_key == kind.as_str()
            }
            Target::Queue { id, queue } => {
                returned.by_default_exchange
                    && returned.message_id == **id
                    && returned.routing_key == queue.as_str()
            }
        }
    }

    /// The id, to find returns by.
    pub(crate) fn message_id(&self) -> &str {
        match &self.0 {
            Target::Events { id, .. } => id.as_str(),
            Target::Queue { id, .. } => id,
        }
    }
}

/// What is known of a message that the broker returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) by_default_exchange: bool,
    pub(crate) routing_key: String,
    pub(crate) message_id: String,
}

/// Text for where AMQP has no room for more than 255 bytes; the client would panic on a longer one.
pub(crate) fn short_string(text: &str) -> ShortString {
    const MAX_BYTES: usize = 255;
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_cut_at_a_character() {
        let text = "ä".repeat(200);
        let message = Message::to_queue(QueueName::new("q"), &text, Vec::new(), Bytes::new());
        assert_eq!(message.message_id(), "ä".repeat(127));
    }
}
