//! Runs a role: joins its engine with the broker, and keeps it running through everything that passes.
//!
//! Three tasks a role: the subscription's own, which delivers and settles; the loop in [`work`], which takes batches and works what
//! is due; and the relay in [`send`]. They share nothing but the store and a [`RoleStatus`] that anybody may watch.

mod links;
mod send;
mod status;
mod vitals;
mod work;

use std::{sync::Arc, time::Duration};

use doorstep_event::Timestamp;
use doorstep_messaging::{
    BrokerSettings, ConnectError, Publisher, QueueSubscription, Subscription, Topology,
};
use doorstep_store::{Store, StoreError};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

pub use status::{Phase, RoleStatus};
pub use vitals::{Pulse, RoleLinks, Vitals};

use crate::{Engine, Limits, Role, SharedProcess, told::Meters};

/// What a role needs to run.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The broker.
    pub broker: BrokerSettings,
    /// Every role's queues and bindings, not only this one's: an event must find all of them.
    pub topology: Topology,
    /// The role's bounds.
    pub limits: Limits,
    /// The process that it shares with other roles: what kills one of them kills all.
    pub process: SharedProcess,
    /// How long a stopping role may take to finish its batch and to send what it owes.
    pub grace: Duration,
}

/// Why a role has ended without being asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The broker does not let it start, or could not be reached for as long as a start may take.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The store is not one that this role can work with.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task has ended in a way that it must not: a mistake in the program.
    #[error("a task of role {0} has broken off: please report this with its log")]
    Broken(&'static str),
}

/// A role that was started.
#[derive(Debug)]
pub struct RunningRole {
    name: &'static str,
    status: watch::Receiver<RoleStatus>,
    vitals: Arc<Vitals>,
    stop: Arc<watch::Sender<bool>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl RunningRole {
    /// The role's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        self.status.borrow().clone()
    }

    /// How it is, and every change of that.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RoleStatus> {
        self.status.clone()
    }

    /// Its signs of life. They stay good after it has ended.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Asks it to stop: it finishes and settles its batch, sends what it owes, and closes, all within the grace period. What is not
    /// settled by then goes back to the broker.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for its end. Ends only when it was asked to stop, or failed for good.
    ///
    /// # Errors
    /// Why it failed for good.
    pub async fn join(self) -> Result<(), RunError> {
        self.task.await.unwrap_or(Err(RunError::Broken(self.name)))
    }
}

/// Starts a role on the current Tokio runtime. Returns at once; how it goes is told by [`RunningRole::status`].
pub fn start<R: Role, S: Store>(role: R, store: S, settings: RunSettings) -> RunningRole {
    let name = role.name();
    let (status, watch_status) = watch::channel(RoleStatus::starting());
    let (stop, stopped) = watch::channel(false);
    let stop = Arc::new(stop);
    let vitals = Arc::new(Vitals::new());
    let noted = Arc::clone(&vitals);
    // The sender is kept by the task, too, so that a dropped handle does not look like a stop.
    let kept = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let ended = run(role, store, settings, &status, &noted, stopped).await;
        status.send_modify(|status| status.phase = Phase::Stopped);
        drop(kept);
        ended
    });
    RunningRole {
        name,
        status: watch_status,
        vitals,
        stop,
        task,
    }
}

async fn run<R: Role, S: Store>(
    role: R,
    store: S,
    settings: RunSettings,
    status: &watch::Sender<RoleStatus>,
    vitals: &Arc<Vitals>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let name = role.name();
    let namespace = &settings.broker.namespace;
    let summary = store.summary(Timestamp::now()).await?;
    status.send_modify(|status| status.usage = summary.usage);

    let publisher = Publisher::start(
        &settings.broker,
        &format!("{namespace} {name}: publish"),
        settings.topology.clone(),
    );
    let subscription = Subscription::start(
        &settings.broker,
        &format!("{namespace} {name}: consume"),
        settings.topology.clone(),
        queues(&settings, name),
    );
    vitals.linked(RoleLinks {
        publish: publisher.state(),
        consume: subscription.state(),
        published: publisher.meter(),
        consumed: subscription.meter(),
    });
    let ready = async {
        publisher.ready(settings.broker.start_timeout).await?;
        subscription.ready(settings.broker.start_timeout).await
    };
    // A stop may cut the wait for the broker short: nothing was taken yet.
    let started = tokio::select! {
        ready = ready => ready.map(|()| true),
        _ = stopped.wait_for(|stop| *stop) => Ok(false),
    };
    let owed = Arc::new(Notify::new());
    let meters = Meters::of(
        name,
        &namespace.role_queue(name, 0),
        &namespace.events_exchange(),
    );
    let result = match started {
        Err(e) => Err(e.into()),
        Ok(false) => Ok(()),
        Ok(true) => {
            let relay = tokio::spawn(send::relay(
                name,
                store.clone(),
                publisher.clone(),
                namespace.dead_queue(name),
                settings.limits.clone(),
                Arc::clone(&owed),
                Arc::clone(vitals),
                meters.clone(),
                stopped.clone(),
                settings.grace,
            ));
            let engine = Engine::new(role, store, settings.limits.clone())
                .sharing(settings.process.clone())
                .started_at(Timestamp::now());
            let worked = work::Loop {
                engine,
                subscription: &subscription,
                status,
                owed: &owed,
                net: namespace.net_queue(name),
                pulse: &vitals.engine,
                meters: &meters,
                stopped: stopped.clone(),
                links: links::Links::new(
                    publisher.state(),
                    subscription.state(),
                    summary.streams > 0,
                ),
                findings: Vec::new(),
            }
            .run(summary.usage)
            .await;
            status.send_modify(|status| status.phase = Phase::Stopping);
            if worked.is_err() {
                relay.abort();
            }
            // The relay ends by itself within the grace period; if it was aborted, that is no failure of its own.
            match (worked, relay.await) {
                (Err(e), _) => Err(e),
                (Ok(()), Err(_)) => Err(RunError::Broken(name)),
                (Ok(()), Ok(())) => Ok(()),
            }
        }
    };
    subscription.close(settings.grace).await;
    publisher.close(settings.grace).await;
    result
}

/// The role's queue, and its net: what the broker gave up on is worked one message at a time.
fn queues(settings: &RunSettings, role: &'static str) -> Vec<QueueSubscription> {
    let namespace = &settings.broker.namespace;
    vec![
        QueueSubscription {
            queue: namespace.role_queue(role, 0),
            consumer_tag: format!("{namespace}.{role}.0 on {}", process()),
            prefetch: settings.broker.prefetch,
        },
        QueueSubscription {
            queue: namespace.net_queue(role),
            consumer_tag: format!("{namespace}.{role}.net on {}", process()),
            prefetch: 1,
        },
    ]
}

/// Tells the consumers of several processes apart in the management UI.
fn process() -> String {
    format!("process {}", std::process::id())
}
