//! The process of the consumers: both roles on the real runtime, until the parent process is gone.

use std::{io::Write, path::Path, time::Duration};

use clap::Args;
use doorstep_cli::{
    CliError,
    args::{BrokerArgs, StoreArgs},
    parse::duration_arg,
};
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

/// The arguments of the process that runs the consumers.
#[derive(Debug, Args)]
pub(crate) struct CompareWorkArgs {
    /// Time that a checkout takes.
    #[arg(long, value_parser = duration_arg())]
    checkout_takes: Duration,

    /// Time that a tracking update takes.
    #[arg(long, value_parser = duration_arg())]
    update_takes: Duration,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// Works until the parent process is gone.
///
/// # Errors
/// A store cannot be opened, or a role cannot go on.
pub(crate) async fn work(broker: BrokerSettings, args: CompareWorkArgs) -> Result<(), CliError> {
    let settings = RunSettings {
        topology: Topology::for_roles(&broker.namespace, QUEUES),
        broker,
        limits: Limits::default(),
        process: HandlerLock::default(),
        shutdown_timeout: GRACE,
        requires_owner_record: true,
    };
    let folder = &args.store.folder;
    let roles = [
        start::<Checkouts>(folder, &settings, args.checkout_takes)?,
        start::<Positions>(folder, &settings, args.update_takes)?,
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
    folder: &Path,
    settings: &RunSettings,
    takes: Duration,
) -> Result<RunningRole, CliError> {
    let store = SqliteStore::open(folder, T::QUEUES.role, &Options::default())?;
    let settings = RunSettings {
        limits: limits(takes),
        ..settings.clone()
    };
    let role = WorkloadRole::<T>::new(takes);
    Ok(runner::start(role, store, settings))
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
