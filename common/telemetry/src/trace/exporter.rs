//! Spans as OTLP over HTTP, in protobuf. Runs on the thread that the batches have for themselves, so it may block.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use prost::Message;

use crate::HttpUrl;

/// How long the collector may take for a batch.
const LIMIT: Duration = Duration::from_secs(5);

/// The way to the collector.
pub(super) struct OtlpExporter {
    endpoint: HttpUrl,
    resource: ResourceAttributesWithSchema,
    /// Whether the last batch was not taken: told when it begins and when it ends, not with every batch.
    is_failing: AtomicBool,
}

impl OtlpExporter {
    pub(super) fn new(endpoint: HttpUrl) -> Self {
        Self {
            endpoint,
            resource: ResourceAttributesWithSchema::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    fn hand_over(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let body = request.encode_to_vec();
        match self.endpoint.post("application/x-protobuf", &body, LIMIT) {
            Ok((200..300, _)) => Ok(()),
            Ok((status, _)) => Err(format!("{} answers with status {status}", self.endpoint)),
            Err(e) => Err(format!("{} cannot be reached: {e}", self.endpoint)),
        }
    }
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpExporter")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl SpanExporter for OtlpExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        match self.hand_over(batch) {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector = %self.endpoint, "spans are taken again");
                }
                Ok(())
            }
            Err(reason) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        spans,
                        reason,
                        "spans are dropped: the collector does not take them"
                    );
                }
                Err(OTelSdkError::InternalFailure(reason))
            }
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
