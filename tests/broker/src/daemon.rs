//! A private node that outlives the process that started it, for running the binaries by hand.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::apt::install_if_possible;
use crate::broker::{Broker, greets};
use crate::folder::Nodes;
use crate::management::Management;
use crate::node::{Data, InstalledNode, NodeOptions};
use crate::state::{NodeOwner, NodeState};

/// A node without an owner. It survives the end of every terminal and is found again by its name.
#[derive(Debug)]
pub struct UpNode {
    folder: PathBuf,
    state: NodeState,
}

impl UpNode {
    /// Finds the node of that name, running or not; `None` if there is none or a living process owns it.
    ///
    /// # Errors
    /// If its folder cannot be read.
    pub fn find(name: &str) -> Result<Option<Self>> {
        let folder = Nodes::locked()?.path_of(name);
        let state = NodeState::read(&folder)?;
        Ok(state
            .filter(|state| state.keeper == NodeOwner::Nobody)
            .map(|state| Self { folder, state }))
    }

    /// Returns the running node of that name, or starts it, on its existing data if there is any. Installs Debian's
    /// package of RabbitMQ if none is installed and that is possible. `say` gets a line before each step that takes
    /// long.
    ///
    /// # Errors
    /// As [`InstalledNode::start`].
    pub fn up(options: NodeOptions, say: fn(&str)) -> Result<Self> {
        match Self::find(&options.name)? {
            Some(node) if node.is_running() => return Ok(node),
            _ => {}
        }
        install_if_possible(say)?;
        say("starting a private RabbitMQ (some seconds)");
        let node = InstalledNode::start(options.data(Data::Kept))?;
        let (folder, state) = node.leave_up()?;
        Ok(Self { folder, state })
    }

    /// Returns true if its process is running and clients can connect.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.vm_is_running() && greets("127.0.0.1", self.state.ports.amqp)
    }

    /// Returns its broker, to connect to.
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.state.broker()
    }

    #[must_use]
    pub fn management(&self) -> Management {
        self.state.management()
    }

    /// Returns the folder of its data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the node, running or not, and deletes its data.
    ///
    /// # Errors
    /// If its processes cannot be ended or its folder cannot be deleted.
    pub fn down(self) -> Result<()> {
        let nodes = Nodes::locked()?;
        let owned = nodes.own(&self.state.name)?;
        self.state.end_processes()?;
        owned.delete()
    }
}
