//! The endpoint: a thread with a runtime of its own, so that it still answers when everything else is stuck.

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

/// How often measured values are sorted into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// Its end is the word to stop.
    _stop: watch::Sender<()>,
}

#[derive(Clone)]
struct EndpointState {
    probe: Arc<dyn Probe>,
    metrics: Metrics,
}

impl Endpoint {
    /// Answers on this address, and runs `watching`, which keeps the probe's knowledge fresh, beside it. Port 0 is any free one.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system gives no thread.
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
        let known = EndpointState { probe, metrics };
        let work = async move {
            let served = async {
                tokio::spawn(watching);
                tokio::spawn(run_upkeep(known.metrics.clone()));
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(LimitedListener::new(listener), router(known)).await
            };
            // Whoever is being answered at the very end of a program is cut off, and the rest goes with the runtime.
            tokio::select! {
                ended = served => {
                    if let Err(e) = ended {
                        tracing::error!(reason = %e, "the health endpoint has ended");
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

    /// Where it listens.
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

fn router(known: EndpointState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(known)
}

async fn livez(State(known): State<EndpointState>) -> Response {
    let stuck = known.probe.stuck();
    let liveness = Liveness {
        alive: stuck.is_empty(),
        stuck,
    };
    json(liveness.alive, &liveness)
}

async fn readyz(State(known): State<EndpointState>) -> Response {
    let readiness = known.probe.readiness();
    json(readiness.status != HealthStatus::Unready, &readiness)
}

async fn metrics(State(known): State<EndpointState>) -> Response {
    known.probe.refresh();
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], known.metrics.render()).into_response()
}

fn json(is_good: bool, body: &impl Serialize) -> Response {
    let status = if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match serde_json::to_string(body) {
        Ok(text) => {
            let form = [(header::CONTENT_TYPE, "application/json")];
            (status, form, text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
