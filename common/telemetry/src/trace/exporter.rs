//! The way of OTLP's requests to the collector. Runs on the batch processor's own thread, so it may block.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};

use crate::HttpUrl;

/// Timeout of exporting a batch.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Collector {
    url: HttpUrl,
    /// True if the last batch failed. Failures are logged when they begin and end, not for every batch.
    is_failing: AtomicBool,
}

impl Collector {
    pub(super) fn new(url: HttpUrl) -> Self {
        Self {
            url,
            is_failing: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.url.exchange(Ok(request), LIMIT);
        let error = match &answer {
            Ok((200..300, _)) => None,
            Ok((status, _)) => Some(format!("{} replies with status {status}", self.url)),
            Err(error) => Some(format!("{} cannot be reached: {error}", self.url)),
        };
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                tracing::warn!(error, "the collector does not accept spans");
            }
            None if was_failing => {
                tracing::info!(collector = %self.url, "collector accepts spans again");
            }
            _ => (),
        }
        let (status, body) = answer?;
        Ok(Response::builder().status(status).body(body.into())?)
    }
}
