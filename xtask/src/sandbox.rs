//! Where programs are run against a broker: a virtual host, a folder with stores and a log, and the processes of the roles.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use doorstep_broker::{Broker, Guard, Signal, send_signal, target_folder, until};

use crate::checkout::{Profile, checked, program};

/// `consumers run --until-idle` ends with this where something is blocked, missing or dead.
const NOT_ALL_APPLIED: i32 = 2;
const STOP_BOUND: Duration = Duration::from_secs(60);
/// Far more than the largest file takes on a slow machine: whoever takes longer waits for what will never be.
const IDLE_BOUND: Duration = Duration::from_secs(1_800);

/// Whether all is applied once nothing more is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    AllApplied,
    /// Something is blocked, missing or dead.
    NotAllApplied,
}

/// A broker's virtual host and a folder of its own.
pub(crate) struct Sandbox {
    broker: Broker,
    namespace: String,
    folder: PathBuf,
}

impl Sandbox {
    /// A stage with an empty folder, `target/NAME`; names on the broker begin with `doorstep-NAME`.
    pub(crate) fn new(name: &str, broker: Broker) -> Result<Self> {
        let folder = target_folder()?.join(name);
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
        })
    }

    /// What the roles log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("consumers.log")
    }

    /// Where a demo writes down what it has sent.
    pub(crate) fn report(&self) -> PathBuf {
        self.folder.join("sent.json")
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
                "DOORSTEP_STORE",
                self.folder.join("store").display().to_string(),
            ),
        ]
    }

    /// A command line for people, with everything that it needs to reach this stage.
    pub(crate) fn command_line(&self, command: &str) -> String {
        let settings: Vec<String> = self
            .settings()
            .iter()
            .map(|(name, value)| format!("  export {name}='{value}'"))
            .collect();
        format!("{}\n  target/debug/{command}", settings.join("\n"))
    }

    /// What a command of the consumers prints.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<String> {
        let what = format!("consumers {}", arguments.join(" "));
        let output = self.consumers(arguments)?.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot run {what}"))?;
        checked(&what, output.status)?;
        String::from_utf8(output.stdout)
            .with_context(|| format!("{what} has printed what is not text"))
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

    /// Runs all roles until all is worked. Safe beside others of the same roles and stores, but then it takes most of a minute.
    pub(crate) fn wait_until_idle(&self) -> Result<Idle> {
        let mut roles = self.spawn(&["run", "--until-idle", "3s"])?;
        let status = until(IDLE_BOUND, || roles.ended())?.with_context(|| {
            format!(
                "not all was worked within {} minutes: see {}",
                IDLE_BOUND.as_secs() / 60,
                self.log().display()
            )
        })?;
        match status.code() {
            Some(NOT_ALL_APPLIED) => Ok(Idle::NotAllApplied),
            _ => checked("consumers run --until-idle", status)
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

    /// How they have ended, if they have.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait().context("cannot look at the roles")?;
        if ended.is_some() {
            self.guard.forget(self.child.id())?;
        }
        Ok(ended)
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the roles")
    }

    /// Lets the roles finish what they have begun.
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
        // Without effect where they have ended.
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
