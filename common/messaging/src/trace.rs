//! Spans by OpenTelemetry's messaging conventions. The span context is propagated in each event, as W3C `traceparent`.
//!
//! Preparing an event for publishing is a `create` span that continues the trace of its cause. The event carries that span's context, also
//! when it is resent. Publishing a list is one `send` span, processing a batch one `process` span; both have links to their events, up to a
//! bound. Until [`start`] is called there are no spans, and each operation costs one check of a flag.

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

/// Maximum links of a span.
const MAX_LINKS: usize = 128;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Starts recording spans with the process's global tracer provider. For programs that have an exporter.
pub fn start() {
    // A second call has no effect.
    let _ = TRACER.set(global::tracer("doorstep"));
}

pub(crate) fn enabled() -> bool {
    TRACER.get().is_some()
}

/// Records a span for an event to be published. Returns its context; `None` if spans are off.
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

/// A list of messages being published.
pub(crate) struct SendSpan(Option<BoxedSpan>);

impl SendSpan {
    pub(crate) fn begin(exchange: &str, messages: &[Message]) -> Self {
        let span = TRACER.get().map(|tracer| {
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
        let Some(span) = &mut self.0 else { return };
        let failed = outcomes.iter().find(|o| **o != PublishOutcome::Confirmed);
        if let Some(outcome) = failed {
            span.set_attribute(KeyValue::new("error.type", outcome_label(*outcome)));
            span.set_status(Status::error(outcome_label(*outcome)));
        }
    }
}

/// A batch being processed. Ends on drop.
pub struct ProcessSpan(Option<BoxedSpan>);

impl ProcessSpan {
    /// Begins a span for a received batch.
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

    /// Marks the span as failed, with a short error type.
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

/// A call to a role, by the client.
pub(crate) struct ClientSpan(Option<BoxedSpan>);

impl ClientSpan {
    /// Begins a span, and makes the request its child.
    pub(crate) fn begin(request: &mut Request) -> Self {
        Self(of_request(request, SpanKind::Client, "ask"))
    }

    pub(crate) fn end(mut self, error: Option<&CallError>) {
        if let (Some(span), Some(error)) = (&mut self.0, error) {
            let error_type = match error {
                CallError::Refused(rejection) => rejection.code.clone(),
                CallError::NoResponder { .. } => "no_responder".to_owned(),
                CallError::TimedOut => "timed_out".to_owned(),
                CallError::Overloaded { .. } => "overloaded".to_owned(),
                CallError::Unreachable { .. } => "unreachable".to_owned(),
                CallError::Malformed(_) => "malformed".to_owned(),
            };
            span.set_attribute(KeyValue::new("error.type", error_type.clone()));
            span.set_status(Status::error(error_type));
        }
    }
}

/// A request being served. Ends on drop.
pub(crate) struct ServerSpan(Option<BoxedSpan>);

impl ServerSpan {
    /// Begins a span, and makes the request's consequences its children.
    pub(crate) fn begin(request: &mut Request) -> Self {
        Self(of_request(request, SpanKind::Server, "answer"))
    }

    /// Creates no span, for requests that have no effect.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Marks the span as failed, with a short error type.
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

/// Formats a context as `traceparent`.
pub(crate) fn write(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    )
}

/// Parses a `traceparent`; `None` if it violates the standard.
fn read(traceparent: &str) -> Option<SpanContext> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, span, flags, ..] = parts.as_slice() else {
        return None;
    };
    let is_hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let sizes = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    // A later version may have more parts, version 00 may not.
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
    // The conventions require it only for batches.
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
    fn a_context_round_trips_and_others_are_rejected() {
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
