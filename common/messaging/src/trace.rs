//! Spans of what goes over the broker, by OpenTelemetry's messaging conventions. The context travels with each event, as W3C
//! `traceparent`.
//!
//! An event that is made ready to be published is a `create` span, continuing the trace of what has caused it, and the event carries
//! that span's context, also when it has to be sent again. Publishing a list is one `send` span, working a batch one `process` span;
//! both are linked to the events in them, up to a bound. Until [`start`] is called none of it happens, and what is left is one look at
//! a flag for each.

use std::sync::OnceLock;

use doorstep_event::{Event, Request, headers::Decoded};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    trace::{
        Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
        TraceFlags, TraceId, TraceState, Tracer,
    },
};

use crate::{consumer::Batch, message::Message, publisher::PublishOutcome, rpc::CallError};

/// The most events that a span is linked to.
const MAX_LINKS: usize = 128;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Makes spans from here on, by the tracer provider that the process has set. For programs that have somebody to hand them to.
pub fn start() {
    // Once started it stays so.
    let _ = TRACER.set(global::tracer("doorstep"));
}

/// Whether spans are made.
pub(crate) fn enabled() -> bool {
    TRACER.get().is_some()
}

/// A span for an event that is about to be published; returns what it travels under. `None` where no spans are made.
pub(crate) fn start_create_span(event: &Event) -> Option<SpanContext> {
    let tracer = TRACER.get()?;
    let cause = event.traceparent.as_deref().and_then(read);
    let parent = cause.map_or_else(Context::new, |cause| {
        Context::new().with_remote_span_context(cause)
    });
    let kind = event.event_type.as_str();
    let span = begin(
        tracer,
        format!("create {kind}"),
        SpanKind::Producer,
        "create",
        vec![
            KeyValue::new(
                "messaging.rabbitmq.destination.routing_key",
                kind.to_owned(),
            ),
            KeyValue::new("messaging.message.id", event.id.to_string()),
        ],
        Vec::new(),
        &parent,
    );
    Some(span.span_context().clone())
}

/// A list of messages on its way to the broker and back.
pub(crate) struct SendSpan(Option<BoxedSpan>);

impl SendSpan {
    pub(crate) fn begin(exchange: &str, messages: &[Message]) -> Self {
        let span = TRACER.get().map(|tracer| {
            let contexts = messages.iter().filter_map(Message::created);
            begin(
                tracer,
                format!("send {exchange}"),
                // What the events travel under are their own spans, so this one produces nothing.
                SpanKind::Client,
                "send",
                destination(exchange, messages.len()),
                links(contexts.cloned()),
                &Context::new(),
            )
        });
        Self(span)
    }

    /// What became of them.
    pub(crate) fn end(mut self, outcomes: &[PublishOutcome]) {
        let Some(span) = &mut self.0 else { return };
        let failed = outcomes.iter().find(|o| **o != PublishOutcome::Confirmed);
        if let Some(outcome) = failed {
            span.set_attribute(KeyValue::new("error.type", outcome_label(*outcome)));
            span.set_status(Status::error(outcome_label(*outcome)));
        }
    }
}

/// A batch that is being worked. Ends when it is dropped.
pub struct ProcessSpan(Option<BoxedSpan>);

impl ProcessSpan {
    /// Begins with a batch that was taken.
    #[must_use]
    pub fn begin(batch: &Batch) -> Self {
        let span = TRACER.get().map(|tracer| {
            let queue = batch.queue.as_str();
            let events = batch.deliveries.iter().filter_map(|d| match &d.read {
                Decoded::Valid(event) | Decoded::Invalid(event, _) => event.traceparent.as_deref(),
                Decoded::Undecodable { .. } => None,
            });
            begin(
                tracer,
                format!("process {queue}"),
                SpanKind::Consumer,
                "process",
                destination(queue, batch.deliveries.len()),
                links(events.filter_map(read)),
                &Context::new(),
            )
        });
        Self(span)
    }

    /// It came to nothing, for this reason in a word or two.
    pub fn failed(&mut self, error_type: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", error_type));
            span.set_status(Status::error(error_type));
        }
    }
}

impl std::fmt::Debug for ProcessSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProcessSpan")
    }
}

