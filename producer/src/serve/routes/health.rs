//! Whether the gateway runs, and whether it can be relied on.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use doorstep_telemetry::health::{Liveness, Readiness, Standing};
use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::{app::App, role::UserName};

/// How the process is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the answer")]
struct Ready {
    /// `ready`; `degraded` while the broker is away; `unready` while the store is.
    #[schema(example = "ready")]
    status: String,
    /// What keeps it from being ready.
    reasons: Option<Vec<String>>,
    /// Always empty: there are no queues here.
    roles: Vec<String>,
}

/// That the process runs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the answer")]
struct Alive {
    /// Always true: who answers, lives.
    alive: bool,
    /// What makes no progress.
    stuck: Vec<String>,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/livez", tag = "health", responses(
    (status = 200, description = "It runs.", body = Alive),
))]
pub(super) async fn livez() -> Response {
    let alive = Liveness {
        alive: true,
        stuck: Vec::new(),
    };
    json(StatusCode::OK, &alive)
}

/// Whether the gateway can be relied on. While the broker is away it is degraded: what needs no answer is accepted and kept.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It is ready, or degraded.", body = Ready),
    (status = 503, description = "It cannot keep anything now.", body = Ready, content_type = "application/json"),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let mut readiness = Readiness::of(Vec::new());
    // Any read tells whether the store can be read.
    let read = match "nobody".parse::<UserName>() {
        Ok(nobody) => app.books.entry(nobody.entity()).await.map(drop),
        Err(_) => Ok(()),
    };
    if let Err(e) = read {
        readiness.status = Standing::Unready;
        readiness.reasons.push(e.to_string());
    }
    if !app.roles.is_connected() {
        readiness.status = readiness.status.max(Standing::Degraded);
        readiness.reasons.push("the broker is away".to_owned());
    }
    let status = match readiness.status {
        Standing::Unready => StatusCode::SERVICE_UNAVAILABLE,
        Standing::Ready | Standing::Degraded => StatusCode::OK,
    };
    json(status, &readiness)
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(e) => {
            tracing::error!(reason = %e, "an answer has no form in JSON");
            crate::serve::http::Problem::internal().into_response()
        }
    }
}
