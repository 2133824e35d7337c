//! Messages of events that may be resent. A span context is created once per event and reused when it is resent, so a trace shows one
//! `create` span however often the broker was unreachable.

use std::collections::BTreeMap;

use doorstep_event::{Event, EventId, Source};
use opentelemetry::trace::SpanContext;

use crate::{locked::Locked, publisher::message::Message, trace};

/// Maximum cached events. Beyond that, a resent event gets a new context, which is visible only in traces.
const MAX_EVENTS: usize = 10_000;

/// Creates messages of events, and caches their span contexts until they are confirmed. Caches nothing if spans are off.
#[derive(Debug, Default)]
pub struct EncodedEvents {
    created: Locked<BTreeMap<(Source, EventId), SpanContext>>,
}

impl EncodedEvents {
    /// Creates a message of this event, reusing its span context.
    #[must_use]
    pub fn encode(&self, event: &Event) -> Message {
        let created = if trace::enabled() {
            self.context(event, trace::start_create_span)
        } else {
            None
        };
        Message::of_event(event, created)
    }

    /// Forgets the event, which is not resent any more.
    pub fn confirmed(&self, event: &Event) {
        if trace::enabled() {
            self.forget(event);
        }
    }

    fn context(
        &self,
        event: &Event,
        create: impl FnOnce(&Event) -> Option<SpanContext>,
    ) -> Option<SpanContext> {
        let mut cache = self.created.lock();
        let key = key(event);
        if let Some(created) = cache.get(&key) {
            return Some(created.clone());
        }
        let created = create(event)?;
        if cache.len() < MAX_EVENTS {
            cache.insert(key, created.clone());
        }
        Some(created)
    }

    fn forget(&self, event: &Event) {
        self.created.lock().remove(&key(event));
    }
}

/// Returns the global identity of an event.
fn key(event: &Event) -> (Source, EventId) {
    (event.source.clone(), event.id.clone())
}

#[cfg(test)]
mod tests {
    use doorstep_event::{EventType, Subject};
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn event(id: usize) -> Event {
        Event {
            id: EventId::new(id.to_string()).unwrap(),
            source: Source::new("test/1").unwrap(),
            event_type: EventType::new("order.placed.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            time: None,
            sequence: None,
            epoch: None,
            traceparent: None,
            data: bytes::Bytes::new(),
        }
    }

    fn context(number: u8) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes([number; 16]),
            SpanId::from_bytes([number; 8]),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        )
    }

    #[test]
    fn a_context_is_reused_until_the_confirm() {
        let messages = EncodedEvents::default();
        let made = |number: u8| move |_: &Event| Some(context(number));
        let first = messages.context(&event(1), made(1));
        assert_eq!(first, Some(context(1)));
        assert_eq!(messages.context(&event(2), made(2)), Some(context(2)));
        for _ in 0..3 {
            let resent = messages.context(&event(1), |_| panic!("the context is cached"));
            assert_eq!(resent, first);
        }
        messages.forget(&event(1));
        assert_eq!(messages.context(&event(1), made(3)), Some(context(3)));
    }

    #[test]
    fn the_cache_is_bounded() {
        let messages = EncodedEvents::default();
        for id in 0..MAX_EVENTS + 10 {
            messages.context(&event(id), |_| Some(context(1)));
        }
        assert_eq!(messages.created.lock().len(), MAX_EVENTS);
    }
}
