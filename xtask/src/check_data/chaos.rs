//! The import while processes are killed at random moments: no event may be lost, and none applied twice.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorstep_broker::{PrivateNode, until};

use super::{Exports, REFUSED, RETAIL_SUM, all_applied, import};
use crate::sandbox::{Roles, Sandbox};
use crate::workspace::{own_vhost, print_progress};

/// The number of kills of each kind, in random order. A kill counts only if the process was running.
const KILLS: [(Kill, usize); 3] = [(Kill::Consumers, 6), (Kill::Producer, 3), (Kill::Broker, 2)];
/// The maximum number of missed kills, which occur because the import has just finished; the next import is killed
/// instead.
const MAX_MISSED_KILLS: usize = 50;
/// The pause before each, in milliseconds.
const PAUSE: std::ops::Range<u64> = 700..4_000;
/// The exit code of an import that could not reach the broker.
const UNREACHABLE: i32 = 69;
/// The maximum number of imports with that exit code, each started during an outage.
const MAX_UNREACHABLE: usize = 5;
/// Far more than an import takes.
const IMPORT_BOUND: Duration = Duration::from_secs(1_800);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// SIGKILL to the roles.
    Consumers,
    /// SIGKILL to the import.
    Producer,
    /// The broker is killed and restarted.
    Broker,
}

/// Imports during kills, then once more undisturbed, and compares the exports with those of an undisturbed run.
pub(super) fn run(node: &mut PrivateNode, file: &Path, undisturbed: &Exports) -> Result<()> {
    let stage = Sandbox::new("check-data", own_vhost(&node.broker(), "check-data")?)?;
    let mut kills: Vec<Kill> = KILLS
        .iter()
        .flat_map(|(kill, times)| vec![*kill; *times])
        .collect();
    fastrand::shuffle(&mut kills);
    print_progress(&format!("blows: {kills:?}"));

    // Once undisturbed, so that the queues exist before the broker is killed.
    all_applied(&stage)?;
    node.sync_declarations()?;
    let mut roles = stage.start_roles()?;
    let mut producer = Import::start(&stage, file)?;
    let mut misses = 0;
    while let Some(kill) = kills.last().copied() {
        sleep(Duration::from_millis(fastrand::u64(PAUSE)));
        still_run(&mut roles, &stage)?;
        let landed = match kill {
            Kill::Consumers => {
                // Dropping them is SIGKILL.
                drop(roles);
                roles = stage.start_roles()?;
                true
            }
            Kill::Producer => producer.kill()?,
            Kill::Broker => {
                let alive = node.management().get("/api/overview");
                alive.context("the broker was gone before it was killed")?;
                node.kill()?;
                node.start_again()?;
                true
            }
        };
        if landed {
            kills.pop();
        } else {
            misses += 1;
            ensure!(
                misses <= MAX_MISSED_KILLS,
                "{misses} imports had ended before they were killed"
            );
        }
    }
    producer.finish()?;
    still_run(&mut roles, &stage)?;
    drop(roles);
    all_applied(&stage)?;
    let exports = Exports::read(&stage)?;
    ensure!(
        exports == *undisturbed,
        "the exports differ from those of an undisturbed run"
    );

    // Once more undisturbed: all events are duplicates.
    let roles = stage.start_roles()?;
    import(&stage, &["import", "retail"], file, RETAIL_SUM)?;
    roles.stop()?;
    all_applied(&stage)?;
    let exports = Exports::read(&stage)?;
    ensure!(
        exports == *undisturbed,
        "a second import has changed the exports"
    );
    Ok(())
}

/// Checks that the roles still run: only a signal ends them, never a fault of the broker.
fn still_run(roles: &mut Roles, stage: &Sandbox) -> Result<()> {
    match roles.ended()? {
        None => Ok(()),
        Some(status) => bail!(
            "the roles have exited by themselves ({status}): see {}",
            stage.log().display()
        ),
    }
}

/// The import, restarted whenever it has ended.
struct Import<'a> {
    stage: &'a Sandbox,
    file: &'a Path,
    child: Child,
    unreachable: usize,
}

impl<'a> Import<'a> {
    fn start(stage: &'a Sandbox, file: &'a Path) -> Result<Self> {
        Ok(Self {
            stage,
            file,
            child: spawn(stage, file)?,
            unreachable: 0,
        })
    }

    /// Kills it by SIGKILL and starts the next one. Returns true if it was still running.
    fn kill(&mut self) -> Result<bool> {
        let ended = self.child.try_wait()?;
        match ended {
            None => {
                self.child.kill().context("cannot kill the producer")?;
                self.child.wait()?;
            }
            Some(status) => self.may_end(status)?,
        }
        self.child = spawn(self.stage, self.file)?;
        Ok(ended.is_none())
    }

    /// Waits until one has finished.
    fn finish(mut self) -> Result<()> {
        loop {
            let child = &mut self.child;
            let ended = until(IMPORT_BOUND, || Ok(child.try_wait()?))?;
            let ended = ended.context("the last import did not finish")?;
            if ended.success() {
                return Ok(());
            }
            self.may_end(ended)?;
            self.child = spawn(self.stage, self.file)?;
        }
    }

    /// Accepts the end of an import that has finished, or has given up because it was started during an outage. The
    /// number of the latter is bounded.
    fn may_end(&mut self, status: ExitStatus) -> Result<()> {
        match status.code() {
            Some(0) => Ok(()),
            Some(UNREACHABLE) if self.unreachable < MAX_UNREACHABLE => {
                self.unreachable += 1;
                Ok(())
            }
            _ => bail!("an import ended with {status}"),
        }
    }
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        // No effect if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(stage: &Sandbox, file: &Path) -> Result<Child> {
    stage
        .program("producer")?
        .args(["import", "retail"])
        .arg(file)
        .arg("--refused")
        .arg(stage.folder().join(REFUSED))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run producer")
}
