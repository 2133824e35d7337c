//! The middleware of every request: a request id, a log line, a permit, a timeout, and a response in any case.
//!
//! tower-http has layers for most of these. One function is shorter than their stack, and the log line needs what all
//! of them know.

use std::{net::IpAddr, panic::AssertUnwindSafe, time::Duration};

use axum::{
    Extension,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hyper::body::Body as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    origin::Origin,
    problem::{Code, Problem},
    rejection_log::{self, AskedAs, RejectedRequest, RejectionLog},
    server::ConnectInfo,
};
use crate::{
    access_log::{AccessLog, AnsweredRequest},
    limits::{ConcurrencyLimit, PROBE_PATHS},
};

/// The route of requests that match none.
const NO_ROUTE: &str = "none";
/// The header of the request id, in requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The timeout of a request; a live feed has begun by then.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// The `Retry-After` when no permit is free.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The limit of a request id from a client, in bytes.
const MAX_ID: usize = 100;

/// Headers against caches that store a response, and against browsers that guess its type.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFFING: HeaderValue = HeaderValue::from_static("nosniff");
/// The path of the OpenAPI document, which is the same for all clients.
pub(crate) const DESCRIPTION: &str = "/openapi.json";

/// The checks of every request before its routing.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    places: ConcurrencyLimit,
    proxy: Option<IpAddr>,
    rejections: RejectionLog,
    access_log: Option<AccessLog>,
}

impl Entrance {
    /// Creates the checks with a limit of requests in flight, behind this proxy if there is one.
    pub(crate) fn new(
        most: usize,
        proxy: Option<IpAddr>,
        rejections: RejectionLog,
        access_log: Option<AccessLog>,
    ) -> Self {
        Self {
            places: ConcurrencyLimit::new(most),
            proxy,
            rejections,
            access_log,
        }
    }
}

/// Handles a request: runs the checks, the handler, and the log line.
pub(crate) async fn handle(
    State(entrance): State<Entrance>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(&request);
    let method = request.method().clone();
    // The pattern of the route and not the path, since paths contain names.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(NO_ROUTE, MatchedPath::as_str)
        .to_owned();
    let user_agent = match &entrance.access_log {
        Some(_) => request.headers().get(header::USER_AGENT).cloned(),
        None => None,
    };
    let origin = Origin::from_headers(entrance.proxy, peer.ip(), request.headers());
    let asked_as = AskedAs::default();
    request.extensions_mut().insert(origin);
    request.extensions_mut().insert(asked_as.clone());
    let span = tracing::info_span!("request", id = %id.to_str().unwrap_or_default());
    let began = Instant::now();
    let mut response = answer(entrance.places.for_route(&route), request, next)
        .instrument(span.clone())
        .await;
    let duration = began.elapsed();
    if let Some(log) = &entrance.access_log {
        log.record(AnsweredRequest {
            method: method.clone(),
            route: Some(route.clone()).filter(|route| route != NO_ROUTE),
            status: response.status(),
            bytes: response.body().size_hint().exact(),
            duration,
            client: origin.0,
            user_agent,
        });
    }
    span.in_scope(|| {
        log_response(&method, &route, response.status(), duration);
        // A failed probe is a report and not a rejection.
        if rejection_log::is_logged(response.status()) && !PROBE_PATHS.contains(&route.as_str()) {
            let code = response.extensions().get::<Code>();
            let rejection = RejectedRequest {
                code: code.map_or("none".into(), |Code(code)| code.clone()),
                name: asked_as.get().cloned(),
                address: origin.0.to_canonical(),
                route: route.clone(),
            };
            entrance.rejections.record(response.status(), rejection);
        }
    });
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFFING);
    if route != DESCRIPTION {
        // Nearly all responses are private, and a cache would only make the others stale.
        headers.insert(header::CACHE_CONTROL, NOT_KEPT);
    }
    response
}

async fn answer(places: &Semaphore, request: Request, next: Next) -> Response {
    let Ok(_place) = places.try_acquire() else {
        return Problem::unavailable("overloaded", "too many requests are in flight", RETRY_AFTER)
            .into_response();
    };
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind();
    match timeout(REQUEST_TIME, answered).await {
        Ok(Ok(response)) => response,
        // The panic was logged when it happened.
        Ok(Err(_)) => Problem::internal().into_response(),
        Err(_) => Problem::unavailable(
            "timed_out",
            format!("there was no response within {} s", REQUEST_TIME.as_secs()),
            RETRY_AFTER,
        )
        .into_response(),
    }
}

/// Returns the response for a path with another method. The router adds the allowed methods.
pub(crate) fn method_not_allowed() -> Response {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "the path has another method, see Allow",
    )
    .into_response()
}

fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(REQUEST_ID).filter(|value| {
        let text = value.as_bytes();
        (1..=MAX_ID).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let minted = Uuid::now_v7().simple().to_string();
        // Hexadecimal digits are always valid in a header.
        HeaderValue::from_str(&minted).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

fn log_response(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let duration_ms = took.as_secs_f64() * 1000.0;
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%method, route, status = status.as_u16(), duration_ms, "answered");
    } else {
        tracing::debug!(%method, route, status = status.as_u16(), duration_ms, "answered");
    }
}
