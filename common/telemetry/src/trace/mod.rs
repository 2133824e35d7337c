//! Spans, handed to an OpenTelemetry collector in batches and in the background.
//!
//! Nothing waits for the collector: spans that it does not take in time are dropped, and what there may be of them is bounded.
//! Sampling is by OpenTelemetry's own variables, such as `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with
//! `OTEL_TRACES_SAMPLER_ARG=0.01`; without them every span is handed over.

mod exporter;

use std::time::Duration;

use opentelemetry::global;
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};

use crate::HttpUrl;
use exporter::OtlpExporter;

/// The most spans that wait for the collector; later ones are dropped.
const MAX_QUEUE_SIZE: usize = 8192;
/// The most spans that are handed over at a time.
const MAX_EXPORT_BATCH_SIZE: usize = 512;
/// How often they are handed over.
const SCHEDULED_DELAY: Duration = Duration::from_secs(1);
/// How long the last spans may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// The most links of a span: a batch names so many of the events in it.
pub const MAX_LINKS: u32 = 128;

/// Hands spans over until it is dropped.
#[derive(Debug)]
pub struct Tracing(SdkTracerProvider);

impl Tracing {
    /// Hands all spans of this process to the collector at this address, `/v1/traces` being put behind it, as those of this service
    /// unless `OTEL_SERVICE_NAME` says otherwise. For once in a program, before anything makes spans.
    #[must_use]
    pub fn start(endpoint: HttpUrl, service: &'static str) -> Self {
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUE_SIZE)
            .with_max_export_batch_size(MAX_EXPORT_BATCH_SIZE)
            .with_scheduled_delay(SCHEDULED_DELAY)
            .build();
        let exporter = OtlpExporter::new(endpoint.join("/v1/traces"));
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_max_links_per_span(MAX_LINKS)
            .with_resource(resource.build())
            .build();
        global::set_tracer_provider(provider.clone());
        Self(provider)
    }
}

impl Drop for Tracing {
    /// Hands over what is left, in bounded time.
    fn drop(&mut self) {
        if let Err(e) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::debug!(reason = %e, "the last spans were not handed over");
        }
    }
}
