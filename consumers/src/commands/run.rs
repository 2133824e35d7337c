//! `consumers run`: starts roles, monitors them, and stops them on request, once idle, or when one has failed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use doorstep_cli::{CliError, ExitReason, ShutdownSignal, health, management::Management};
use doorstep_event::Timestamp;
use doorstep_messaging::{
    BrokerSettings, ConnectErrorKind, Finding, Inspector, check_version, verify,
};
use doorstep_runtime::{
    HandlerLock, Limits,
    runner::{Phase, RoleStatus, RunError, RunSettings, RunningRole},
};
use doorstep_store::{SqliteStore, Store, Summary};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::attention::{self, FullRole};
use crate::{
    cli::RunArgs,
    commands::log_forced_exit,
    idle::{IdleWatch, Intake, RoleSample, Sample},
    roles::{MailResources, RoleEntry, RoleOutside, RoleStore},
    stores,
};

/// The time beyond its shutdown timeout that a role may take to end.
const JOIN_MARGIN: Duration = Duration::from_secs(10);
/// The interval between two attempts to check the queues at a broker that is still starting.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);
/// The time limit for closing a store.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The minimum interval between two idle checks.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The minimum of idle checks per window, so that short activity is not missed between two of them.
const POLLS_PER_WINDOW: u32 = 5;

/// The settings of `run`.
#[derive(Debug)]
pub(crate) struct RunJob {
    pub(crate) args: RunArgs,
    pub(crate) roles: Vec<RoleEntry>,
    pub(crate) broker: BrokerSettings,
    /// The broker's management API, if it is configured.
    pub(crate) management: Option<Management>,
    pub(crate) limits: Limits,
    pub(crate) mail: MailResources,
}

/// A role that was started, with its store.
struct RunningProcess {
    role: RoleEntry,
    store: RoleStore,
    running: RunningRole,
}

/// The reason why the roles are stopped.
enum ExitCause {
    /// The user asked for it.
    Wanted,
    /// A role has ended by itself, which means a permanent failure.
    Failed,
    /// All processable work is done. These roles are full, and take no more deliveries.
    Idle(Vec<FullRole>),
}

/// Runs roles until something ends them.
///
/// # Errors
/// A store cannot be opened, or a role has failed permanently; with `--exit-when-idle` also work left to an operator, or an
/// interruption.
pub(crate) async fn run(job: RunJob) -> Result<(), CliError> {
    let mut stop = ShutdownSignal::listen(log_forced_exit)?;
    let collected = health::install_metrics(job.args.health.settings())?;
    tokio::select! {
        checked = check_before_migration(&job) => checked?,
        () = stop.recv() => return stopped(&job),
    }
    let crew = start(&job)?;
    if let Some(member) = crew.first() {
        tokio::spawn(warn_if_unsupported(
            job.broker.clone(),
            member.running.watch(),
        ));
    }
    // Serves to the very end, since the stop of a role is worth monitoring, too.
    let endpoint = match collected {
        Some(collected) => {
            let roles = crew.iter().map(|m| (&m.running, m.store.clone()));
            let management = job.management.clone();
            Some(health::serve(
                collected,
                &job.broker,
                management,
                roles,
                None,
            )?)
        }
        None => None,
    };
    // Each may be cancelled: they only watch.
    let end = tokio::select! {
        () = stop.recv() => ExitCause::Wanted,
        () = any_stopped(&crew) => ExitCause::Failed,
        full = all_idle(&crew, &job) => ExitCause::Idle(full),
    };
    if matches!(end, ExitCause::Wanted) {
        tracing::info!(shutdown_timeout = ?job.args.shutdown_timeout, "stopping; a second signal ends at once");
    }
    for member in &crew {
        member.running.stop();
    }
    let mut failures = BTreeMap::new();
    let mut stores = Vec::new();
    for member in crew {
        let RunningProcess {
            role,
            store,
            running,
        } = member;
        if let Err(failure) = ended(&job, role, running).await {
            // Roles mostly fail together and for one reason, which is reported once.
            failures.insert(failure.to_string(), failure.reason);
        }
        stores.push((role.name, store));
    }
    let trouble = match &end {
        ExitCause::Idle(full) if failures.is_empty() => attention::report(&stores, full).await,
        ExitCause::Idle(_) | ExitCause::Wanted | ExitCause::Failed => Ok(()),
    };
    // The endpoint holds the stores open as well.
    drop(endpoint);
    for (_, store) in stores {
        // The files are complete without it; it only tidies them.
        let _ = timeout(CLOSE_WITHIN, store.close()).await;
    }
    if let Some(failure) = combine(&failures) {
        return Err(failure);
    }
    match end {
        ExitCause::Idle(_) => trouble,
        ExitCause::Wanted => stopped(&job),
        ExitCause::Failed => Err(CliError::internal(
            "a role has ended unexpectedly and without a reason: please report this with its log",
        )),
    }
}

