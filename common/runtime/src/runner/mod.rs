//! Runs a role: connects its engine with the broker, and keeps it running through outages of broker and store.
//!
//! A role has several Tokio tasks: the subscription's own, which delivers and acks; the loop in [`event_loop`], which
//! takes batches, commands, ends of tasks and due events; the relay in [`outbox_publisher`]; and the executor in
//! [`tasks`]. They share only the store and a
//! [`RoleStatus`], which can be watched. Requests reach a role through its [`LocalClient`]; those from the broker come
//! to it through [`serve_rpc`].

mod connections;
mod event_loop;
mod intake;
mod liveness;
mod local_call_error;
mod local_client;
mod outbox_publisher;
mod queue_owner;
mod reason;
mod reply_to;
mod serve_rpc;
mod shutdown;
mod status;
mod tasks;
mod upkeep;
mod wall_clock;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_event::{Epoch, Timestamp};
use doorstep_messaging::{
    BrokerSettings, ConnectError, OutageReasons, OwnerClaim, Publisher, QueueName,
    QueueSubscription, RpcServer, RpcServerSettings, Subscription, Topology,
};
use doorstep_store::{Store, StoreError, Summary, begin_epoch};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, JoinSet},
};

pub use liveness::{Liveness, ProgressWatch, RoleConnections};
pub use local_call_error::LocalCallError;
pub use local_client::LocalClient;
pub use reason::{ReadinessReason, ReasonName};
pub use status::{Phase, RoleStatus};

use crate::{
    Engine, HandlerLock, Limits, Role,
    task::TaskSet,
    telemetry::{BatchInstruments, RequestInstruments},
};
use intake::Intake;
use reply_to::QueuedCommand;
use shutdown::{Shutdown, ShutdownTrigger};
use tasks::QueuedEnd;

/// The delay between two attempts to begin an epoch.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The settings of a running role.
#[derive(Debug, Clone)]
pub struct RunSettings {
    pub broker: BrokerSettings,
    /// The queues and bindings of every role, not only of this one: an event must reach all of them.
    pub topology: Topology,
    pub limits: Limits,
    /// The process that it shares with other roles: a crash of one crashes all.
    pub process: HandlerLock,
    /// The time in which a stopping role has to finish its batch and to publish its outbox.
    pub shutdown_timeout: Duration,
    /// Set to fail rather than consume if the user may not record at the broker which store owns the role's queues.
    pub requires_owner_record: bool,
}

/// The reason why a role has ended without being asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The broker does not let it start, or was unreachable for the whole start timeout.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role cannot work with this store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task has ended in an impossible way: a bug in the program.
    #[error("a task of role {0} has ended unexpectedly: please report this with its log")]
    Broken(&'static str),
}

/// A role that was started.
#[derive(Debug)]
pub struct RunningRole {
    name: &'static str,
    status: watch::Receiver<RoleStatus>,
    liveness: Arc<Liveness>,
    local_client: LocalClient,
    stop: ShutdownTrigger,
    task: JoinHandle<Result<(), RunError>>,
}

impl RunningRole {
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the present status.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        let mut status = self.status.borrow().clone();
        // The loop records the status after each batch. Deliveries that came since then are unacked, too.
        if let Some(links) = self.liveness.links()
            && links.consumed.is_some()
        {
            let meters = [&links.consumed, &links.quarantined].into_iter().flatten();
            let unacked: u64 = meters.map(|meter| meter.read().unacked).sum();
            status.unacked = usize::try_from(unacked).unwrap_or(usize::MAX);
        }
        status
    }

    /// Watches the status. Unacked deliveries are those as of the last batch.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RoleStatus> {
        self.status.clone()
    }

    /// Returns its liveness. It stays readable after the role has ended.
    #[must_use]
    pub fn liveness(&self) -> Arc<Liveness> {
        Arc::clone(&self.liveness)
    }

    /// Returns a client in this process. It works without a queue and while the broker is unreachable, too.
    #[must_use]
    pub fn local_client(&self) -> LocalClient {
        self.local_client.clone()
    }

    /// Asks the role to stop: it finishes and acks its batch, publishes its outbox and closes, all within the shutdown
    /// timeout. Deliveries still unacked then go back to the broker.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Waits for its end, which comes only on request or by a permanent failure.
    ///
    /// # Errors
    /// The permanent failure.
    pub async fn join(self) -> Result<(), RunError> {
        self.task.await.unwrap_or(Err(RunError::Broken(self.name)))
    }
}

/// Starts a role on its queue, on the current Tokio runtime. If the topology has a queue of requests for it, it serves
/// these, too. Returns at once; [`RunningRole::status`] tells the progress.
pub fn start<R: Role, S: Store>(role: R, store: S, settings: RunSettings) -> RunningRole {
    start_with_tasks(role, TaskSet::new(), store, settings)
}

