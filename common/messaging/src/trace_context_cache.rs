//! Messages of events that may have to be sent more than once. Each is made ready once: what is sent again travels under what it travelled
//! under before, so that whoever follows a trace finds one span of its making, however often the broker was away.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use doorstep_event::{Event, EventId, Source};
use opentelemetry::trace::SpanContext;

use crate::{message::Message, trace};

/// The most events that are remembered. What is beyond is made ready anew when it is sent again, which only a trace shows.
const MAX_EVENTS: usize = 10_000;

/// Makes messages of events, and remembers what they travel under until it is told that they are confirmed. Where no spans are made, it
/// remembers nothing.
#[derive(Debug, Default)]
pub struct EncodedEvents {
    created: Mutex<BTreeMap<(Source, EventId), SpanContext>>,
}

impl EncodedEvents {
    /// A message of this event, be it the first or not.
    #[must_use]
    pub fn of(&self, event: &Event) -> Message {
        let created = if trace::enabled() {
            self.context(event, trace::start_create_span)
        } else {
            None
        };
        Message::of_event(event, created)
    }

    /// The event need not be sent again.
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
        let mut kept = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(event);
        if let Some(created) = kept.get(&key) {
            return Some(created.clone());
        }
        let created = create(event)?;
        if kept.len() < MAX_EVENTS {
            kept.insert(key, created.clone());
        }
        Some(created)
    }

    fn forget(&self, event: &Event) {
        let mut kept = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&key(event));
    }
}

/// What an event is recognised by, everywhere.
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
    fn what_is_sent_again_travels_under_what_it_was_made_under_until_it_is_confirmed() {
        let messages = EncodedEvents::default();
        let made = |number: u8| move |_: &Event| Some(context(number));
        let first = messages.context(&event(1), made(1));
        assert_eq!(first, Some(context(1)));
        assert_eq!(messages.context(&event(2), made(2)), Some(context(2)));
        // However often it is sent again, it is not made anew.
        for _ in 0..3 {
            let again = messages.context(&event(1), |_| panic!("it was made before"));
            assert_eq!(again, first);
        }
        messages.forget(&event(1));
        assert_eq!(messages.context(&event(1), made(3)), Some(context(3)));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let messages = EncodedEvents::default();
        for id in 0..MAX_EVENTS + 10 {
            messages.context(&event(id), |_| Some(context(1)));
        }
        assert_eq!(messages.created.lock().unwrap().len(), MAX_EVENTS);
    }
}
