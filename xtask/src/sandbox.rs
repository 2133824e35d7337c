//! The environment of programs that run against a broker: a virtual host, a folder with stores and a log, and the
//! processes of the roles.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use doorstep_broker::{Broker, Guard, Signal, send_signal, target_folder, until};

use crate::workspace::{Profile, checked, program};

/// The exit code of `consumers run --exit-when-idle` if an event is blocked, missing or a dead letter.
const NOT_ALL_APPLIED: i32 = 2;
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Far more than the largest file takes on a slow machine; a run beyond this waits for an event that never comes.
const IDLE_BOUND: Duration = Duration::from_secs(1_800);

/// The state of the roles once they are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    AllApplied,
    /// An event is blocked, missing or a dead letter.
    NotAllApplied,
}

/// Locks a file, or says who has it.
fn lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another process of this checkout uses {}: wait for its end",
            path.with_extension("").display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// A broker's virtual host and a folder.
pub(crate) struct Sandbox {
    broker: Broker,
    namespace: String,
    folder: PathBuf,
    /// Held while the sandbox is used; the system releases it with the process.
    _lock: File,
}

impl Sandbox {
    /// Creates a sandbox with an empty folder, `target/NAME`; names on the broker begin with `doorstep-NAME`.
    ///
    /// # Errors
    /// Fails if another process uses it, or if the folder cannot be emptied.
    pub(crate) fn new(name: &str, broker: Broker) -> Result<Self> {
        let folder = target_folder()?.join(name);
        let lock = lock(&folder.with_extension("lock"))?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                bail!("cannot empty {}: {error}", folder.display())
            }
            _ => {}
        }
        fs::create_dir_all(folder.join("store"))?;
        Ok(Self {
            broker,
            namespace: format!("doorstep-{name}"),
            folder,
            _lock: lock,
        })
    }

    /// Returns the path of the roles' log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("consumers.log")
    }

    /// Returns the path of the demo's report.
    pub(crate) fn report(&self) -> PathBuf {
        self.folder.join("sent.json")
    }

    /// Returns the folder of the mails.
    pub(crate) fn mails(&self) -> PathBuf {
        self.folder.join("store").join("mail")
    }

    /// Returns the path of the sales report.
    pub(crate) fn page(&self) -> PathBuf {
        self.folder.join("sales.html")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        let mut program = program(Profile::Dev, name)?;
        program.envs(self.settings()).stdin(Stdio::null());
        Ok(program)
    }

    pub(crate) fn consumers(&self, arguments: &[&str]) -> Result<Command> {
        let mut consumers = self.program("consumers")?;
        consumers.args(arguments);
        Ok(consumers)
    }

    fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("DOORSTEP_AMQP_URL", self.broker.amqp_url()),
            ("DOORSTEP_NAMESPACE", self.namespace.clone()),
            (
                "DOORSTEP_DATA_DIR",
                self.folder.join("store").display().to_string(),
            ),
        ]
    }

    /// Returns a command line for users, with all that it needs to reach this sandbox.
    pub(crate) fn command_line(&self, command: &str) -> String {
        let settings: Vec<String> = self
            .settings()
            .iter()
            .map(|(name, value)| format!("  export {name}='{value}'"))
            .collect();
        format!("{}\n  target/debug/{command}", settings.join("\n"))
    }

    /// Returns the output of a command of the consumers.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<String> {
        let what = format!("consumers {}", arguments.join(" "));
        let output = self.consumers(arguments)?.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot run {what}"))?;
        checked(&what, output.status)?;
        String::from_utf8(output.stdout).with_context(|| format!("{what} printed invalid UTF-8"))
    }

    pub(crate) fn start_roles(&self) -> Result<Roles> {
        self.spawn(&["run"])
    }

    fn spawn(&self, arguments: &[&str]) -> Result<Roles> {
        let child = self
            .consumers(arguments)?
            .stdout(appended(&self.log())?)
            .stderr(appended(&self.log())?)
            .spawn()
            .context("cannot run consumers")?;
        Roles::new(child)
    }

    /// Runs all roles until they are idle. Safe beside other processes of the same roles and stores, but then it takes
    /// most of a minute.
    pub(crate) fn wait_until_idle(&self) -> Result<Idle> {
        let mut roles = self.spawn(&["run", "--exit-when-idle", "3s"])?;
        let status = until(IDLE_BOUND, || roles.ended())?.with_context(|| {
            format!(
                "not all events were handled within {} minutes: see {}",
                IDLE_BOUND.as_secs() / 60,
                self.log().display()
            )
        })?;
        match status.code() {
            Some(NOT_ALL_APPLIED) => Ok(Idle::NotAllApplied),
            _ => checked("consumers run --exit-when-idle", status)
                .map(|()| Idle::AllApplied)
                .with_context(|| format!("see {}", self.log().display())),
        }
    }
}

/// The process that runs all roles.
pub(crate) struct Roles {
    child: Child,
    guard: Guard,
}

impl Roles {
    fn new(child: Child) -> Result<Self> {
        let mut guard = Guard::start::<&str>(&[])?;
        guard.watch(child.id())?;
        Ok(Self { child, guard })
    }

    /// Returns the exit status, if they have ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self
            .child
            .try_wait()
            .context("cannot get the state of the roles")?;
        if ended.is_some() {
            self.guard.forget(self.child.id())?;
        }
        Ok(ended)
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the roles")
    }

    /// Stops the roles gracefully.
    pub(crate) fn stop(mut self) -> Result<()> {
        send_signal(self.child.id(), Signal::Terminate)?;
        let status = until(STOP_BOUND, || Ok(self.child.try_wait()?))?
            .context("the roles did not stop within a minute")?;
        self.guard.forget(self.child.id())?;
        checked("consumers run", status)
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        // No effect if they have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn appended(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_names_the_folder_in_use() {
        let path =
            std::env::temp_dir().join(format!("doorstep-sandbox-{}.lock", std::process::id()));
        let first = lock(&path).unwrap();
        let error = lock(&path).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        assert!(lock(&path).is_ok());
        fs::remove_file(path).unwrap();
    }
}
