//! The health of a process's running roles: polled every few seconds, and served on `--health-addr`.
//!
//! - `poller` polls the broker and the stores, on the endpoint's own thread, and `policies` the management API.
//! - `readiness` derives a role's health from the result, as a pure function.
//! - `metrics` exports it.

mod metrics;
mod policy_poller;
mod poller;
mod readiness;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorstep_messaging::{
    BrokerSettings, ConnectionStatus, ConsumerStats, Namespace, RpcClientStats,
};
use doorstep_runtime::{
    runner::{Liveness, ProgressWatch, RoleConnections, RoleStatus, RunningRole},
    telemetry,
};
use doorstep_store::SqliteStore;
use doorstep_telemetry::{
    health::{Endpoint, HealthStatus, Probe, Readiness},
    metrics::Metrics,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{CliError, management::Management};
use policy_poller::Policies;
use poller::Polled;
use readiness::{ConsumerLink, RoleSnapshot, evaluate, published};

/// The interval at which the program's runtime proves that it still runs tasks.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// The default time limit of one step of a loop.
pub const LIVENESS_TIMEOUT: Duration = Duration::from_mins(2);

/// The address to serve on, and the limit after which a loop counts as stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// The address to serve on.
    pub address: SocketAddr,
    /// The time limit of one step of a loop.
    pub stuck_after: Duration,
}

/// A role that is monitored.
struct MonitoredRole {
    name: &'static str,
    store: SqliteStore,
    status: watch::Receiver<RoleStatus>,
    liveness: Arc<Liveness>,
    polled: Mutex<Polled>,
    policies: Mutex<Policies>,
}

impl MonitoredRole {
    fn snapshot(&self) -> RoleSnapshot {
        let status = self.status.borrow().clone();
        let links = self.liveness.links();
        let meters = links.map(|links| [&links.consumed, &links.quarantined]);
        let consumed: Vec<_> = meters
            .into_iter()
            .flatten()
            .flatten()
            .map(ConsumerStats::read)
            .collect();
        let way =
            |way: fn(&RoleConnections) -> Option<&watch::Receiver<ConnectionStatus>>| match links
                .map(way)
            {
                None => ConsumerLink::not_begun(),
                Some(None) => ConsumerLink::NoQueue,
                Some(Some(link)) => ConsumerLink::from_status(&link.borrow()),
            };
        RoleSnapshot {
            role: self.name,
            phase: status.phase,
            degraded: status.degraded,
            consume: way(|links| links.consume.as_ref()),
            quarantine: way(|links| links.quarantine.as_ref()),
            unsettled: consumed.iter().map(|counts| counts.unacked).sum(),
            oldest_unsettled: consumed
                .iter()
                .filter_map(|counts| counts.oldest_unacked)
                .min()
                .map(|since| since.elapsed()),
            polled: self.polled().clone(),
            policies: self.policies().reasons(),
        }
    }

    fn polled(&self) -> std::sync::MutexGuard<'_, Polled> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policies(&self) -> std::sync::MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection by which a process calls other roles.
#[derive(Debug, Clone)]
pub struct RpcClientHealth {
    /// The connection's status.
    pub link: watch::Receiver<ConnectionStatus>,
    /// The calls made over it.
    pub stats: RpcClientStats,
}

/// The state of the process, as far as it is monitored.
struct ProcessHealth {
    roles: Vec<MonitoredRole>,
    rpc_client: Option<RpcClientHealth>,
    namespace: Namespace,
    stuck_after: Duration,
    heart: Arc<RuntimeHeartbeat>,
}

impl Probe for ProcessHealth {
    fn stuck(&self) -> Vec<String> {
        let mut stuck = Vec::new();
        let silent = self.heart.stalled_for();
        if silent > self.stuck_after {
            stuck.push(format!("no task of the program has run for {silent:.0?}"));
        }
        for role in &self.roles {
            stuck.extend(stuck_loops(role.name, &role.liveness, self.stuck_after));
        }
        stuck
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::from_roles(
            self.roles
                .iter()
                .map(|role| evaluate(role.snapshot()))
                .collect(),
        );
        if let Some(rpc_client) = &self.rpc_client
            && let Some(trouble) = readiness::rpc_degraded_reason(&rpc_client.link.borrow())
        {
            readiness.status = readiness.status.max(HealthStatus::Degraded);
            readiness.reasons.push(published(trouble));
        }
        readiness
    }