/// Starts a role as [`start`] does, and runs its tasks of these kinds.
pub fn start_with_tasks<R: Role, S: Store>(
    role: R,
    tasks: TaskSet,
    store: S,
    settings: RunSettings,
) -> RunningRole {
    begin(role, tasks, store, settings, Transport::Queues)
}

/// Starts a role without a queue: it serves its [`LocalClient`], processes the events that it has scheduled, runs its
/// tasks, and publishes the events that it emits. It does not wait for the broker; while there is none, events stay in
/// its outbox.
pub fn start_without_queue<R: Role, S: Store>(
    role: R,
    tasks: TaskSet,
    store: S,
    settings: RunSettings,
) -> RunningRole {
    begin(role, tasks, store, settings, Transport::Local)
}

/// The ways by which work reaches a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// Its queues and its local clients.
    Queues,
    /// Its local clients alone.
    Local,
}

fn begin<R: Role, S: Store>(
    role: R,
    tasks: TaskSet,
    store: S,
    settings: RunSettings,
    ways: Transport,
) -> RunningRole {
    let name = role.name();
    let (status, watch_status) = watch::channel(RoleStatus::starting());
    let (stopper, stop) = ShutdownTrigger::new(settings.shutdown_timeout);
    let liveness = Arc::new(Liveness::new());
    let engine =
        Engine::new(role, store, settings.limits.clone()).sharing(settings.process.clone());
    let tasks = Arc::new(tasks);
    let (local_client, commands) =
        LocalClient::new(engine.queries(), name, &settings.limits, Arc::clone(&tasks));
    let run = RoleRun {
        engine,
        tasks,
        settings,
        local_client: local_client.clone(),
        commands,
        liveness: Arc::clone(&liveness),
        stop,
    };
    // The task keeps a clone, too, so that a dropped handle does not look like a stop.
    let kept = stopper.clone();
    let task = tokio::spawn(async move {
        let ended = match ways {
            Transport::Queues => run.run_with_queues(&status).await,
            Transport::Local => run.run_local(&status).await,
        };
        status.send_modify(|status| status.phase = Phase::Stopped);
        drop(kept);
        ended
    });
    RunningRole {
        name,
        status: watch_status,
        liveness,
        local_client,
        stop: stopper,
        task,
    }
}

/// A role that is about to run.
struct RoleRun<R: Role, S: Store> {
    engine: Engine<R, S>,
    tasks: Arc<TaskSet>,
    settings: RunSettings,
    local_client: LocalClient,
    commands: mpsc::Receiver<QueuedCommand>,
    liveness: Arc<Liveness>,
    stop: Shutdown,
}

