//! A role on a runtime of its own.

use std::{sync::Arc, time::Duration};

use doorstep_runtime::{
    Role,
    runner::{self, Liveness, LocalClient, Phase, RoleStatus, RunError, RunSettings, RunningRole},
    task::TaskSet,
};
use doorstep_store::Store;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::wait_for;

/// The maximum time that a graceful stop may take beyond the shutdown timeout.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A role that runs like a separate process: a crash removes everything of it, at any point.
#[derive(Debug)]
pub struct RoleProcess {
    runtime: Option<Runtime>,
    role: Option<RunningRole>,
    shutdown_timeout: Duration,
}

impl RoleProcess {
    /// Starts a role.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn start<R: Role, S: Store>(role: R, store: S, settings: RunSettings) -> Self {
        Self::start_with_tasks(role, TaskSet::new(), store, settings)
    }

    /// Starts a role, which runs these tasks.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn start_with_tasks<R: Role, S: Store>(
        role: R,
        tasks: TaskSet,
        store: S,
        settings: RunSettings,
    ) -> Self {
        let shutdown_timeout = settings.shutdown_timeout;
        Self::run(shutdown_timeout, || {
            runner::start_with_tasks(role, tasks, store, settings)
        })
    }

    /// Starts a role without a queue, which runs these tasks.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn start_local<R: Role, S: Store>(
        role: R,
        tasks: TaskSet,
        store: S,
        settings: RunSettings,
    ) -> Self {
        let shutdown_timeout = settings.shutdown_timeout;
        Self::run(shutdown_timeout, || {
            runner::start_without_queue(role, tasks, store, settings)
        })
    }

    fn run(shutdown_timeout: Duration, start: impl FnOnce() -> RunningRole) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let role = start();
        drop(entered);
        Self {
            runtime: Some(runtime),
            role: Some(role),
            shutdown_timeout,
        }
    }

    /// Returns its status.
    ///
    /// # Panics
    /// Never: the status exists until the role is stopped.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        self.role.as_ref().unwrap().status()
    }

    /// Returns its liveness signals.
    ///
    /// # Panics
    /// Never: they exist until the role is stopped.
    #[must_use]
    pub fn vitals(&self) -> Arc<Liveness> {
        self.role.as_ref().unwrap().liveness()
    }

    /// Returns a client in its process.
    ///
    /// # Panics
    /// Never: the role exists until it is stopped.
    #[must_use]
    pub fn client(&self) -> LocalClient {
        self.role.as_ref().unwrap().local_client()
    }

    /// Waits until it is consuming.
    ///
    /// # Panics
    /// If it does not within the limit.
    pub async fn consuming(&self, limit: Duration) {
        wait_for("the role is consuming", limit, async || {
            match self.status().phase {
                Phase::Consuming => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Stops it gracefully and waits for its end.
    ///
    /// # Errors
    /// The error with which it had failed.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(mut self) -> Result<(), RunError> {
        let role = self.role.take().unwrap();
        role.stop();
        timeout(self.shutdown_timeout + STOP_LIMIT, role.join())
            .await
            .expect("the role has not stopped")
    }

    /// Waits for its end without requesting it.
    ///
    /// # Errors
    /// The error with which it has failed.
    ///
    /// # Panics
    /// If it does not end within the limit.
    pub async fn ended(mut self, limit: Duration) -> Result<(), RunError> {
        let role = self.role.take().unwrap();
        timeout(limit, role.join())
            .await
            .expect("the role has not ended")
    }

    /// Ends it as SIGKILL would: it writes, acknowledges and logs nothing more.
    pub fn crash(self) {
        drop(self);
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
