//! Exports spans as OTLP over HTTP, in protobuf. Runs on the batch processor's own thread, so it may block.

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

/// Timeout of exporting a batch.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) struct OtlpExporter {
    endpoint: HttpUrl,
    resource: ResourceAttributesWithSchema,
    /// True if the last batch failed. Failures are logged when they begin and end, not for every batch.
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

    fn send(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let body = request.encode_to_vec();
        match self.endpoint.post("application/x-protobuf", &body, LIMIT) {
            Ok((200..300, _)) => Ok(()),
            Ok((status, _)) => Err(format!("{} replies with status {status}", self.endpoint)),
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
        match self.send(batch) {
            Ok(()) => {
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector = %self.endpoint, "collector accepts spans again");
                }
                Ok(())
            }
            Err(reason) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        spans,
                        reason,
                        "dropping spans: the collector does not accept them"
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
