//! The span of a batch that is processed.

use doorstep_event::headers::Decoded;
use opentelemetry::{Context, global::BoxedSpan, trace::SpanKind};

use super::delivery::Batch;
use crate::trace::{begin, destination, fail, links, read, tracer};

/// A batch being processed. Ends on drop.
#[derive(derive_more::Debug)]
#[debug("ProcessSpan")]
pub struct ProcessSpan(Option<BoxedSpan>);

impl ProcessSpan {
    /// Begins a span for a received batch.
    #[must_use]
    pub fn begin(batch: &Batch) -> Self {
        let span = tracer().map(|tracer| {
            let queue = batch.queue.as_str();
            let events = batch.deliveries.iter().filter_map(|d| match &d.decoded {
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
        fail(&mut self.0, error_type);
    }
}
