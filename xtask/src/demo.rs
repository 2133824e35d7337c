//! `cargo xtask demo`: some minutes of sales and deliveries, from nothing to a summary.

use std::fs::{self, File};
use std::io::{ErrorKind, IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use doorstep_broker::{Broker, Footprint, Guard, Signal, send_signal, target_folder, until};

use crate::checkout::{Profile, build, checked, find_broker, own_vhost, program, say};

const NAMESPACE: &str = "doorstep-demo";
/// `consumers run --until-idle` ends with this where something is blocked, missing or dead. The demo sends such things.
const NOT_ALL_APPLIED: i32 = 2;
const STOP_BOUND: Duration = Duration::from_secs(60);

/// Play some minutes of sales and deliveries and show what became of each event.
///
/// Finds or starts a broker, builds, starts all roles, and plays seeded events with duplicates, disorder and a few bad
/// messages thrown in. On a terminal it then stays up until Ctrl-C, so that you can look around; otherwise it ends.
/// Everything is in a virtual host of its own and in target/demo, both new with each demo.
///
/// Example: cargo xtask demo --seed 7
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Demo {
    /// The same seed plays the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let found = find_broker("demo", Footprint::Full)?;
        build(&[
            "--package",
            "doorstep-producer",
            "--package",
            "doorstep-consumers",
        ])?;
        let stage = Stage::new(own_vhost(found.broker(), "demo")?)?;

        let mut roles = stage.start_roles()?;
        stage.play(self.seed)?;
        stage.wait_until_idle()?;
        stage.show()?;
        if stdout().is_terminal() {
            say("everything stays up for you to look around; Ctrl-C ends it");
            // Ctrl-C ends this process where it waits, and the guards end the rest.
            let status = roles.wait()?;
            bail!(
                "the roles have ended ({status}); see {}",
                stage.log.display()
            );
        }
        roles.stop()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the demo takes place: a broker's virtual host and a folder.
struct Stage {
    broker: Broker,
    store: PathBuf,
    log: PathBuf,
}

impl Stage {
    fn new(broker: Broker) -> Result<Self> {
        let folder = target_folder()?.join("demo");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                bail!("cannot empty {}: {error}", folder.display())
            }
            _ => {}
        }
        let store = folder.join("store");
        fs::create_dir_all(&store)?;
        Ok(Self {
            broker,
            store,
            log: folder.join("consumers.log"),
        })
    }

    fn program(&self, name: &str) -> Result<Command> {
        let mut program = program(Profile::Dev, name)?;
        program
            .env("DOORSTEP_AMQP_URL", self.broker.amqp_url())
            .env("DOORSTEP_NAMESPACE", NAMESPACE)
            .env("DOORSTEP_STORE", &self.store);
        Ok(program)
    }

    fn consumers(&self, arguments: &[&str]) -> Result<Command> {
        let mut consumers = self.program("consumers")?;
        consumers.args(arguments);
        Ok(consumers)
    }

    fn start_roles(&self) -> Result<Roles> {
        let child = self
            .consumers(&["run"])?
            .stdin(Stdio::null())
            .stdout(appended(&self.log)?)
            .stderr(appended(&self.log)?)
            .spawn()
            .context("cannot run consumers")?;
        say(&format!(
            "roles are running; their log is {}",
            self.log.display()
        ));
        Roles::new(child)
    }

    fn play(&self, seed: u64) -> Result<()> {
        let status = self
            .program("producer")?
            .args(["demo", "--seed", &seed.to_string()])
            .status()
            .context("cannot run producer")?;
        checked("producer demo", status)
    }

    /// A second process of the same roles and stores is safe beside the first, and ends when all is worked.
    fn wait_until_idle(&self) -> Result<()> {
        say("waiting until everything is worked");
        let status = self
            .consumers(&["run", "--until-idle", "3s"])?
            .stdout(appended(&self.log)?)
            .stderr(appended(&self.log)?)
            .status()
            .context("cannot run consumers")?;
        match status.code() {
            Some(NOT_ALL_APPLIED) => Ok(()),
            _ => checked("consumers run --until-idle", status),
        }
    }

    fn show(&self) -> Result<()> {
        let status = self.consumers(&["status"])?.status();
        checked("consumers status", status.context("cannot run consumers")?)?;
        if let Ok(management) = self.broker.management() {
            println!(
                "\nmanagement UI: {}  user {}  password {}",
                management.url(),
                management.user(),
                management.password()
            );
        }
        Ok(())
    }
}

/// The process that runs all roles.
struct Roles {
    child: Child,
    guard: Guard,
}

impl Roles {
    fn new(child: Child) -> Result<Self> {
        let mut guard = Guard::start::<&str>(&[])?;
        guard.watch(child.id())?;
        Ok(Self { child, guard })
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the roles")
    }

    /// Lets the roles finish what they have begun.
    fn stop(mut self) -> Result<()> {
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
