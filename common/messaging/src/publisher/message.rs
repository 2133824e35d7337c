//! Messages to publish: an event to the exchange, or a copy straight to a queue.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use doorstep_event::{Event, EventId, EventType, headers};
use lapin::{
    BasicProperties,
    types::{FieldTable, ShortString},
};

use opentelemetry::trace::SpanContext;

use crate::{
    amqp::{long_string, short_string},
    topology::names::QueueName,
    trace,
};

/// A persistent message to publish. The caller's task builds its properties, which relieves the publisher's single task.
#[derive(Debug, Clone)]
pub struct Message {
    target: Target,
    properties: BasicProperties,
    body: Bytes,
    /// The event's span context, if spans are recorded.
    created: Option<Box<SpanContext>>,
}

/// The destination of a message, and the id by which a return is matched.
#[derive(Debug, Clone)]
enum Target {
    Events { id: EventId, kind: EventType },
    Queue { id: Arc<str>, queue: QueueName },
}

impl Target {
    fn message_id(&self) -> &str {
        match self {
            Self::Events { id, .. } => id.as_str(),
            Self::Queue { id, .. } => id,
        }
    }

    fn routing_key(&self) -> &str {
        match self {
            Self::Events { kind, .. } => kind.as_str(),
            Self::Queue { queue, .. } => queue.as_str(),
        }
    }
}

/// AMQP's delivery mode for persistent messages.
const PERSISTENT: u8 = 2;

impl Message {
    /// Creates a message for an event, routed by its type, with its attributes as headers and properties.
    #[must_use]
    pub fn event(event: &Event) -> Self {
        Self::of_event(event, trace::start_create_span(event))
    }

    /// Creates a message for an event, with the span context to propagate.
    pub(crate) fn of_event(event: &Event, created: Option<SpanContext>) -> Self {
        let mut fields = headers::write(event)
            .into_iter()
            .map(|(name, value)| (short_string(name), long_string(value)))
            .collect::<std::collections::BTreeMap<_, _>>();
        if let Some(context) = &created {
            let traceparent = long_string(trace::write(context));
            fields.insert(short_string(headers::HEADER_TRACEPARENT), traceparent);
        }
        let table: FieldTable = fields.into();
        let mut properties = BasicProperties::default()
            .with_content_type(short_string(headers::CONTENT_TYPE))
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short_string(event.id.as_str()))
            .with_type(short_string(event.event_type.as_str()))
            .with_headers(table);
        // AMQP's timestamp is whole Unix seconds; a header carries the exact time.
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

    /// Creates a message straight to a queue, by the default exchange. An id or header name beyond AMQP's 255 bytes is truncated.
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
            table.insert(short_string(&name), long_string(value));
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

    /// Sets an expiration: the broker drops the message if it is not consumed within `after`.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        let milliseconds = after.as_millis().to_string();
        self.properties = self.properties.with_expiration(milliseconds.into());
        self
    }

    /// Returns the approximate size in memory in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        // Headers repeat id and type under names of their own.
        let Self { target, body, .. } = self;
        body.len() + 4 * (target.message_id().len() + target.routing_key().len()) + 512
    }

    pub(crate) fn created(&self) -> Option<&SpanContext> {
        self.created.as_deref()
    }

    /// Splits the message for publishing. Keeps the part that matches a returned message.
    pub(crate) fn into_parts(
        mut self,
        events_exchange: &str,
        user_id: Option<&ShortString>,
    ) -> (Parts, Sent) {
        let exchange = match &self.target {
            Target::Events { .. } => {
                // Copies for people carry no user id: their originals came from other users.
                if let Some(user_id) = user_id {
                    self.properties = self.properties.with_user_id(user_id.clone());
                }
                short_string(events_exchange)
            }
            Target::Queue { .. } => ShortString::default(),
        };
        let parts = Parts {
            exchange,
            routing_key: short_string(self.target.routing_key()),
            properties: self.properties,
            body: self.body,
        };
        (parts, Sent(self.target))
    }
}

/// The parts that lapin publishes.
pub(crate) struct Parts {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// The part of a message that is kept until its confirm, to match a return.
#[derive(Debug)]
pub(crate) struct Sent(Target);

impl Sent {
    /// Returns whether a returned message is this one. Compares exchange, routing key and id, because a dead letter's copy has its event's
    /// id.
    pub(crate) fn matches(&self, returned: &Returned) -> bool {
        returned.by_default_exchange == matches!(self.0, Target::Queue { .. })
            && returned.message_id == self.0.message_id()
            && returned.routing_key == self.0.routing_key()
    }

    /// Returns the id, an index for returns.
    pub(crate) fn message_id(&self) -> &str {
        self.0.message_id()
    }
}

/// The known parts of a returned message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) by_default_exchange: bool,
    pub(crate) routing_key: String,
    pub(crate) message_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_id_is_truncated_between_characters() {
        let text = "ä".repeat(200);
        let message = Message::to_queue(QueueName::new("q"), &text, Vec::new(), Bytes::new());
        assert_eq!(message.target.message_id(), "ä".repeat(127));
    }
}