impl<R: Role, S: Store> RoleRun<R, S> {
    fn name(&self) -> &'static str {
        self.engine.role().name()
    }

    fn publisher(&self) -> Publisher {
        let broker = &self.settings.broker;
        let connection = format!("{} {}: publish", broker.namespace, self.name());
        Publisher::start(broker, &connection, self.settings.topology.clone())
    }

    async fn summary(&self, status: &watch::Sender<RoleStatus>) -> Result<Summary, RunError> {
        let summary = self.engine.store().summary(Timestamp::now()).await?;
        status.send_modify(|status| status.usage = summary.usage);
        Ok(summary)
    }

    /// Begins an epoch of the store, and retries while the store is unavailable. Returns `None` if the role is asked to
    /// stop first.
    async fn begin_epoch(&self) -> Result<Option<Epoch>, RunError> {
        let mut stop = self.stop.clone();
        let mut reasons = OutageReasons::default();
        loop {
            let error = match begin_epoch(self.engine.store(), Timestamp::now()).await {
                Ok(epoch) => return Ok(Some(epoch)),
                Err(error @ StoreError::Unavailable { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            if reasons.is_new(&error.to_string()) {
                tracing::warn!(role = self.name(), %error, "cannot begin an epoch; the role retries before it starts");
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                () = stop.requested() => return Ok(None),
            }
        }
    }

    /// Runs without a queue.
    async fn run_local(self, status: &watch::Sender<RoleStatus>) -> Result<(), RunError> {
        let summary = self.summary(status).await?;
        let Some(epoch) = self.begin_epoch().await? else {
            return Ok(());
        };
        let publisher = self.publisher();
        let links = RoleConnections::publishing(&publisher);
        self.liveness.linked(links.clone());
        let stop = self.stop.clone();
        let result = self
            .work(status, &summary, epoch, &publisher, None, None, &links)
            .await;
        publisher.close(stop.time_remaining()).await;
        result
    }

    /// Runs on the role's queues.
    async fn run_with_queues(self, status: &watch::Sender<RoleStatus>) -> Result<(), RunError> {
        let summary = self.summary(status).await?;
        let Some(epoch) = self.begin_epoch().await? else {
            return Ok(());
        };
        let name = self.name();
        let settings = self.settings.clone();
        let namespace = &settings.broker.namespace;
        let publisher = self.publisher();
        let store = self.engine.store();
        let is_required = settings.requires_owner_record;
        let claim = queue_owner::claim(store, name, namespace, epoch, is_required).await?;
        let subscription = Subscription::start(
            &settings.broker,
            &format!("{namespace} {name}: consume"),
            settings.topology.clone(),
            vec![queue(&settings, name)],
            Some(claim.clone()),
        );
        let quarantine = Subscription::start(
            &settings.broker,
            &format!("{namespace} {name}: quarantine"),
            settings.topology.clone(),
            vec![quarantine_queue(&settings, name)],
            Some(claim.clone()),
        );
        let responder = self.answers().then(|| self.start_rpc_server(claim));
        let links = RoleConnections {
            consume: Some(subscription.status()),
            quarantine: Some(quarantine.status()),
            serve: responder.as_ref().map(|r| r.status()),
            consumed: Some(subscription.stats()),
            quarantined: Some(quarantine.stats()),
            served: responder.as_ref().map(|r| r.stats()),
            ..RoleConnections::publishing(&publisher)
        };
        self.liveness.linked(links.clone());
        let limit = settings.broker.start_timeout;
        let ready = async {
            publisher.ready(limit).await?;
            subscription.ready(limit).await?;
            quarantine.ready(limit).await?;
            match &responder {
                Some(responder) => responder.ready(limit).await,
                None => Ok(()),
            }
        };
        // A stop may interrupt the wait for the broker: nothing was taken yet.
        let mut stop = self.stop.clone();
        let started = tokio::select! {
            ready = ready => ready.map(|()| true),
            () = stop.requested() => Ok(false),
        };
        let result = match started {
            Err(e) => Err(e.into()),
            Ok(false) => Ok(()),
            Ok(true) => {
                let intake = Some(Intake {
                    queue: &subscription,
                    quarantine: &quarantine,
                });
                let responder = responder.clone();
                self.work(
                    status, &summary, epoch, &publisher, intake, responder, &links,
                )
                .await
            }
        };
        // Concurrently: with an unresponsive broker, each of them may take all of its time.
        let left = stop.time_remaining();
        let answers_no_more = async {
            if let Some(responder) = &responder {
                responder.close(left).await;
            }
        };
        tokio::join!(
            answers_no_more,
            subscription.close(left),
            quarantine.close(left),
            publisher.close(left)
        );
        result
    }

    fn start_rpc_server(&self, claim: OwnerClaim) -> Arc<RpcServer> {
        let RunSettings {
            broker, topology, ..
        } = &self.settings;
        let connection = format!("{} {}: answer", broker.namespace, self.name());
        let bounds = RpcServerSettings::default();
        let topology = topology.clone();
        Arc::new(RpcServer::start(
            broker,
            &connection,
            topology,
            self.name(),
            bounds,
            Some(claim),
        ))
    }

    /// Returns whether it serves requests from the broker.
    fn answers(&self) -> bool {
        let queue = self.settings.broker.namespace.rpc_queue(self.name());
        self.declares(&queue)
    }

    fn declares(&self, queue: &QueueName) -> bool {
        let mut queues = self.settings.topology.queues.iter();
        queues.any(|declared| declared.name == *queue)
    }

    /// Creates the executor of its tasks, which starts only now: the role has claimed its queues. Returns `None` if it
    /// runs no kind of task.
    fn executor(&self, epoch: Epoch) -> Option<(tasks::Executor<S>, mpsc::Receiver<QueuedEnd>)> {
        if self.tasks.is_empty() {
            return None;
        }
        let name = self.name();
        let settings = tasks::ExecutorSettings {
            role: name,
            key_prefix: format!("{}.{name}", self.settings.broker.namespace),
            process_name: process(),
            epoch,
            limits: self.settings.limits.clone(),
            process: self.settings.process.clone(),
        };
        let (ends, waiting) = tasks::channel(&self.settings.limits);
        let store = self.engine.store().clone();
        let (set, liveness) = (Arc::clone(&self.tasks), Arc::clone(&self.liveness));
        let executor = tasks::Executor::new(settings, store, set, ends, liveness);
        Some((executor, waiting))
    }

    /// Processes, relays, serves and runs tasks until it is asked to stop or fails permanently.
    #[expect(
        clippy::too_many_arguments,
        reason = "what the two ways of running it differ in"
    )]
    async fn work(
        self,
        status: &watch::Sender<RoleStatus>,
        summary: &Summary,
        epoch: Epoch,
        publisher: &Publisher,
        intake: Option<Intake<'_>>,
        responder: Option<Arc<RpcServer>>,
        links: &RoleConnections,
    ) -> Result<(), RunError> {
        let name = self.name();
        let namespace = &self.settings.broker.namespace;
        let outbox_filled = Arc::new(Notify::new());
        let (at_its_end, ended) = watch::channel(false);
        let requested = self.stop.clone();
        let meters = BatchInstruments::new(
            name,
            &namespace.role_queue(name, 0),
            &namespace.events_exchange(),
        );
        let (refusals, rejected) = watch::channel(None);
        let links = connections::ConnectionMonitor::new(links, rejected, summary.streams > 0);
        let mut beside = JoinSet::new();
        let mut aborted_on_failure = Vec::new();
        let tasks_changed = Arc::new(Notify::new());
        let (executor, ends) = self.executor(epoch).unzip();
        if let Some(executor) = executor {
            let (changed, stop) = (Arc::clone(&tasks_changed), self.stop.clone());
            beside.spawn(executor.run(changed, stop, ended.clone()));
        }
        let tasks = ends.map(|ends| event_loop::LoopTasks {
            ends,
            changed: tasks_changed,
            max_backoff: self.tasks.max_backoff(&self.settings.limits),
        });
        let relay = beside.spawn(outbox_publisher::relay(
            name,
            self.engine.store().clone(),
            publisher.clone(),
            Some(namespace.dead_letter_queue(name)).filter(|queue| self.declares(queue)),
            self.settings.limits.clone(),
            Arc::clone(&outbox_filled),
            Arc::clone(&self.liveness),
            meters.clone(),
            self.stop.clone(),
            ended,
            refusals,
        ));
        aborted_on_failure.push(relay);
        if let Some(responder) = responder {
            let serving = beside.spawn(serve_rpc::serve_rpc(
                responder,
                self.local_client,
                self.stop.clone(),
            ));
            aborted_on_failure.push(serving);
        }
        let request_meters = RequestInstruments::new(name);
        let looped = event_loop::RoleLoop {
            engine: self.engine.started_at(Timestamp::now()),
            intake,
            commands: self.commands,
            tasks,
            status,
            outbox_filled: &outbox_filled,
            quarantine: namespace.quarantine_queue(name),
            pulse: &self.liveness.engine,
            meters: &meters,
            requests: &request_meters,
            stop: self.stop,
            links,
            findings: Vec::new(),
            store_outage: OutageReasons::default(),
            wall: wall_clock::WallClock::new(Timestamp::now(), Instant::now()),
        }
        .run(summary.usage);
        let worked = tokio::select! {
            worked = looped => worked,
            () = task_panicked(&mut beside, &requested) => Err(RunError::Broken(name)),
        };
        status.send_modify(|status| status.phase = Phase::Stopping);
        // From here on, nothing is added to the outbox.
        at_its_end.send_replace(true);
        if worked.is_err() {
            // No command is executed any more: unfinished requests go to another server. The executor gives its leases
            // back.
            for task in aborted_on_failure {
                task.abort();
            }
        }
        // All other tasks end by themselves within the shutdown timeout. An aborted task is no failure of its own.
        let mut result = worked;
        while let Some(ended) = beside.join_next().await {
            if ended.is_err() && result.is_ok() {
                result = Err(RunError::Broken(name));
            }
        }
        result
    }
}

/// Waits until a task that should run until the stop has ended or panicked; for ever if none has.
async fn task_panicked(tasks: &mut JoinSet<()>, stop: &Shutdown) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() || !stop.is_requested() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Subscribes to the role's queue.
fn queue(settings: &RunSettings, role: &'static str) -> QueueSubscription {
    let namespace = &settings.broker.namespace;
    QueueSubscription {
        queue: namespace.role_queue(role, 0),
        consumer_tag: format!("{namespace}.{role}.0 on {}", process()),
        prefetch: settings.broker.prefetch,
    }
}

/// Subscribes to the role's quarantine, whose messages are processed one at a time.
fn quarantine_queue(settings: &RunSettings, role: &'static str) -> QueueSubscription {
    let namespace = &settings.broker.namespace;
    QueueSubscription {
        queue: namespace.quarantine_queue(role),
        consumer_tag: format!("{namespace}.{role}.quarantine on {}", process()),
        prefetch: 1,
    }
}

/// Returns a name that distinguishes the consumers of several processes in the management UI.
fn process() -> String {
    format!("process {}", std::process::id())
}
