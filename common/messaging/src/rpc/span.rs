//! The spans of a request: the client's and the server's.

use doorstep_event::Request;
use opentelemetry::{
    KeyValue,
    global::BoxedSpan,
    trace::{Span, SpanKind},
};

use super::error::CallError;
use crate::trace::{begin, fail, parent, tracer, write};

/// A call to a role, by the client.
pub(crate) struct ClientSpan(Option<BoxedSpan>);

impl ClientSpan {
    /// Begins a span, and makes the request its child.
    pub(crate) fn begin(request: &mut Request) -> Self {
        Self(of_request(request, SpanKind::Client, "ask"))
    }

    pub(crate) fn end(mut self, error: Option<&CallError>) {
        if let Some(error) = error {
            let error_type = match error {
                CallError::Rejected(rejection) => &rejection.code,
                CallError::NoResponder { .. } => "no_responder",
                CallError::TimedOut => "timed_out",
                CallError::Overloaded { .. } => "overloaded",
                CallError::Unreachable { .. } => "unreachable",
                CallError::Malformed(_) => "malformed",
            };
            fail(&mut self.0, error_type);
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
        fail(&mut self.0, error_type);
    }
}

fn of_request(request: &mut Request, kind: SpanKind, operation: &'static str) -> Option<BoxedSpan> {
    let tracer = tracer()?;
    let parent = parent(request.traceparent.as_deref());
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
