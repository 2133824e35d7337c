//! A private RabbitMQ in a container of a given image, from its start to its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::address::AmqpAddress;
use crate::broker::{Broker, greets};
use crate::command;
use crate::folder::target_folder;
use crate::guard::Guard;
use crate::management::Management;
use crate::node::{Footprint, NodeOptions, NodeTls};
use crate::ports::Ports;
use crate::state::secret;
use crate::wait;

/// The first start downloads an image of some hundred megabytes.
const CREATE_BOUND: Duration = Duration::from_secs(15 * 60);
const START_BOUND: Duration = Duration::from_secs(180);
/// The time for a graceful stop of RabbitMQ before Docker kills it.
const STOP_SECONDS: u64 = 60;
const STOP_BOUND: Duration = Duration::from_secs(STOP_SECONDS + 30);
const DOCKER_BOUND: Duration = Duration::from_secs(60);
const SHOWN_LINES: usize = 12;
const USER: &str = "doorstep";
const VHOST: &str = "doorstep";
const SETTINGS_FILE: &str = "/etc/rabbitmq/conf.d/95-doorstep.conf";
const FILES_FOLDER: &str = "/etc/rabbitmq";
const PLUGINS_FILE: &str = "/etc/rabbitmq/enabled_plugins";

/// A RabbitMQ container that this process owns, with ports on 127.0.0.1 that stay the same through every restart. It is
/// removed with its data when this is dropped or this process ends.
#[derive(Debug)]
pub(crate) struct ContainerNode {
    name: String,
    ports: Ports,
    password: String,
    running: bool,
    _guard: Guard,
}

