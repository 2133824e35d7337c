//! The recorded state of a private node in its folder: enough to reach it, and to end it after its owner died.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::AmqpAddress;
use crate::broker::Broker;
use crate::management::Management;
use crate::ports::Ports;
use crate::process;
use crate::wait;

const FILE: &str = "node.state";
const PORTS_BOUND: Duration = Duration::from_secs(10);
/// The first virtual host of a node.
const VHOST: &str = "doorstep";
const USER: &str = "doorstep";

/// The fate of a node whose owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeOwner {
    /// It is a leftover: the next process that finds it ends it and deletes its folder.
    Owner,
    /// It stays, up or down, until a user ends it.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) name: String,
    pub(crate) ports: Ports,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) vhost: String,
    pub(crate) keeper: NodeOwner,
    /// True if it was ever up, so that its user and virtual host exist. A partial first start cannot be continued.
    pub(crate) came_up: bool,
    /// The process ids of the Erlang VM and of epmd, while they run.
    pub(crate) vm: Option<u32>,
    pub(crate) epmd: Option<u32>,
}

impl NodeState {
    pub(crate) fn new(name: &str, ports: Ports) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            ports,
            user: USER.to_owned(),
            password: secret()?,
            vhost: VHOST.to_owned(),
            keeper: NodeOwner::Owner,
            came_up: false,
            vm: None,
            epmd: None,
        })
    }

    /// Reads the state in `folder`; `None` if there is no valid one, as after a full disk.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => Ok(Self::parsed(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot read {}", folder.join(FILE).display()))
            }
        }
    }

    /// Replaces the state in one step, so that no process reads half of it.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let new = folder.join("node.state.new");
        private_file(&new, &self.to_text())?;
        fs::rename(&new, folder.join(FILE))
            .with_context(|| format!("cannot write {}", folder.join(FILE).display()))
    }

    /// Returns the Erlang name of the node. The host is always `localhost`, since a machine's own name may not resolve.
    pub(crate) fn erlang_name(&self) -> String {
        format!("doorstep-{}@localhost", self.name)
    }

    /// Returns the text that identifies the VM's command line.
    pub(crate) fn vm_mark(&self) -> String {
        format!("-doorstep_node {}", self.erlang_name())
    }

    /// Returns the text that identifies epmd's command line.
    pub(crate) fn epmd_mark(&self) -> String {
        format!("-port {}", self.ports.epmd)
    }

    pub(crate) fn vm_is_running(&self) -> bool {
        self.vm
            .is_some_and(|pid| process::is_running(pid, &self.vm_mark()))
    }

    /// Ends the processes of a node that another process started, and waits until their ports are free.
    pub(crate) fn end_processes(&self) -> Result<()> {
        let mut ended = false;
        for (pid, mark) in [(self.vm, self.vm_mark()), (self.epmd, self.epmd_mark())] {
            if let Some(pid) = pid.filter(|pid| process::is_running(*pid, &mark)) {
                process::end(pid, &mark)?;
                ended = true;
            }
        }
        if ended {
            // A process loses its command line before its last thread has closed the sockets. If they stay in use, the
            // next start reports that.
            wait::until(PORTS_BOUND, || Ok(self.ports.are_free().then_some(())))?;
        }
        Ok(())
    }

    pub(crate) fn broker(&self) -> Broker {
        let address = AmqpAddress {
            scheme: "amqp".to_owned(),
            user: self.user.clone(),
            password: self.password.clone(),
            host: "127.0.0.1".to_owned(),
            port: self.ports.amqp,
            vhost: self.vhost.clone(),
            parameters: String::new(),
        };
        Broker::new(address, Some(self.management()))
    }

    pub(crate) fn management(&self) -> Management {
        let port = self.ports.management;
        Management::new("127.0.0.1", port, &self.user, &self.password)
    }

    fn to_text(&self) -> String {
        let Ports {
            amqp,
            management,
            distribution,
            epmd,
        } = self.ports;
        let id = |pid: Option<u32>| pid.map_or_else(String::new, |pid| pid.to_string());
        let keeper = match self.keeper {
            NodeOwner::Owner => "owner",
            NodeOwner::Nobody => "nobody",
        };
        format!(
            "name={}\nports={amqp},{management},{distribution},{epmd}\nuser={}\npassword={}\nvhost={}\n\
             keeper={keeper}\ncame_up={}\nvm={}\nepmd={}\n",
            self.name,
            self.user,
            self.password,
            self.vhost,
            self.came_up,
            id(self.vm),
            id(self.epmd),
        )
    }

    fn parsed(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let ports: Vec<u16> = value("ports")?
            .split(',')
            .map_while(|port| port.parse().ok())
            .collect();
        let &[amqp, management, distribution, epmd] = ports.as_slice() else {
            return None;
        };
        Some(Self {
            name: value("name")?.to_owned(),
            ports: Ports {
                amqp,
                management,
                distribution,
                epmd,
            },
            user: value("user")?.to_owned(),
            password: value("password")?.to_owned(),
            vhost: value("vhost")?.to_owned(),
            keeper: match value("keeper")? {
                "owner" => NodeOwner::Owner,
                "nobody" => NodeOwner::Nobody,
                _ => return None,
            },
            came_up: value("came_up")?.parse().ok()?,
            vm: value("vm")?.parse().ok(),
            epmd: value("epmd")?.parse().ok(),
        })
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn private_file(path: &Path, text: &str) -> Result<()> {
    let write = || {
        // Removed first, since an existing file would keep its own mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?
            .write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Returns 24 random letters and digits from the system, safe in every address and file.
pub(crate) fn secret() -> Result<String> {
    let mut bytes = [0; 12];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_as_it_was_written() {
        let mut state = NodeState::new("some-1", Ports::from_first(21_000)).unwrap();
        assert_eq!(NodeState::parsed(&state.to_text()), Some(state.clone()));
        state.vm = Some(12);
        state.epmd = Some(13);
        state.keeper = NodeOwner::Nobody;
        state.came_up = true;
        assert_eq!(NodeState::parsed(&state.to_text()), Some(state));
    }

    #[test]
    fn half_a_state_is_no_state() {
        let state = NodeState::new("some-1", Ports::from_first(21_000)).unwrap();
        let text = state.to_text();
        let half = &text[..text.len() / 2];
        assert_eq!(NodeState::parsed(half), None);
    }

    #[test]
    fn no_two_secrets_are_alike() {
        assert_ne!(secret().unwrap(), secret().unwrap());
    }
}
