//! A RabbitMQ of one's own, wherever it runs: what tests kill, stop, freeze and start again.

use std::env;

use anyhow::Result;

use crate::broker::Broker;
use crate::container::ContainerNode;
use crate::management::Management;
use crate::node::{InstalledNode, NodeOptions, TLS_CERTIFICATE, TLS_KEY};
use crate::ports::Ports;

/// The image that private nodes run from, where it is not the RabbitMQ that is installed here: so `cargo xtask test
/// --image` tells the tests.
pub const TEST_IMAGE: &str = "DOORSTEP_TEST_IMAGE";

/// A RabbitMQ that this process owns: of what is installed here, or in a container of the image that [`TEST_IMAGE`] names.
///
/// Dropping it ends it at once, with its data. The same happens when this process dies.
///
/// All methods block, each with a bound: call them from `spawn_blocking` in asynchronous tests.
#[derive(Debug)]
pub struct PrivateNode(Kind);

#[derive(Debug)]
enum Kind {
    Installed(Box<InstalledNode>),
    Container(Box<ContainerNode>),
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($node:expr, $name:ident($($argument:expr),*)) => {
        match $node {
            Kind::Installed(node) => node.$name($($argument),*),
            Kind::Container(node) => node.$name($($argument),*),
        }
    };
}

impl PrivateNode {
    /// Starts a node and waits until clients can connect and the management API answers: about seven seconds on two
    /// idle cores.
    ///
    /// # Errors
    /// Where there is no RabbitMQ to start, or the node does not come up; the end of its log is in the text.
    pub fn start(options: NodeOptions) -> Result<Self> {
        Ok(Self(match env::var(TEST_IMAGE) {
            Ok(image) => Kind::Container(Box::new(ContainerNode::start(&image, &options)?)),
            Err(_) => Kind::Installed(Box::new(InstalledNode::start(options)?)),
        }))
    }

    /// Where clients connect, by the node's first virtual host.
    #[must_use]
    pub fn broker(&self) -> Broker {
        either!(&self.0, broker())
    }

    /// The AMQP address with user and password.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.broker().amqp_url()
    }

    /// The management API.
    #[must_use]
    pub fn management(&self) -> Management {
        either!(&self.0, management())
    }

    /// The ports, which stay the same through every restart.
    #[must_use]
    pub fn ports(&self) -> Ports {
        either!(&self.0, ports())
    }

    /// Ends the node by SIGKILL, as a crash would, and waits until it is gone. Without effect on a node that does not
    /// run. A quorum queue that was declared less than a second or two ago is lost by it, see
    /// [`PrivateNode::sync_declarations`].
    ///
    /// # Errors
    /// Where the system does not end it.
    pub fn kill(&mut self) -> Result<()> {
        either!(&mut self.0, kill())
    }

    /// Stops the node in order, as an administrator would, and waits until it is gone: about eight seconds.
    ///
    /// # Errors
    /// Where it does not stop within a minute; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        either!(&mut self.0, stop())
    }

    /// Starts the node after [`PrivateNode::kill`] or [`PrivateNode::stop`], with the same data, ports and login, and
    /// waits until it answers.
    ///
    /// # Errors
    /// Where it is running already or does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        either!(&mut self.0, start_again())
    }

    /// [`PrivateNode::stop`] and [`PrivateNode::start_again`].
    ///
    /// # Errors
    /// As those two.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Freezes the node: connections stay open, and nothing answers any more. See [`PrivateNode::thaw`].
    ///
    /// # Errors
    /// Where it does not run.
    pub fn freeze(&self) -> Result<()> {
        either!(&self.0, freeze())
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn thaw(&self) -> Result<()> {
        either!(&self.0, thaw())
    }

    /// Runs `rabbitmqctl` on this node and returns what it printed; takes about a second.
    ///
    /// # Errors
    /// Where it fails; its message is in the text.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        either!(&self.0, ctl(arguments))
    }

    /// Replaces the certificate of the listener for TLS; the next handshake shows the new one.
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn show_certificate(&self, certificate: &str, key: &str) -> Result<()> {
        for (name, text) in [(TLS_CERTIFICATE, certificate), (TLS_KEY, key)] {
            match &self.0 {
                Kind::Installed(node) => node.put_in(name, text)?,
                Kind::Container(node) => node.put(name, text)?,
            }
        }
        self.ctl(&["eval", "ssl:clear_pem_cache()."]).map(drop)
    }

    /// Makes the node write down what was declared. Left to itself, RabbitMQ 3.10 does so only a second or two later.
    /// Killed before that, it has forgotten exchanges and bindings, and comes back with a quorum queue, but without its
    /// messages and without a leader, so that nothing can be published to it or taken from it any more. A test that kills
    /// a node right after declaring calls this first, unless this is what it is about.
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn sync_declarations(&self) -> Result<()> {
        // Newer nodes keep their declarations elsewhere, and safely.
        let sync = "catch mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].";
        self.ctl(&["eval", sync]).map(drop)
    }

    /// Raises the memory alarm: the broker stops reading from every connection that publishes. See
    /// [`PrivateNode::unblock_publishers`].
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn block_publishers(&self) -> Result<()> {
        self.ctl(&["set_vm_memory_high_watermark", "0"]).map(drop)
    }

    /// Lifts the memory alarm again.
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn unblock_publishers(&self) -> Result<()> {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]).map(drop)
    }
}