    fn refresh(&self) {
        if let (Some(rpc_client), Some(role)) = (&self.rpc_client, self.roles.first()) {
            metrics::export_rpc_client(role.name, rpc_client);
        }
        for role in &self.roles {
            metrics::export_health(role.name, &evaluate(role.snapshot()));
            metrics::export_done(role.name, &role.status.borrow().done);
            if let Some(links) = role.liveness.links() {
                metrics::export_connections(role.name, &self.namespace, links);
            }
            let polled = role.polled();
            if let Some(waiting) = polled.waiting {
                metrics::export_waiting(role.name, waiting);
            }
            if let Some(summary) = &polled.summary {
                metrics::export_store(role.name, summary);
            }
        }
    }
}

/// Registers the descriptions of the metrics of roles.
pub(crate) fn describe() {
    metrics::describe();
    telemetry::describe();
}

/// Describes each loop of a role whose present step takes longer than that.
#[must_use]
pub fn stuck_loops(role: &str, liveness: &Liveness, after: Duration) -> Vec<String> {
    let loops: [(&str, &ProgressWatch); 3] = [
        ("a batch is being worked", &liveness.engine),
        ("the outbox is being sent", &liveness.relay),
        ("a heartbeat of tasks is being written", &liveness.tasks),
    ];
    loops
        .into_iter()
        .filter_map(|(what, pulse)| {
            let busy = pulse.busy_for().filter(|busy| *busy > after)?;
            Some(format!("{role}: {what} since {busy:.0?}"))
        })
        .collect()
}

/// The proof that the program's runtime still runs tasks.
struct RuntimeHeartbeat {
    born: Instant,
    /// Milliseconds from creation to the last beat.
    beat: AtomicU64,
}

impl RuntimeHeartbeat {
    /// Beats on the current runtime until that ends.
    fn start() -> Arc<Self> {
        let heart = Arc::new(Self {
            born: Instant::now(),
            beat: AtomicU64::new(0),
        });
        let beating = Arc::clone(&heart);
        tokio::spawn(async move {
            let mut timer = interval(HEARTBEAT);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                let now = u64::try_from(beating.born.elapsed().as_millis()).unwrap_or(u64::MAX);
                beating.beat.store(now, Ordering::Relaxed);
            }
        });
        heart
    }

    fn stalled_for(&self) -> Duration {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(beat)
    }
}

/// Installs the recorder of metrics, if they are to be served. Has to come before the roles start: counters created
/// without a recorder are lost.
///
/// # Errors
/// A recorder is already installed.
pub fn install_metrics(
    settings: Option<HealthSettings>,
) -> Result<Option<(HealthSettings, Metrics)>, CliError> {
    let Some(settings) = settings else {
        return Ok(None);
    };
    let metrics = Metrics::install().map_err(|e| CliError::internal(e.to_string()))?;
    Ok(Some((settings, metrics)))
}

/// Serves the health of these roles until the returned value is dropped. If the process calls other roles over a
/// connection of its own, its health is reported under the first role. With `management`, a policy that can lose
/// messages of a role's queue makes the role degraded.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve<'a>(
    (settings, metrics): (HealthSettings, Metrics),
    broker: &BrokerSettings,
    management: Option<Management>,
    roles: impl Iterator<Item = (&'a RunningRole, SqliteStore)>,
    rpc_client: Option<RpcClientHealth>,
) -> Result<Endpoint, CliError> {
    let roles = roles
        .map(|(role, store)| MonitoredRole {
            name: role.name(),
            store,
            status: role.watch(),
            liveness: role.liveness(),
            polled: Mutex::new(Polled::nothing_yet()),
            policies: Mutex::default(),
        })
        .collect();
    describe();
    let process = Arc::new(ProcessHealth {
        roles,
        rpc_client,
        namespace: broker.namespace.clone(),
        stuck_after: settings.stuck_after,
        heart: RuntimeHeartbeat::start(),
    });
    let looking = {
        let look = poller::poll_loop(Arc::clone(&process), broker.clone());
        let policies = policy_poller::poll_loop(Arc::clone(&process), management);
        async {
            tokio::join!(look, policies);
        }
    };
    let endpoint = Endpoint::start(settings.address, metrics, process, looking).map_err(|e| {
        CliError::failed(format!(
            "cannot answer on {}: {e}: give another --health-addr (DOORSTEP_HEALTH_ADDR)",
            settings.address
        ))
    })?;
    tracing::info!(address = %endpoint.address(), "answering /livez, /readyz and /metrics");
    Ok(endpoint)
}
