//! A private node that stays up beyond the process that started it, for those who run the binaries by hand.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::broker::{Broker, greets};
use crate::find::install_if_possible;
use crate::folder::Nodes;
use crate::management::Management;
use crate::node::{Data, InstalledNode, NodeOptions};
use crate::state::{NodeOwner, NodeState};

/// A node that nobody owns. It survives the end of every terminal and is found again by its name.
#[derive(Debug)]
pub struct UpNode {
    folder: PathBuf,
    state: NodeState,
}

impl UpNode {
    pub(crate) fn new(folder: &Path, state: NodeState) -> Self {
        Self {
            folder: folder.to_owned(),
            state,
        }
    }

    /// The node of that name, running or not; `None` where there is none or a living process owns it.
    ///
    /// # Errors
    /// Where its folder cannot be read.
    pub fn find(name: &str) -> Result<Option<Self>> {
        let folder = Nodes::locked()?.path_of(name);
        let state = NodeState::read(&folder)?;
        Ok(state
            .filter(|state| state.keeper == NodeOwner::Nobody)
            .map(|state| Self { folder, state }))
    }

    /// The running node of that name; otherwise it is started, on the data that it has, if any. Installs Debian's
    /// package of RabbitMQ where there is none and that is possible. `say` gets a line before each step that takes long.
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
        InstalledNode::start(options.data(Data::Kept))?.leave_up()
    }

    /// Whether its process is there and clients can connect.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.vm_is_running() && greets("127.0.0.1", self.state.ports.amqp)
    }

    /// Where clients connect.
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.state.broker()
    }

    /// The management API.
    #[must_use]
    pub fn management(&self) -> Management {
        self.state.management()
    }

    /// Where its data and log are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the node, running or not, and deletes its data.
    ///
    /// # Errors
    /// Where its processes cannot be ended or its folder not be deleted.
    pub fn down(self) -> Result<()> {
        let nodes = Nodes::locked()?;
        let owned = nodes.own(&self.state.name)?;
        self.state.end_processes()?;
        owned.delete()
    }
}
