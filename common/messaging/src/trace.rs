//! Spans by OpenTelemetry's messaging conventions. The span context is propagated in each event, as W3C `traceparent`.
//!
//! Preparing an event for publishing is a `create` span that continues the trace of its cause. The event carries that span's context, also
//! when it is resent. Publishing a list is one `send` span, processing a batch one `process` span; both have links to their events, up to a
//! bound. Until [`start`] is called there are no spans, and each operation costs one check of a flag.

use std::sync::OnceLock;

use doorstep_event::{Event, EventType};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    trace::{
        Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
        TraceFlags, TraceId, TraceState, Tracer,
    },
};

/// Maximum links of a span.
const MAX_LINKS: usize = 128;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Starts recording spans with the process's global tracer provider. For programs that have an exporter.
pub fn start() {
    // A second call has no effect.
    let _ = TRACER.set(global::tracer("doorstep"));
}

/// Returns the tracer once [`start`] has set it.
pub(crate) fn tracer() -> Option<&'static BoxedTracer> {
    TRACER.get()
}

pub(crate) fn enabled() -> bool {
    TRACER.get().is_some()
}

/// Records a span for an event to be published. Returns its context; `None` if spans are off.
pub(crate) fn start_create_span(event: &Event) -> Option<SpanContext> {
    let tracer = TRACER.get()?;
    let parent = parent(event.traceparent.as_deref());
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

/// An attempt of a task. Ends on drop.
#[derive(derive_more::Debug)]
#[debug("TaskSpan")]
pub struct TaskSpan(Option<BoxedSpan>);

impl TaskSpan {
    /// Begins a span that continues the trace of the task's cause, and makes the task's consequences its children.
    #[must_use]
    pub fn begin(kind: &EventType, id: &str, traceparent: &mut Option<String>) -> Self {
        let span = TRACER.get().map(|tracer| {
            let builder = SpanBuilder::from_name(format!("run {kind}"))
                .with_kind(SpanKind::Internal)
                .with_attributes([
                    KeyValue::new("doorstep.task.kind", kind.to_string()),
                    KeyValue::new("doorstep.task.id", id.to_owned()),
                ]);
            tracer.build_with_context(builder, &parent(traceparent.as_deref()))
        });
        if let Some(span) = &span {
            *traceparent = Some(write(span.span_context()));
        }
        Self(span)
    }

    /// Marks the span as failed, with a short error type.
    pub fn failed(&mut self, error_type: &'static str) {
        fail(&mut self.0, error_type);
    }
}

/// Returns the context of a span that continues this trace.
pub(crate) fn parent(traceparent: Option<&str>) -> Context {
    match traceparent.and_then(read) {
        Some(cause) => Context::new().with_remote_span_context(cause),
        None => Context::new(),
    }
}

/// Marks a span as failed, with a short error type.
pub(crate) fn fail(span: &mut Option<BoxedSpan>, error_type: &str) {
    if let Some(span) = span {
        span.set_attribute(KeyValue::new("error.type", error_type.to_owned()));
        span.set_status(Status::error(error_type.to_owned()));
    }
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
pub(crate) fn read(traceparent: &str) -> Option<SpanContext> {
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

pub(crate) fn begin(
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

pub(crate) fn destination(name: &str, messages: usize) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("messaging.destination.name", name.to_owned())];
    // The conventions require it only for batches.
    if messages > 1 {
        let count = i64::try_from(messages).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("messaging.batch.message_count", count));
    }
    attributes
}

pub(crate) fn links(contexts: impl Iterator<Item = SpanContext>) -> Vec<Link> {
    contexts
        .take(MAX_LINKS)
        .map(|context| Link::new(context, Vec::new(), 0))
        .collect()
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
