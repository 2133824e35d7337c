//! The health endpoint: a thread with its own runtime, so that it responds even if everything else is stuck.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{
    runtime::Builder,
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{HealthStatus, Liveness, Probe, limited_listener::LimitedListener};
use crate::metrics::Metrics;

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A health endpoint that serves until it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// Dropping it stops the server.
    _stop: watch::Sender<()>,
}

#[derive(Clone)]
struct EndpointState {
    probe: Arc<dyn Probe>,
    metrics: Metrics,
}

impl Endpoint {
    /// Serves on this address, and runs `watching` beside it, which updates the probe. Port 0 selects a free one.
    ///
    /// # Errors
    /// Fails if the address cannot be bound, or the system provides no thread.
    pub fn start(
        address: SocketAddr,
        metrics: Metrics,
        probe: Arc<dyn Probe>,
        watching: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = watch::channel(());
        let state = EndpointState { probe, metrics };
        let work = async move {
            let serving = async {
                tokio::spawn(watching);
                tokio::spawn(run_upkeep(state.metrics.clone()));
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(LimitedListener::new(listener), router(state)).await
            };
            // At the end of the program, responses in progress are cut off, and the runtime drops everything else.
            tokio::select! {
                ended = serving => {
                    if let Err(e) = ended {
                        tracing::error!(error = %e, "the health endpoint ended");
                    }
                }
                _ = stopped.changed() => {}
            }
        };
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || runtime.block_on(work))?;
        Ok(Self {
            address,
            _stop: stop,
        })
    }

    /// Returns the listening address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn run_upkeep(metrics: Metrics) {
    let mut timer = interval(UPKEEP_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        metrics.tidy();
    }
}

fn router(state: EndpointState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn livez(State(state): State<EndpointState>) -> Response {
    let stuck = state.probe.stuck();
    let liveness = Liveness {
        alive: stuck.is_empty(),
        stuck,
    };
    json(liveness.alive, &liveness)
}

async fn readyz(State(state): State<EndpointState>) -> Response {
    let readiness = state.probe.readiness();
    json(readiness.status != HealthStatus::Unready, &readiness)
}

async fn metrics(State(state): State<EndpointState>) -> Response {
    state.probe.refresh();
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        state.metrics.render(),
    )
        .into_response()
}

fn json(is_healthy: bool, body: &impl Serialize) -> Response {
    let status = if is_healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match serde_json::to_string(body) {
        Ok(text) => {
            let content_type = [(header::CONTENT_TYPE, "application/json")];
            (status, content_type, text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
