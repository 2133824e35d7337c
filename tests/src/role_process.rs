//! A role on a runtime of its own.

use std::{sync::Arc, time::Duration};

use doorstep_runtime::{
    Role,
    runner::{self, Liveness, Phase, RoleStatus, RunError, RunSettings, RunningRole},
};
use doorstep_store::Store;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::wait_for;

/// The most that a role may take to stop in order beyond its grace.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A role that runs like a process of its own: when it crashes, everything of it is gone, wherever it was.
#[derive(Debug)]
pub struct RoleProcess {
    runtime: Option<Runtime>,
    role: Option<RunningRole>,
    grace: Duration,
}

impl RoleProcess {
    /// Starts a role.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start<R: Role, S: Store>(role: R, store: S, settings: RunSettings) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let grace = settings.grace;
        let entered = runtime.enter();
        let role = runner::start(role, store, settings);
        drop(entered);
        Self {
            runtime: Some(runtime),
            role: Some(role),
            grace,
        }
    }

    /// How it is.
    ///
    /// # Panics
    /// Never: it is there until it is stopped.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        self.role.as_ref().unwrap().status()
    }

    /// Its signs of life.
    ///
    /// # Panics
    /// Never: it is there until it is stopped.
    #[must_use]
    pub fn vitals(&self) -> Arc<Liveness> {
        self.role.as_ref().unwrap().liveness()
    }

    /// Waits until it takes deliveries.
    ///
    /// # Panics
    /// If it does not come to that within the limit.
    pub async fn taking(&self, limit: Duration) {
        wait_for("the role takes deliveries", limit, async || {
            match self.status().phase {
                Phase::Consuming => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Stops it in order, and waits for its end.
    ///
    /// # Errors
    /// Why it had failed.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(mut self) -> Result<(), RunError> {
        let role = self.role.take().unwrap();
        role.stop();
        timeout(self.grace + STOP_LIMIT, role.join())
            .await
            .expect("a role that was asked to stop has not ended")
    }

    /// Waits for its end without asking for it.
    ///
    /// # Errors
    /// Why it has failed.
    ///
    /// # Panics
    /// If it does not end within the limit.
    pub async fn ended(mut self, limit: Duration) -> Result<(), RunError> {
        let role = self.role.take().unwrap();
        timeout(limit, role.join())
            .await
            .expect("the role has not ended")
    }

    /// Ends it as SIGKILL would: nothing more is written, settled or said.
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