impl ContainerNode {
    /// Creates and starts the container and waits until clients can connect and the management API answers.
    ///
    /// # Errors
    /// If Docker fails, with its message, or the node does not come up; the end of its log is in the text.
    pub(crate) fn start(image: &str, options: &NodeOptions) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("doorstep-{}-{}-{count}", options.name, std::process::id());
        let ports = match options.ports {
            Some(ports) => ports,
            None => Ports::pick(&[])?,
        };
        let mut node = Self {
            // Started first, so that everything created later is removed in the end.
            _guard: Guard::start(&["docker", "rm", "--force", "--volumes", &name])?,
            name,
            ports,
            password: secret()?,
            running: false,
        };
        node.create(image, options)?;
        node.start_again()?;
        Ok(node)
    }

    pub(crate) fn broker(&self) -> Broker {
        let address = AmqpAddress {
            scheme: "amqp".to_owned(),
            user: USER.to_owned(),
            password: self.password.clone(),
            host: "127.0.0.1".to_owned(),
            port: self.ports.amqp,
            vhost: VHOST.to_owned(),
            parameters: String::new(),
        };
        Broker::new(address, Some(self.management()))
    }

    pub(crate) fn management(&self) -> Management {
        Management::new("127.0.0.1", self.ports.management, USER, &self.password)
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if !self.running {
            return Ok(());
        }
        docker(&["kill", "--signal", "KILL", &self.name], DOCKER_BOUND)?;
        docker(&["wait", &self.name], DOCKER_BOUND)?;
        self.running = false;
        Ok(())
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        if !self.running {
            return Ok(());
        }
        // A frozen container would see the signal only later; thawing one that is not frozen fails, which is harmless.
        let _ = self.thaw();
        let seconds = STOP_SECONDS.to_string();
        docker(&["stop", "--time", &seconds, &self.name], STOP_BOUND)?;
        self.running = false;
        Ok(())
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        ensure!(!self.running, "the node is running already");
        docker(&["start", &self.name], DOCKER_BOUND)?;
        self.running = true;
        let management = self.management();
        let ready = wait::until(START_BOUND, || {
            let up = greets("127.0.0.1", self.ports.amqp) && management.answers();
            if !up
                && docker(
                    &["inspect", "-f", "{{.State.Running}}", &self.name],
                    DOCKER_BOUND,
                )?
                .trim()
                    != "true"
            {
                bail!(
                    "the broker exited during its start; its output:\n{}",
                    self.log()
                );
            }
            Ok(up.then_some(()))
        })?;
        ready.with_context(|| {
            let seconds = START_BOUND.as_secs();
            format!(
                "the broker did not answer within {seconds} s; its output:\n{}",
                self.log()
            )
        })
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        docker(&["pause", &self.name], DOCKER_BOUND).map(drop)
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        docker(&["unpause", &self.name], DOCKER_BOUND).map(drop)
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["exec", self.name.as_str(), "rabbitmqctl", "--quiet"];
        all.extend(arguments);
        docker(&all, DOCKER_BOUND)
    }

    /// Creates the container with its settings.
    fn create(&self, image: &str, options: &NodeOptions) -> Result<()> {
        let publish = |port: u16, inside: u16| format!("127.0.0.1:{port}:{inside}");
        let mut create = Command::new("docker");
        create
            .args([
                "create",
                "--quiet",
                "--init",
                "--hostname",
                "rabbitmq",
                "--name",
                &self.name,
            ])
            .args(["--publish", &publish(self.ports.amqp, 5672)])
            .args(["--publish", &publish(self.ports.management, 15672)])
            .args(
                options
                    .tls
                    .iter()
                    .flat_map(|tls| [(tls.port, 5671), (tls.management_port, 15671)])
                    .flat_map(|(port, inside)| ["--publish".to_owned(), publish(port, inside)]),
            )
            // Only the names of the variables, so that the password is on no command line.
            .args([
                "--env",
                "RABBITMQ_DEFAULT_USER",
                "--env",
                "RABBITMQ_DEFAULT_PASS",
            ])
            .args(["--env", "RABBITMQ_DEFAULT_VHOST"])
            .env("RABBITMQ_DEFAULT_USER", USER)
            .env("RABBITMQ_DEFAULT_PASS", &self.password)
            .env("RABBITMQ_DEFAULT_VHOST", VHOST);
        let mut settings = options.settings.join("\n");
        if options.footprint == Footprint::Small {
            create.args([
                "--env",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +stbt u",
            ]);
            // Bounds the write-ahead log of quorum queues in memory, 512 MB by default.
            settings.push_str("\nraft.wal_max_size_bytes = 67108864");
        }
        settings.push('\n');
        if let Some(tls) = &options.tls {
            // With a TLS listener, the management API has a plain one only if this is set, too.
            settings.push_str("management.tcp.port = 15672\n");
            settings.push_str(&tls.settings("5671", ("0.0.0.0", 15671), FILES_FOLDER));
        }
        ran(create.arg(image), CREATE_BOUND)?;
        self.put_in(&settings, SETTINGS_FILE)?;
        for (name, text) in options.tls.iter().flat_map(NodeTls::files) {
            self.put(name, text)?;
        }
        let plugins = options.plugins.join(",");
        self.put_in(&format!("[{plugins}].\n"), PLUGINS_FILE)
    }

    /// Writes a file beside the node's settings.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<()> {
        self.put_in(text, &format!("{FILES_FOLDER}/{name}"))
    }

    /// Writes a file into the container, readable by RabbitMQ's user.
    fn put_in(&self, text: &str, path: &str) -> Result<()> {
        let folder = target_folder()?.join("brokers");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}.put", self.name));
        let put = || {
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
            let mut copy = Command::new("docker");
            copy.arg("cp")
                .arg(&file)
                .arg(format!("{}:{path}", self.name));
            ran(&mut copy, DOCKER_BOUND).map(drop)
        };
        let done = put();
        let _ = fs::remove_file(&file);
        done
    }

    /// Returns the end of the broker's output.
    fn log(&self) -> String {
        let mut logs = Command::new("docker");
        let lines = SHOWN_LINES.to_string();
        match command::run(
            logs.args(["logs", "--tail", &lines, &self.name]),
            DOCKER_BOUND,
        ) {
            Ok(ran) => format!("{}{}", ran.stdout, ran.stderr),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for ContainerNode {
    fn drop(&mut self) {
        // A failure cannot be handled here; the guard is the safety net.
        let _ = docker(&["rm", "--force", "--volumes", &self.name], DOCKER_BOUND);
    }
}

fn docker(arguments: &[&str], bound: Duration) -> Result<String> {
    ran(Command::new("docker").args(arguments), bound)
}

fn ran(command: &mut Command, bound: Duration) -> Result<String> {
    let ran = command::run(command, bound)?;
    ensure!(
        ran.status.success(),
        "docker: {} {}",
        ran.stdout.trim(),
        ran.stderr.trim()
    );
    Ok(ran.stdout)
}
