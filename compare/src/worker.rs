//! The process of the consumers: both roles on the real runtime, until the parent process is gone.

use std::{io::Write, path::PathBuf, time::Duration};

use doorstep_cli::CliError;
use doorstep_messaging::{BrokerSettings, Topology};
use doorstep_runtime::{
    HandlerLock, Limits,
    runner::{self, RunSettings, RunningRole},
};
use doorstep_store::{SqliteStore, sqlite::Options};
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    consumer_process::READY,
    work::{Checkouts, Positions, QUEUES, Workload, WorkloadRole},
};

/// The approximate time that one batch may take. An item is only certain with the commit at the end of its batch, so
/// recorded times may precede it by this much.
const BATCH_TAKES: Duration = Duration::from_millis(100);
/// The timeout of stopping a role.
const GRACE: Duration = Duration::from_secs(2);

/// The settings of the consumers.
#[derive(Debug)]
pub(crate) struct WorkSettings {
    /// The broker, with the namespace of the comparison.
    pub(crate) broker: BrokerSettings,
    /// The folder of the stores.
    pub(crate) folder: PathBuf,
    /// The time that a checkout takes.
    pub(crate) checkout_takes: Duration,
    /// The time that a tracking update takes.
    pub(crate) update_takes: Duration,
}

/// Works until the parent process is gone.
///
/// # Errors
/// A store cannot be opened, or a role cannot go on.
pub(crate) async fn work(settings: WorkSettings) -> Result<(), CliError> {
    let process = HandlerLock::default();
    let roles = [
        start::<Checkouts>(&settings, settings.checkout_takes, &process)?,
        start::<Positions>(&settings, settings.update_takes, &process)?,
    ];
    for role in &roles {
        ready(role).await?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")
        .and_then(|()| stdout.flush())
        .map_err(|e| CliError::io(format!("the parent is gone: {e}")))?;
    let mut nothing = [0; 1];
    // Returns once the other end is closed; an error means the same.
    let _ = tokio::io::stdin().read(&mut nothing).await;
    for role in &roles {
        role.stop();
    }
    for role in roles {
        let _ = timeout(GRACE * 2, role.join()).await;
    }
    Ok(())
}

fn start<T: Workload>(
    settings: &WorkSettings,
    takes: Duration,
    process: &HandlerLock,
) -> Result<RunningRole, CliError> {
    let store = SqliteStore::open(&settings.folder, T::QUEUES.role, &Options::default())
        .map_err(|e| CliError::cannot_create(e.to_string()))?;
    let settings = RunSettings {
        broker: settings.broker.clone(),
        topology: Topology::for_roles(&settings.broker.namespace, QUEUES),
        limits: limits(takes),
        process: process.clone(),
        shutdown_timeout: GRACE,
        requires_owner_record: true,
    };
    Ok(runner::start(
        WorkloadRole::<T>::new(takes),
        store,
        settings,
    ))
}

/// Limits a batch to the time that it may take.
fn limits(takes: Duration) -> Limits {
    let usual = Limits::default();
    let fit = BATCH_TAKES.as_micros() / takes.as_micros().max(1);
    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
    Limits {
        batch_size: fit.clamp(1, usual.batch_size),
        batch_commands: fit.clamp(1, usual.batch_commands),
        ..usual
    }
}

/// Waits until a role consumes.
async fn ready(role: &RunningRole) -> Result<(), CliError> {
    let mut status = role.watch();
    let working = status.wait_for(|status| match status.phase {
        runner::Phase::Consuming | runner::Phase::Stopped => true,
        runner::Phase::Starting
        | runner::Phase::Paused { .. }
        | runner::Phase::Full { .. }
        | runner::Phase::Stopping => false,
    });
    match working.await.map(|status| status.phase.clone()) {
        Ok(runner::Phase::Consuming) => Ok(()),
        _ => Err(CliError::broker(format!(
            "role {} has not started",
            role.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_no_longer_than_it_may() {
        let events = |micros| limits(Duration::from_micros(micros)).batch_size;
        assert_eq!(events(0), Limits::default().batch_size);
        assert_eq!(events(5_000), 20);
        assert_eq!(events(20_000), 5);
        assert_eq!(events(1_000_000), 1);
    }
}
