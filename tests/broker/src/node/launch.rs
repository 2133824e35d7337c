//! The programs of a private node: their files, environment and arguments.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::options::{Footprint, NodeOptions, NodeTls};
use crate::folder::private_folder;
use crate::installed::Installed;
use crate::state::{NodeState, private_file, secret};

const SHOWN_LINES: usize = 12;

/// One node as the programs see it.
pub(crate) struct Launch<'a> {
    pub(crate) options: &'a NodeOptions,
    pub(crate) installed: &'a Installed,
    pub(crate) state: &'a NodeState,
    pub(crate) folder: &'a Path,
}

impl Launch<'_> {
    /// Starts epmd in the foreground: the daemon that the VM would start would outlive the node.
    pub(crate) fn epmd(&self) -> Result<Child> {
        let port = self.state.ports.epmd.to_string();
        self.detached(&self.installed.epmd)
            .args(["-port", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run epmd")
    }

    /// Writes the node's files and starts its Erlang VM.
    pub(crate) fn vm(&self) -> Result<Child> {
        self.write_files()?;
        let console = File::create(self.folder.join("console.log"))?;
        let mark = self.state.vm_mark();
        let schedulers = match self.options.footprint {
            Footprint::Small => "+S 2:2 +stbt u",
            Footprint::Full => "",
        };
        let arguments =
            format!("{schedulers} -kernel inet_dist_use_interface {{127,0,0,1}} {mark}");
        self.detached(&self.installed.server)
            // With input allowed, the server's script becomes the VM by exec, so that our child is the VM. The script
            // then omits the flag for no input, so it is set here.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .arg("-noinput")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments)
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .with_context(|| format!("cannot run {}", self.installed.server.display()))
    }

    /// Returns `rabbitmqctl` for this node, without arguments yet.
    pub(crate) fn ctl(&self) -> Command {
        self.program(&self.installed.ctl)
    }

    /// Returns the node's output about a failed start: its first errors, since the later ones mostly repeat them. It
    /// writes to the console until it has read its settings, and to its log after that.
    pub(crate) fn errors(&self) -> String {
        let (console, log) = (self.console(), self.log());
        let since_start = log
            .rfind("Starting RabbitMQ")
            .map_or("", |start| &log[start..]);
        let errors: Vec<&str> = console
            .lines()
            .chain(since_start.lines())
            .filter_map(error_text)
            .take(SHOWN_LINES)
            .collect();
        if errors.is_empty() {
            return console.trim().to_owned();
        }
        format!("  {}", errors.join("\n  "))
    }

    /// Returns true if another process took one of the ports first.
    pub(crate) fn lost_a_port(&self) -> bool {
        let lost = |text: String| text.contains("eaddrinuse");
        lost(self.console()) || lost(self.log())
    }

    fn console(&self) -> String {
        self.lines_of("console.log")
    }

    fn log(&self) -> String {
        self.lines_of(&format!("log/{}.log", self.state.erlang_name()))
    }

    fn lines_of(&self, file: &str) -> String {
        let bytes = fs::read(self.folder.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns a command in a process group of its own, so that Ctrl-C on a terminal does not reach it.
    fn detached(&self, program: &Path) -> Command {
        let mut command = self.program(program);
        command.process_group(0).stdin(Stdio::null());
        command
    }

    /// Returns a command in the node's environment, without any RabbitMQ or Erlang settings of the machine.
    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("RABBITMQ_") || name.starts_with("ERL_") || name == "NOTIFY_SOCKET"
            {
                command.env_remove(name.as_ref());
            }
        }
        let ports = self.state.ports;
        command
            .current_dir(self.folder)
            .env("PATH", &self.installed.search_path)
            .env("HOME", self.folder)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("RABBITMQ_NODENAME", self.state.erlang_name())
            .env("RABBITMQ_DIST_PORT", ports.distribution.to_string());
        for (variable, file) in [
            ("RABBITMQ_CONF_ENV_FILE", "environment.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONFIG_FILES", "conf.d"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "vm.pid"),
        ] {
            command.env(variable, self.folder.join(file));
        }
        command
    }

    fn write_files(&self) -> Result<()> {
        for folder in ["data", "log", "conf.d"] {
            private_folder(&self.folder.join(folder))?;
        }
        let cookie = self.folder.join(".erlang.cookie");
        if !cookie.exists() {
            private_file(&cookie, &secret()?)?;
        }
        private_file(&self.folder.join("environment.conf"), "")?;
        let plugins = format!("[{}].\n", self.options.plugins.join(","));
        private_file(&self.folder.join("enabled_plugins"), &plugins)?;
        for (name, text) in self.options.tls.iter().flat_map(NodeTls::files) {
            private_file(&self.folder.join(name), text)?;
        }
        private_file(&self.folder.join("rabbitmq.conf"), &self.settings())
    }

    fn settings(&self) -> String {
        let NodeState {
            ports,
            user,
            password,
            vhost,
            ..
        } = self.state;
        let mut settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {}\n\
             default_user = {user}\n\
             default_pass = {password}\n\
             default_vhost = {vhost}\n\
             default_user_tags.administrator = true\n\
             default_permissions.configure = .*\n\
             default_permissions.read = .*\n\
             default_permissions.write = .*\n\
             log.console = false\n",
            ports.amqp, ports.management,
        );
        if self.options.footprint == Footprint::Small {
            // Bounds the write-ahead log of quorum queues in memory, 512 MB by default.
            settings.push_str("raft.wal_max_size_bytes = 67108864\n");
        }
        if let Some(tls) = &self.options.tls {
            let listen = format!("127.0.0.1:{}", tls.port);
            let management = ("127.0.0.1", tls.management_port);
            settings.push_str(&tls.settings(&listen, management, &self.folder.to_string_lossy()));
        }
        for line in &self.options.settings {
            settings.push_str(line);
            settings.push('\n');
        }
        settings
    }
}

/// Returns the text of a line such as `2026-01-31 12:00:00.000000+00:00 [error] <0.130.0> the text`.
fn error_text(line: &str) -> Option<&str> {
    let (_, rest) = line
        .split_once("[error] ")
        .or(line.split_once("[critical] "))?;
    let (_, text) = rest.split_once(' ')?;
    (!text.trim().is_empty()).then_some(text)
}

/// Deletes a node's data that is unusable, since its login is unknown.
pub(crate) fn delete_data(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder.join("data")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", folder.join("data").display()))
        }
        _ => Ok(()),
    }
}