/// Returns the result of a stop by the user.
fn stopped(job: &RunJob) -> Result<(), CliError> {
    if job.args.exit_when_idle.is_some() {
        return Err(CliError::interrupted(
            "interrupted before the queues were empty; nothing is lost, the rest waits in the queues",
        ));
    }
    Ok(())
}

/// Checks that this version can use the queues before it migrates a store of an earlier version. Otherwise neither version could go on: only
/// the earlier one can drain its queues, and it does not open a migrated store.
async fn check_before_migration(job: &RunJob) -> Result<(), CliError> {
    let mut older = Vec::new();
    for role in &job.roles {
        if SqliteStore::needs_migration(&job.args.store.folder, role.name)? {
            older.push(role.name);
        }
    }
    if older.is_empty() {
        return Ok(());
    }
    let older = older.join(", ");
    let topology = doorstep_cli::topology(&job.broker.namespace);
    // Like a role, it waits for a broker that is still starting.
    let deadline = Instant::now() + job.broker.start_timeout;
    let verified = loop {
        match verify(&job.broker, &topology).await {
            Ok(verified) => break verified,
            Err(e) if e.is_permanent() || Instant::now() >= deadline => {
                return Err(CliError::broker(format!(
                    "an earlier version wrote the stores of {older}, which are migrated only after the queues were checked: {e}"
                )));
            }
            Err(error) => {
                tracing::info!(stores = older, %error, "waiting for the broker before stores are migrated");
                sleep(VERIFY_INTERVAL).await;
            }
        }
    };
    let differs = |finding: &Finding| matches!(finding, Finding::QueueDiffers { .. });
    match verified.findings.into_iter().find(differs) {
        None => Ok(()),
        Some(finding) => Err(CliError::broker(format!(
            "{finding}. The stores of {older} were not migrated: the version that wrote them can still use them"
        ))),
    }
}

