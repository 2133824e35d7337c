//! Liveness and readiness of the gateway.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use doorstep_cli::health::stuck_loops;
use doorstep_messaging::{ConnectionPhase, ConnectionStatus};
use doorstep_telemetry::health::{HealthStatus, Liveness, Readiness};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::AppState,
    domain::{self, UserName},
    limits::Admission,
    readiness_issue::Issue,
};

/// The readiness of the process.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the answer")]
struct Ready {
    /// `ready`; `degraded` if the broker is unavailable or blocks, the store is nearly full, or orders wait for an
    /// operator; `unready` if the store can take nothing.
    #[schema(example = "ready")]
    status: String,
    /// The reasons why it is not ready.
    reasons: Option<Vec<Reason>>,
    /// Always empty, since the gateway consumes from no queue.
    roles: Vec<String>,
}

/// A reason why it is not ready.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the answer")]
struct Reason {
    /// The stable name of the reason.
    #[schema(example = "broker-unavailable")]
    name: String,
    /// The sentence for operators.
    message: String,
}

/// The liveness of the process.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the answer")]
struct Alive {
    /// True if every task makes progress.
    alive: bool,
    /// The tasks that make no progress.
    stuck: Vec<String>,
}

/// Get the liveness of the process.
#[utoipa::path(get, path = "/livez", tag = "health", responses(
    (status = 200, description = "It runs.", body = Alive),
    (status = 503, description = "A task makes no progress: restart the gateway.", body = Alive, content_type = "application/json"),
))]
pub(super) async fn livez(State(app): State<Arc<AppState>>) -> Response {
    let stuck = stuck_loops(domain::NAME, &app.liveness, app.stuck_after);
    let (status, alive) = match stuck.is_empty() {
        true => (StatusCode::OK, true),
        false => (StatusCode::SERVICE_UNAVAILABLE, false),
    };
    json(status, &Liveness { alive, stuck })
}

/// Get the readiness of the gateway.
///
/// While the broker is unavailable it is degraded: it accepts and stores requests that need no reply.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It is ready, or degraded.", body = Ready),
    (status = 503, description = "It can store nothing now.", body = Ready, content_type = "application/json"),
))]
pub(super) async fn readyz(State(app): State<Arc<AppState>>) -> Response {
    // Any read shows whether the store is readable.
    let read = match "nobody".parse::<UserName>() {
        Ok(nobody) => app.store.get(nobody.entity()).await.map(drop),
        Err(_) => Ok(()),
    };
    let mut keeping = app.admission.now();
    if let Err(reason) = read {
        // The client need not have logged in, so the answer does not mention files.
        tracing::warn!(%reason, "the gateway's store cannot be read");
        keeping = Admission::Nothing(Issue::STORE_UNREADABLE);
    }
    let readiness = readiness(keeping, of_broker(&app), app.left.trouble());
    let status = match readiness.status {
        HealthStatus::Unready => StatusCode::SERVICE_UNAVAILABLE,
        HealthStatus::Ready | HealthStatus::Degraded => StatusCode::OK,
    };
    json(status, &readiness)
}

/// Lists the present issues that are known without a read of the store.
pub(crate) fn troubles(app: &AppState) -> Vec<&'static str> {
    let keeping = app.admission.now().trouble().map(|(_, issue)| issue);
    let others = of_broker(app).into_iter().chain(app.left.trouble());
    let issues = keeping.into_iter().chain(others);
    issues.map(|issue| issue.message).collect()
}

fn of_broker(app: &AppState) -> Option<Issue> {
    let publishing = app
        .liveness
        .links()
        .map(|links| links.publish.borrow().clone());
    let asking = app.backends.link();
    broker_trouble(publishing.iter().chain([&asking]))
}

/// Returns the most severe issue of the connections. The log has the details, since the client need not have logged in.
fn broker_trouble<'a>(links: impl Iterator<Item = &'a ConnectionStatus>) -> Option<Issue> {
    let troubles = links.filter_map(|link| match link.phase {
        ConnectionPhase::Connected => None,
        ConnectionPhase::Blocked(_) => Some(Issue::BROKER_BLOCKED),
        ConnectionPhase::Connecting
        | ConnectionPhase::Suspended { .. }
        | ConnectionPhase::Draining
        | ConnectionPhase::Closed => Some(Issue::BROKER_AWAY),
    });
    // An unavailable broker is the more severe issue.
    troubles.min_by_key(|trouble| *trouble != Issue::BROKER_AWAY)
}

fn readiness(keeping: Admission, broker: Option<Issue>, orders: Option<Issue>) -> Readiness {
    let others = broker.into_iter().chain(orders);
    let others = others.map(|trouble| (HealthStatus::Degraded, trouble));
    let mut readiness = Readiness::from_roles(Vec::new());
    for (standing, reason) in keeping.trouble().into_iter().chain(others) {
        readiness.status = readiness.status.max(standing);
        readiness.reasons.push(reason.into());
    }
    readiness
}

/// Returns a response in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(e) => {
            tracing::error!(error = %e, "cannot encode a response as JSON");
            crate::http::Problem::internal().into_response()
        }
    }
}
