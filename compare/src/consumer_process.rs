//! The consumers of the comparison: both roles in a child process of the same program, so that it can be killed. The
//! child exits when its parent is gone.

use std::{fs::File, io, path::Path, process::Stdio, time::Duration};

use doorstep_cli::{CliError, args::BrokerArgs};
use doorstep_messaging::BrokerSettings;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    items::Operation,
    scenario::{LoadProfile, Scenario},
};

/// The command with which this program starts the consumers.
pub(crate) const WORK_COMMAND: &str = "work";
/// The line that the process writes once it consumes both events and commands.
pub(crate) const READY: &str = "ready";
/// The timeout of that line: longer than the process waits for the broker.
const READY_WITHIN: Duration = Duration::from_secs(45);
/// The limit of its standard error in a message, in bytes.
const COMPLAINT: usize = 2000;

/// Starts the consumers, any number of times.
pub(crate) struct ConsumerProcess<'a> {
    pub(crate) broker: &'a BrokerSettings,
    pub(crate) args: &'a BrokerArgs,
    /// The folder of their stores.
    pub(crate) folder: &'a Path,
    pub(crate) pace: LoadProfile,
    pub(crate) scenario: Scenario,
}

/// Running consumers; dropping this kills them.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl ConsumerProcess<'_> {
    /// Starts the consumers, and waits until they work.
    ///
    /// # Errors
    /// They do not start; contains their standard error.
    pub(crate) async fn start(&self) -> Result<Running, CliError> {
        let failed = |e: io::Error| CliError::failed(format!("cannot start the consumers: {e}"));
        let complaints = self.folder.join("consumers.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&complaints)
            .map_err(failed)?;
        let takes = |want| {
            let takes = self.pace.takes(self.scenario, want);
            format!("{}us", takes.as_micros())
        };
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg(WORK_COMMAND)
            .arg("--data-dir")
            .arg(self.folder)
            .args(["--checkout-takes", &takes(Operation::Checkout)])
            .args(["--update-takes", &takes(Operation::Update)])
            // In the environment, so that a list of processes does not show the password.
            .envs(self.args.variables())
            .env("DOORSTEP_NAMESPACE", self.broker.namespace.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C on the terminal is for the comparison, which ends the consumers itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(failed(io::Error::other("their output cannot be read")));
        };
        let mut lines = BufReader::new(stdout).lines();
        match timeout(READY_WITHIN, lines.next_line()).await {
            Ok(Ok(Some(line))) if line == READY => Ok(Running(child)),
            _ => Err(CliError::broker(format!(
                "the consumers of the comparison have not started: {}",
                stderr_tail(&complaints)
            ))),
        }
    }
}

impl Running {
    /// Kills the consumers with SIGKILL, and waits until they are gone.
    ///
    /// # Errors
    /// The system does not end them.
    pub(crate) async fn kill(mut self) -> Result<(), CliError> {
        self.0
            .kill()
            .await
            .map_err(|e| CliError::failed(format!("cannot kill the consumers: {e}")))
    }
}

/// Returns the end of their standard error.
fn stderr_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(COMPLAINT);
    match text.is_empty() {
        true => "they gave no reason".to_owned(),
        false => text.chars().skip(skip).collect(),
    }
}