/// Opens all stores before it starts any role: if one store is unusable, nothing is started.
fn start(job: &RunJob) -> Result<Vec<RunningProcess>, CliError> {
    let topology = doorstep_cli::topology(&job.broker.namespace);
    let process = HandlerLock::default();
    let opened = job
        .roles
        .iter()
        .map(|role| stores::create(&job.args.store.folder, role.name).map(|store| (*role, store)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(opened
        .into_iter()
        .map(|(role, store)| {
            tracing::info!(
                role = role.name,
                queue = %job.broker.namespace.role_queue(role.name, 0),
                store = %SqliteStore::path(&job.args.store.folder, role.name).display(),
                source = %store.source(),
                "starting"
            );
            let settings = RunSettings {
                broker: job.broker.clone(),
                topology: topology.clone(),
                limits: job.limits.clone(),
                process: process.clone(),
                shutdown_timeout: job.args.shutdown_timeout,
                requires_owner_record: !job.args.without_owner_record,
            };
            let outside = RoleOutside {
                folder: &job.args.store.folder,
                own: &job.args.own,
                mail: &job.mail,
            };
            let running = (role.start)(store.clone(), settings, outside);
            tokio::spawn(log_when_consuming(role.name, running.watch()));
            RunningProcess {
                role,
                store,
                running,
            }
        })
        .collect())
}

/// Logs once that a role consumes. Ends with the role if it never does.
async fn log_when_consuming(role: &'static str, mut status: watch::Receiver<RoleStatus>) {
    let taking = status
        .wait_for(|status| status.phase != Phase::Starting)
        .await;
    if taking.is_ok_and(|status| status.phase == Phase::Consuming) {
        tracing::info!(role, "taking deliveries");
    }
}

/// Warns of a broker that lacks features which the queues need. The roles report all other differences, since they
/// declare the queues.
async fn warn_if_unsupported(broker: BrokerSettings, mut status: watch::Receiver<RoleStatus>) {
    // Before that there may be no broker.
    let taking = status.wait_for(|status| status.phase != Phase::Starting);
    if taking.await.is_err() {
        return;
    }
    if let Some(finding) = check_version(&broker).await {
        tracing::warn!("{finding}");
    }
}

/// Waits until any role has ended. Cancel-safe.
async fn any_stopped(crew: &[RunningProcess]) {
    let ends = crew.iter().map(|member| async move {
        let mut watch = member.running.watch();
        // A role whose task is gone has ended, too.
        let stopped = watch.wait_for(|status| status.phase == Phase::Stopped);
        let _ = stopped.await;
    });
    ends.collect::<FuturesUnordered<_>>().next().await;
}

/// Waits until all roles were idle for the whole window; for ever if there is no window. Returns the roles that are
/// full then. Cancel-safe.
async fn all_idle(crew: &[RunningProcess], job: &RunJob) -> Vec<FullRole> {
    let Some(window) = job.args.exit_when_idle else {
        return std::future::pending().await;
    };
    let mut watch = IdleWatch::new(window, job.broker.longest_heartbeat());
    let mut inspector = None;
    let mut told = false;
    let mut timer = interval((window / POLLS_PER_WINDOW).min(POLL_INTERVAL));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let began = Instant::now();
        let seen = sample(crew, &job.broker, &mut inspector).await;
        if !told && is_beside_others(seen.as_deref()) {
            told = true;
            tracing::info!(
                "another process works these queues, too: all has to be quiet until it would be missed"
            );
        }
        let look = Sample {
            began,
            ended: Instant::now(),
            roles: seen,
        };
        if watch.observe(&look) {
            tracing::info!(window = ?window, "all is worked");
            return full(crew, look.roles.as_deref());
        }
    }
}

fn is_beside_others(seen: Option<&[RoleSample]>) -> bool {
    seen.is_some_and(|roles| roles.iter().any(|role| role.shares_queue))
}

/// Returns the roles that were sampled as full.
fn full(crew: &[RunningProcess], seen: Option<&[RoleSample]>) -> Vec<FullRole> {
    let roles = crew.iter().zip(seen.unwrap_or_default());
    roles
        .filter_map(|(member, look)| match look.takes {
            Intake::Full(table) => Some(FullRole {
                role: member.role.name,
                table,
                ready: look.ready,
            }),
            Intake::Yes | Intake::NotNow => None,
        })
        .collect()
}

async fn sample(
    crew: &[RunningProcess],
    broker: &BrokerSettings,
    inspector: &mut Option<Inspector>,
) -> Option<Vec<RoleSample>> {
    if inspector.is_none() {
        // The roles themselves report an unreachable broker.
        let name = format!("{} run: looks for idle queues", broker.namespace);
        *inspector = Inspector::connect(broker, &name).await.ok();
    }
    let mut looks = Vec::with_capacity(crew.len());
    for member in crew {
        // The queue first: a message that leaves it from here on shows as unacked or as a commit.
        let ready = match inspector {
            Some(inspector) => ready(inspector, broker, member.role.name).await,
            None => None,
        };
        let status = member.running.status();
        let link = Consuming::sample(&member.running);
        let summary = member.store.summary(Timestamp::now()).await.ok()?;
        looks.push(RoleSample {
            ready,
            takes: match status.phase {
                Phase::Full { table } => Intake::Full(table),
                Phase::Consuming if link.is_connected => Intake::Yes,
                _ => Intake::NotNow,
            },
            shares_queue: link.shares_queue,
            unacked: status.unacked,
            outbox_rows: summary.usage.outbox.rows,
            // Scheduled events count only once they are due.
            deferred_due: summary.held_due + summary.scheduled_due,
            live_tasks: live_tasks(&summary),
            commits: summary.commits,
        });
    }
    Some(looks)
}

/// Returns the number of tasks that will still end by themselves.
fn live_tasks(summary: &Summary) -> u64 {
    let kinds = summary.tasks.iter();
    kinds.map(|of| of.ready + of.running).sum()
}

/// The status of the connections by which a role consumes.
struct Consuming {
    is_connected: bool,
    shares_queue: bool,
}

impl Consuming {
    fn sample(running: &RunningRole) -> Self {
        let liveness = running.liveness();
        let links = liveness
            .links()
            .map(|links| [&links.consume, &links.quarantine]);
        let states = links.into_iter().flatten().flatten();
        let mut consuming = Self {
            is_connected: links.is_some(),
            shares_queue: false,
        };
        for link in states {
            let link = link.borrow();
            consuming.is_connected &= link.is_connected();
            consuming.shares_queue |= link.shares_queue;
        }
        consuming
    }
}

/// Returns the number of messages ready in a role's queues.
async fn ready(inspector: &Inspector, broker: &BrokerSettings, role: &str) -> Option<u64> {
    let queue = broker.namespace.role_queue(role, 0);
    let quarantine = broker.namespace.quarantine_queue(role);
    let queue = inspector.certain_depth(&queue).await.ok()?;
    let quarantine = inspector.certain_depth(&quarantine).await.ok()?;
    Some(queue.ready + quarantine.ready)
}

/// Waits for a role that was asked to stop, and reports its outcomes.
async fn ended(job: &RunJob, role: RoleEntry, running: RunningRole) -> Result<(), CliError> {
    let watch = running.watch();
    let ended = timeout(job.args.shutdown_timeout + JOIN_MARGIN, running.join()).await;
    let done = watch.borrow().done;
    tracing::info!(
        role = role.name,
        applied = done.applied,
        duplicates = done.duplicates,
        deferred = done.deferred,
        dead_letters = done.dead_letters,
        replayed = done.replayed,
        ignored = done.ignored,
        "ended"
    );
    match ended {
        Ok(ended) => ended.map_err(|e| failed(e, role, job)),
        Err(_) => Err(CliError::internal(format!(
            "{} did not end within {:?}; its unacked deliveries will be redelivered",
            role.name,
            job.args.shutdown_timeout + JOIN_MARGIN
        ))),
    }
}

fn failed(error: RunError, role: RoleEntry, job: &RunJob) -> CliError {
    match error {
        RunError::Connect(e) if e.kind() == ConnectErrorKind::OtherStore => {
            let file = SqliteStore::path(&job.args.store.folder, role.name);
            let file = std::path::absolute(&file).unwrap_or(file);
            let text = format!("{e} (this store is {})", file.display());
            CliError::new(ExitReason::OtherStore, text)
        }
        RunError::Connect(e) if e.is_permanent() => CliError::broker(e.to_string()),
        RunError::Connect(e) => {
            let tried = job.broker.start_timeout;
            CliError::broker(format!("{e} (tried for {tried:?})"))
        }
        RunError::Store(e) => e.into(),
        RunError::Broken(_) => CliError::internal(error.to_string()),
    }
}

/// Combines the failures of all roles.
fn combine(failures: &BTreeMap<String, ExitReason>) -> Option<CliError> {
    let reason = *failures.values().next()?;
    let texts: Vec<&str> = failures.keys().map(String::as_str).collect();
    Some(CliError::new(reason, texts.join("\n       ")))
}
