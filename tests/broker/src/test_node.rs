//! A private RabbitMQ of either kind, which tests kill, stop, freeze and restart.

use std::env;

use anyhow::Result;

use crate::broker::Broker;
use crate::container::ContainerNode;
use crate::management::Management;
use crate::node::{InstalledNode, NodeOptions, TLS_CERTIFICATE, TLS_KEY};
use crate::ports::Ports;

/// The image of private nodes, if they do not use the RabbitMQ installed here; set by `cargo xtask test --image`.
pub const TEST_IMAGE: &str = "DOORSTEP_TEST_IMAGE";

/// A RabbitMQ that this process owns: an installed one, or a container of the image that [`TEST_IMAGE`] names.
///
/// It ends with its data when this is dropped or this process dies.
///
/// All methods block, each with a timeout: call them from `spawn_blocking` in asynchronous tests.
#[derive(Debug)]
pub struct PrivateNode(Kind);

#[derive(Debug)]
enum Kind {
    Installed(Box<InstalledNode>),
    Container(Box<ContainerNode>),
}

/// Calls the same method of either kind.
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
    /// If there is no RabbitMQ to start, or the node does not come up; the end of its log is in the text.
    pub fn start(options: NodeOptions) -> Result<Self> {
        Ok(Self(match env::var(TEST_IMAGE) {
            Ok(image) => Kind::Container(Box::new(ContainerNode::start(&image, &options)?)),
            Err(_) => Kind::Installed(Box::new(InstalledNode::start(options)?)),
        }))
    }

    /// Returns the broker with the node's first virtual host.
    #[must_use]
    pub fn broker(&self) -> Broker {
        either!(&self.0, broker())
    }

    /// Returns the AMQP address with user and password.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        self.broker().amqp_url()
    }

    #[must_use]
    pub fn management(&self) -> Management {
        either!(&self.0, management())
    }

    /// Returns the ports, which stay the same through every restart.
    #[must_use]
    pub fn ports(&self) -> Ports {
        either!(&self.0, ports())
    }

    /// Ends the node by SIGKILL, as a crash would, and waits until it is gone. No effect if it is not running. A quorum
    /// queue declared less than a second or two ago is lost, see [`PrivateNode::sync_declarations`].
    ///
    /// # Errors
    /// If the system does not end it.
    pub fn kill(&mut self) -> Result<()> {
        either!(&mut self.0, kill())
    }

    /// Stops the node gracefully, as an administrator would, and waits until it is gone: about eight seconds.
    ///
    /// # Errors
    /// If it does not stop within a minute; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        either!(&mut self.0, stop())
    }

    /// Starts the node after [`PrivateNode::kill`] or [`PrivateNode::stop`], with the same data, ports and login, and
    /// waits until it answers.
    ///
    /// # Errors
    /// If it is running already or does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        either!(&mut self.0, start_again())
    }

    /// Combines [`PrivateNode::stop`] and [`PrivateNode::start_again`].
    ///
    /// # Errors
    /// As those two.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Freezes the node: connections stay open, and no request is answered. See [`PrivateNode::thaw`].
    ///
    /// # Errors
    /// If it is not running.
    pub fn freeze(&self) -> Result<()> {
        either!(&self.0, freeze())
    }

    /// Resumes a frozen node.
    ///
    /// # Errors
    /// If it is not running.
    pub fn thaw(&self) -> Result<()> {
        either!(&self.0, thaw())
    }

    /// Runs `rabbitmqctl` on this node and returns its output; takes about a second.
    ///
    /// # Errors
    /// If it fails; its message is in the text.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        either!(&self.0, ctl(arguments))
    }

    /// Replaces the certificate of the TLS listener; the next handshake presents the new one.
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

    /// Makes the node flush its declarations to disk. By itself, RabbitMQ 3.10 does so only a second or two later. If
    /// it is killed before that, it loses exchanges and bindings. A quorum queue comes back without its messages and
    /// without a leader, so that publishing to it and consuming from it fail for good. A test that kills a node right
    /// after declaring calls this first, unless it tests exactly that loss.
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn sync_declarations(&self) -> Result<()> {
        // Newer nodes store their declarations elsewhere, and safely.
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

    /// Clears the memory alarm.
    ///
    /// # Errors
    /// As [`PrivateNode::ctl`].
    pub fn unblock_publishers(&self) -> Result<()> {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]).map(drop)
    }
}
