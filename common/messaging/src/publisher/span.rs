//! The span of a list of messages that is published.

use opentelemetry::{Context, global::BoxedSpan, trace::SpanKind};

use super::outcome::PublishOutcome;
use crate::{
    publisher::message::Message,
    trace::{begin, destination, fail, links, tracer},
};

/// A list of messages being published.
pub(crate) struct SendSpan(Option<BoxedSpan>);

impl SendSpan {
    pub(crate) fn begin(exchange: &str, messages: &[Message]) -> Self {
        let span = tracer().map(|tracer| {
            let contexts = messages.iter().filter_map(Message::created);
            begin(
                tracer,
                format!("send {exchange}"),
                // The events carry their own spans' contexts, so this span is no producer.
                SpanKind::Client,
                "send",
                destination(exchange, messages.len()),
                links(contexts.cloned()),
                &Context::new(),
            )
        });
        Self(span)
    }

    /// Ends the span with the outcomes.
    pub(crate) fn end(mut self, outcomes: &[PublishOutcome]) {
        let failed = outcomes.iter().find(|o| **o != PublishOutcome::Confirmed);
        if let Some(outcome) = failed {
            fail(&mut self.0, outcome.as_str());
        }
    }
}
