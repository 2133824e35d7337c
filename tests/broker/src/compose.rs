//! RabbitMQ in a container of the project's `docker-compose.yml`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::address::AmqpAddress;
use crate::broker::{Broker, greets};
use crate::command;
use crate::guard::Guard;
use crate::management::Management;
use crate::ports::Ports;
use crate::state::secret;
use crate::wait;

const QUESTION_BOUND: Duration = Duration::from_secs(10);
/// The first start downloads an image of some hundred megabytes.
const UP_BOUND: Duration = Duration::from_secs(15 * 60);
const READY_BOUND: Duration = Duration::from_secs(180);
const DOWN_BOUND: Duration = Duration::from_secs(60);
const SERVICE: &str = "rabbitmq";
/// The administrator among the users in the file.
const USER: &str = "operator";
const VHOST: &str = "doorstep";

/// The broker service in a separate compose project, on ports and with a login of its own, so that a project started by
/// hand is not touched. It is removed with its volumes when this is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Compose {
    project: String,
    file: PathBuf,
    broker: Broker,
    _guard: Guard,
}

impl Compose {
    /// Returns true if a Docker daemon answers, and Compose and the file are there.
    pub(crate) fn is_possible() -> bool {
        compose_file().is_file()
            && command::succeeds(Command::new("docker").arg("info"), QUESTION_BOUND)
            && command::succeeds(
                Command::new("docker").args(["compose", "version"]),
                QUESTION_BOUND,
            )
    }

    /// Starts the broker and waits until it answers.
    ///
    /// # Errors
    /// If Compose fails, with its message.
    pub(crate) fn up(name: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let project = format!("doorstep-{name}-{}-{count}", std::process::id());
        let file = compose_file();
        let ports = Ports::pick(&[])?;
        let password = secret()?;
        let mut down: Vec<OsString> = vec!["docker".into()];
        down.extend(down_arguments(&project, &file));
        let compose = Self {
            broker: broker(ports, &password),
            _guard: Guard::start(&down)?,
            project,
            file,
        };
        let ran = command::run(
            compose
                .command()
                .args(["up", "--detach", "--quiet-pull", SERVICE])
                .env("DOORSTEP_AMQP_PORT", ports.amqp.to_string())
                .env("DOORSTEP_MANAGEMENT_PORT", ports.management.to_string())
                .env("DOORSTEP_OPERATOR_PASSWORD", &password)
                .env("DOORSTEP_PASSWORD", secret()?),
            UP_BOUND,
        )?;
        let said = ran.stderr.trim().lines().last().unwrap_or_default();
        ensure!(ran.status.success(), "{said}");
        let management = compose.broker.management()?;
        let ready = wait::until(READY_BOUND, || {
            Ok((greets("127.0.0.1", ports.amqp) && management.answers()).then_some(()))
        })?;
        if ready.is_none() {
            bail!(
                "its broker did not answer within {} s",
                READY_BOUND.as_secs()
            );
        }
        management
            .create_vhost(VHOST)
            .context("cannot create a virtual host")?;
        Ok(compose)
    }

    pub(crate) fn broker(&self) -> Broker {
        self.broker.clone()
    }

    fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.args(["compose", "--project-name", &self.project, "--file"]);
        docker.arg(&self.file);
        docker
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let mut docker = Command::new("docker");
        // A failure cannot be handled here.
        let _ = command::run(
            docker.args(down_arguments(&self.project, &self.file)),
            DOWN_BOUND,
        );
    }
}

fn broker(ports: Ports, password: &str) -> Broker {
    let address = AmqpAddress {
        scheme: "amqp".to_owned(),
        user: USER.to_owned(),
        password: password.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: ports.amqp,
        vhost: VHOST.to_owned(),
        parameters: String::new(),
    };
    let management = Management::new("127.0.0.1", ports.management, USER, password);
    Broker::new(address, Some(management))
}

fn down_arguments(project: &str, file: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["compose", "--project-name", project, "--file"]
        .map(OsString::from)
        .to_vec();
    arguments.push(file.into());
    arguments.extend(["down", "--volumes", "--timeout", "2"].map(OsString::from));
    arguments
}

fn compose_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker-compose.yml")
}
