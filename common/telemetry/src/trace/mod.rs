//! Exports spans to an OpenTelemetry collector, in batches and in the background.
//!
//! No task waits for the collector: spans that it does not accept in time are dropped, and their number is bounded. Sampling is configured
//! by OpenTelemetry's own variables, such as `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.01`; without
//! them every span is exported. Headers for the collector, such as a login, are in `OTEL_EXPORTER_OTLP_HEADERS`.

mod exporter;

use std::time::Duration;

use opentelemetry::global;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};

use crate::HttpUrl;
use exporter::Collector;

/// Maximum spans waiting for the collector; later ones are dropped.
const MAX_QUEUE_SIZE: usize = 8192;
const MAX_EXPORT_BATCH_SIZE: usize = 512;
const SCHEDULED_DELAY: Duration = Duration::from_secs(1);
/// Timeout of exporting the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum links of a span: a batch links to this many of its events.
pub const MAX_LINKS: u32 = 128;

/// Exports spans until it is dropped.
#[derive(Debug)]
pub struct Tracing(SdkTracerProvider);

impl Tracing {
    /// Exports all spans of this process to the collector at this address, with `/v1/traces` appended, under this service name unless
    /// `OTEL_SERVICE_NAME` is set. Call once per program, before the first span.
    #[must_use]
    pub fn start(endpoint: HttpUrl, service: &'static str) -> Self {
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let mut provider = SdkTracerProvider::builder()
            .with_max_links_per_span(MAX_LINKS)
            .with_resource(resource.build());
        let url = endpoint.join("/v1/traces");
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(url.to_string())
            .with_http_client(Collector::new(url));
        match exporter.build() {
            Ok(exporter) => {
                let config = BatchConfigBuilder::default()
                    .with_max_queue_size(MAX_QUEUE_SIZE)
                    .with_max_export_batch_size(MAX_EXPORT_BATCH_SIZE)
                    .with_scheduled_delay(SCHEDULED_DELAY)
                    .build();
                let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config);
                provider = provider.with_span_processor(processor.build());
            }
            Err(error) => tracing::error!(
                %error,
                "no spans are exported: correct the variables OTEL_EXPORTER_OTLP_*"
            ),
        }
        let provider = provider.build();
        global::set_tracer_provider(provider.clone());
        Self(provider)
    }
}

impl Drop for Tracing {
    /// Exports the remaining spans, in bounded time.
    fn drop(&mut self) {
        if let Err(e) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::debug!(error = %e, "the last spans were not exported");
        }
    }
}
