//! The spans of a request: the client's and the server's.

use doorstep_event::Request;
use opentelemetry::{
    Context, KeyValue,
    global::BoxedSpan,
    trace::{Span, SpanKind, Status, TraceContextExt},
};

use super::error::CallError;
use crate::trace::{begin, read, tracer, write};

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
                CallError::Rejected(rejection) => rejection.code.clone(),
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
    let tracer = tracer()?;
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
