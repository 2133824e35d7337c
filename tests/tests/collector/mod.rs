//! A collector of spans that programs export over OTLP.
#![allow(dead_code, reason = "each test program uses another part of it")]

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message;
use tokio::net::TcpListener;

/// A collector that keeps the received spans by service, and the values of the header `x-team`.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<(String, Span)>>>, Arc<Mutex<Vec<String>>>);

impl Collector {
    /// Starts it, and returns its address.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    /// Returns the team that each export has named.
    pub fn teams(&self) -> Vec<String> {
        let teams = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        teams.clone()
    }

    /// Returns all spans of this service whose names have this prefix.
    pub fn spans(&self, service: &str, name: &str) -> Vec<Span> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|(of, span)| of == service && span.name.starts_with(name))
            .map(|(_, span)| span.clone())
            .collect()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    if let Some(team) = headers.get("x-team") {
        let mut teams = collector.1.lock().unwrap_or_else(PoisonError::into_inner);
        teams.push(team.to_str().unwrap().to_owned());
    }
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut all = collector.0.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|a| a.key == "service.name");
        let service = match &service.unwrap().value.as_ref().unwrap().value {
            Some(Value::StringValue(text)) => text.clone(),
            other => panic!("{other:?} is no name"),
        };
        for scope in resource.scope_spans {
            all.extend(scope.spans.into_iter().map(|span| (service.clone(), span)));
        }
    }
}

/// Returns an attribute as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// Checks that a span has these attributes.
#[track_caller]
pub fn has(span: &Span, attributes: &[(&str, &str)]) {
    for (key, value) in attributes {
        assert_eq!(
            attribute(span, key).as_deref(),
            Some(*value),
            "{key} of {span:?}"
        );
    }
}

/// Parses the bytes of an id.
pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