/// A request that somebody waits for.
pub(crate) struct ClientSpan(Option<BoxedSpan>);

impl ClientSpan {
    /// Begins, and has the request continue it.
    pub(crate) fn begin(request: &mut Request) -> Self {
        Self(of_request(request, SpanKind::Client, "ask"))
    }

    pub(crate) fn end(mut self, error: Option<&CallError>) {
        if let (Some(span), Some(error)) = (&mut self.0, error) {
            let word = match error {
                CallError::Refused(refused) => refused.code.clone(),
                CallError::NoResponder { .. } => "no_responder".to_owned(),
                CallError::TimedOut => "timed_out".to_owned(),
                CallError::Overloaded { .. } => "overloaded".to_owned(),
                CallError::Unreachable { .. } => "unreachable".to_owned(),
                CallError::Malformed(_) => "malformed".to_owned(),
            };
            span.set_attribute(KeyValue::new("error.type", word.clone()));
            span.set_status(Status::error(word));
        }
    }
}

/// A request that is being answered. Ends when it is dropped.
pub(crate) struct ServerSpan(Option<BoxedSpan>);

impl ServerSpan {
    /// Begins, and has what the request causes continue it.
    pub(crate) fn begin(request: &mut Request) -> Self {
        Self(of_request(request, SpanKind::Server, "answer"))
    }

    /// For requests of which nothing comes.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// It came to nothing, for this reason in a word or two.
    pub(crate) fn failed(&mut self, error_type: &str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", error_type.to_owned()));
            span.set_status(Status::error(error_type.to_owned()));
        }
    }
}

fn of_request(request: &mut Request, kind: SpanKind, operation: &'static str) -> Option<BoxedSpan> {
    let tracer = TRACER.get()?;
    let cause = request.traceparent.as_deref().and_then(read);
    let parent = cause.map_or_else(Context::new, |cause| {
        Context::new().with_remote_span_context(cause)
    });
    let attributes = vec![
        KeyValue::new("rpc.system", "doorstep"),
        KeyValue::new("rpc.method", request.kind.to_string()),
        KeyValue::new("messaging.message.id", request.id.to_string()),
    ];
    let name = format!("{operation} {}", request.kind);
    let span = begin(
        tracer,
        name,
        kind,
        operation,
        attributes,
        Vec::new(),
        &parent,
    );
    request.traceparent = Some(write(span.span_context()));
    Some(span)
}

/// The context as it travels.
pub(crate) fn write(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    )
}

/// Reads what has travelled; `None` where it is not in the form that the standard asks for.
fn read(traceparent: &str) -> Option<SpanContext> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, span, flags, ..] = parts.as_slice() else {
        return None;
    };
    let is_hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let sizes = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    // A version of later days may say more, this one not.
    if !sizes || *version == "ff" || (*version == "00" && parts.len() > 4) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

fn begin(
    tracer: &BoxedTracer,
    name: String,
    kind: SpanKind,
    operation: &'static str,
    mut attributes: Vec<KeyValue>,
    links: Vec<Link>,
    parent: &Context,
) -> BoxedSpan {
    attributes.extend([
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
    ]);
    let builder = SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_attributes(attributes)
        .with_links(links);
    tracer.build_with_context(builder, parent)
}

fn destination(name: &str, messages: usize) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("messaging.destination.name", name.to_owned())];
    // The conventions want it for batches only.
    if messages > 1 {
        let count = i64::try_from(messages).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("messaging.batch.message_count", count));
    }
    attributes
}

fn links(contexts: impl Iterator<Item = SpanContext>) -> Vec<Link> {
    contexts
        .take(MAX_LINKS)
        .map(|context| Link::new(context, Vec::new(), 0))
        .collect()
}

fn outcome_label(outcome: PublishOutcome) -> &'static str {
    match outcome {
        PublishOutcome::Confirmed => "confirmed",
        PublishOutcome::Unroutable => "unroutable",
        PublishOutcome::Refused => "refused",
        PublishOutcome::TimedOut => "timed_out",
        PublishOutcome::Disconnected => "disconnected",
        PublishOutcome::Blocked => "blocked",
        PublishOutcome::Unpublishable => "unpublishable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_as_it_was_written_and_nothing_else_is() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(write(&read(text).unwrap()), text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
