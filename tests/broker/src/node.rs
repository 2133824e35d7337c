//! A private node of the RabbitMQ installed here, from its start to its end.

mod launch;
mod options;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use options::{Data, Footprint, NodeOptions, NodeTls};
pub(crate) use options::{TLS_CERTIFICATE, TLS_KEY};

use crate::broker::{Broker, greets};
use crate::command;
use crate::folder::{Nodes, OwnedFolder};
use crate::guard::Guard;
use crate::installed::Installed;
use crate::management::Management;
use crate::ports::Ports;
use crate::process::{Signal, send_signal};
use crate::state::{NodeOwner, NodeState, private_file};
use crate::wait;

use launch::Launch;

/// A start takes some seconds; the timeout is for a machine that compiles at the same time.
const START_BOUND: Duration = Duration::from_secs(180);
/// A graceful stop takes about eight seconds, most of them in the management plugin.
const STOP_BOUND: Duration = Duration::from_secs(60);
const KILL_BOUND: Duration = Duration::from_secs(10);
const PORTS_BOUND: Duration = Duration::from_secs(10);
const CTL_BOUND: Duration = Duration::from_secs(60);
/// Another process may take a port between the check and the start.
const START_ATTEMPTS: usize = 3;

/// A RabbitMQ node that this process owns. It listens on 127.0.0.1 only and shares nothing with any other broker on the
/// machine, not even epmd.
///
/// It ends when this is dropped or this process dies; its folder is deleted then unless its data is kept. If the guard
/// of an owner was killed, too, the next start of any node ends the leftover.
///
/// All methods block, each with a timeout: call them from `spawn_blocking` in asynchronous tests.
#[derive(Debug)]
pub struct InstalledNode {
    options: NodeOptions,
    installed: Installed,
    state: NodeState,
    vm: Option<Child>,
    epmd: Option<Child>,
    guard: Guard,
    /// `None` once the node was left up: this process must not end it then.
    folder: Option<OwnedFolder>,
}

impl InstalledNode {
    /// Starts a node and waits until clients can connect and the management API answers: about seven seconds on two
    /// idle cores.
    ///
    /// # Errors
    /// If no RabbitMQ is installed, a kept node of that name is in use, or the node does not come up; the end of its
    /// log is in the text.
    pub fn start(options: NodeOptions) -> Result<Self> {
        let installed = Installed::find()?.context(
            "no rabbitmq-server is installed: `cargo xtask broker up` installs one on Debian, \
             `brew install rabbitmq` on macOS",
        )?;
        let mut attempt = 1;
        loop {
            let mut node = Self::prepare(options.clone(), installed.clone())?;
            match node.start_again() {
                Ok(()) => return Ok(node),
                Err(_) if attempt < START_ATTEMPTS && node.lost_its_ports() => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the broker with the node's first virtual host.
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.state.broker()
    }

    #[must_use]
    pub fn management(&self) -> Management {
        self.state.management()
    }

    /// Returns the ports, which stay the same through every restart.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.state.ports
    }

    /// Writes one of the node's files.
    pub(crate) fn put_in(&self, name: &str, text: &str) -> Result<()> {
        private_file(&self.folder().join(name), text)
    }

    /// Returns the folder of the node's data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or(Path::new(""), |folder| &folder.path)
    }

    /// Ends the node by SIGKILL, as a crash would, and waits until it is gone. No effect if it is not running.
    ///
    /// # Errors
    /// If the system does not end it.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut vm) = self.vm.take() else {
            return Ok(());
        };
        // Fails only if the process has exited by itself.
        let _ = vm.kill();
        self.wait_for_end(vm, KILL_BOUND)
    }

    /// Stops the node gracefully, as an administrator would, and waits until it is gone: about eight seconds.
    ///
    /// # Errors
    /// If it does not stop within a minute; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        let Some(vm) = self.vm.take() else {
            return Ok(());
        };
        // A frozen process would see the signal only later.
        send_signal(vm.id(), Signal::Thaw)?;
        send_signal(vm.id(), Signal::Terminate)?;
        self.wait_for_end(vm, STOP_BOUND)
    }

    /// Starts the node after [`InstalledNode::kill`] or [`InstalledNode::stop`], with the same data, ports and login,
    /// and waits until it answers.
    ///
    /// # Errors
    /// If it is running already or does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.vm.is_none(), "the node is running already");
        self.launch_epmd()?;
        let vm = self.launch()?.vm()?;
        self.guard.watch(vm.id())?;
        self.state.vm = Some(vm.id());
        self.vm = Some(vm);
        self.write_state()?;
        self.wait_until_ready()?;
        self.state.came_up = true;
        self.write_state()
    }

    /// Freezes the node: connections stay open, and no request is answered. See [`InstalledNode::thaw`].
    ///
    /// # Errors
    /// If it is not running.
    pub fn freeze(&self) -> Result<()> {
        send_signal(self.running_vm()?, Signal::Freeze)
    }

    /// Resumes a frozen node.
    ///
    /// # Errors
    /// If it is not running.
    pub fn thaw(&self) -> Result<()> {
        send_signal(self.running_vm()?, Signal::Thaw)
    }

    /// Runs `rabbitmqctl` on this node and returns its output; takes about a second.
    ///
    /// # Errors
    /// If it fails; its message is in the text.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut ctl = self.launch()?.ctl();
        let ran = command::run(ctl.arg("--quiet").args(arguments), CTL_BOUND)?;
        ensure!(
            ran.status.success(),
            "rabbitmqctl {}: {} {}",
            arguments.join(" "),
            ran.stdout.trim(),
            ran.stderr.trim()
        );
        Ok(ran.stdout)
    }

    /// Gives up ownership: the node stays up when this process ends. Returns its folder and state.
    ///
    /// # Errors
    /// If this cannot be recorded; the node is ended then.
    pub(crate) fn leave_up(mut self) -> Result<(PathBuf, NodeState)> {
        self.state.keeper = NodeOwner::Nobody;
        self.write_state()?;
        let folder = self.folder.take().context("the node is gone")?;
        Ok((folder.path, self.state.clone()))
    }

    /// Finds or creates the node's folder and picks its ports, under the lock of all nodes, so that no other process
    /// picks the same.
    fn prepare(options: NodeOptions, installed: Installed) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = match options.data {
            Data::Kept => options.name.clone(),
            Data::Deleted => {
                let count = COUNT.fetch_add(1, Ordering::Relaxed);
                format!("{}-{}-{count}", options.name, std::process::id())
            }
        };
        let nodes = Nodes::locked()?;
        nodes.sweep()?;
        let folder = nodes.own(&name)?;
        let taken = nodes.taken_ports()?;
        let left = NodeState::read(&folder.path)?;
        if let Some(left) = &left {
            left.end_processes()?;
        }
        let mut state = match left {
            Some(left) if left.came_up => NodeState {
                vm: None,
                epmd: None,
                ..left
            },
            _ => {
                launch::delete_data(&folder.path)?;
                NodeState::new(&name, Ports::pick(&taken)?)?
            }
        };
        state.keeper = match options.data {
            Data::Kept => NodeOwner::Nobody,
            Data::Deleted => NodeOwner::Owner,
        };
        match options.ports {
            Some(ports) => state.ports = ports,
            None if !state.ports.are_free() => state.ports = Ports::pick(&taken)?,
            None => {}
        }
        state.write(&folder.path)?;
        let guard = match options.data {
            Data::Kept => Guard::start::<&str>(&[])?,
            Data::Deleted => Guard::start(&[
                "rm".as_ref(),
                "-rf".as_ref(),
                "--".as_ref(),
                folder.path.as_os_str(),
            ])?,
        };
        Ok(Self {
            options,
            installed,
            state,
            vm: None,
            epmd: None,
            guard,
            folder: Some(folder),
        })
    }

    fn launch(&self) -> Result<Launch<'_>> {
        let folder = self.folder.as_ref().context("the node is gone")?;
        Ok(Launch {
            options: &self.options,
            installed: &self.installed,
            state: &self.state,
            folder: &folder.path,
        })
    }

    /// Epmd belongs to the node and stays up while the node is restarted.
    fn launch_epmd(&mut self) -> Result<()> {
        if let Some(epmd) = &mut self.epmd {
            if epmd.try_wait()?.is_none() {
                return Ok(());
            }
            self.guard.forget(epmd.id())?;
            self.epmd = None;
        }
        let free = wait::until(PORTS_BOUND, || {
            Ok(self.state.ports.are_free().then_some(()))
        })?;
        ensure!(
            free.is_some(),
            "a port between {} and {} is in use by another process",
            self.state.ports.amqp,
            self.state.ports.epmd
        );
        let epmd = self.launch()?.epmd()?;
        self.guard.watch(epmd.id())?;
        self.state.epmd = Some(epmd.id());
        self.epmd = Some(epmd);
        self.write_state()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let management = self.management();
        let port = self.state.ports.amqp;
        let vm = self.vm.as_mut().context("the node is not running")?;
        let ready = wait::until(START_BOUND, || {
            if let Some(status) = vm.try_wait()? {
                bail!("the broker exited during its start ({status})");
            }
            Ok((greets("127.0.0.1", port) && management.answers()).then_some(()))
        });
        let problem = match ready {
            Ok(Some(())) => return Ok(()),
            Ok(None) => format!(
                "the broker did not answer within {} s",
                START_BOUND.as_secs()
            ),
            Err(error) => error.to_string(),
        };
        let errors = self.launch()?.errors();
        // The remains of a failed start must not keep running.
        self.kill()?;
        bail!("{problem}; its output:\n{errors}")
    }

    fn lost_its_ports(&self) -> bool {
        let lost = self.launch().is_ok_and(|launch| launch.lost_a_port());
        self.options.ports.is_none() && lost
    }

    fn running_vm(&self) -> Result<u32> {
        let vm = self.vm.as_ref().context("the node is not running")?;
        Ok(vm.id())
    }

    /// Waits until `vm` is gone, kills it once `bound` has passed, and forgets its id.
    fn wait_for_end(&mut self, mut vm: Child, bound: Duration) -> Result<()> {
        let ended = wait::until(bound, || Ok(vm.try_wait()?))?;
        if ended.is_none() {
            let _ = vm.kill();
            let killed = wait::until(KILL_BOUND, || Ok(vm.try_wait()?))?;
            ensure!(
                killed.is_some(),
                "the broker, process {}, cannot be ended",
                vm.id()
            );
        }
        self.guard.forget(vm.id())?;
        self.state.vm = None;
        self.write_state()?;
        ensure!(
            ended.is_some(),
            "the broker did not stop within {} s and was killed",
            bound.as_secs()
        );
        Ok(())
    }

    fn write_state(&self) -> Result<()> {
        match &self.folder {
            Some(folder) => self.state.write(&folder.path),
            None => Ok(()),
        }
    }
}

impl Drop for InstalledNode {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        // A failure cannot be handled here; the guard and the next start's sweep are the safety net.
        if let Some(mut vm) = self.vm.take() {
            let _ = vm.kill();
            let _ = wait::until(KILL_BOUND, || Ok(vm.try_wait()?));
        }
        if let Some(mut epmd) = self.epmd.take() {
            let _ = epmd.kill();
            let _ = wait::until(KILL_BOUND, || Ok(epmd.try_wait()?));
        }
        match self.options.data {
            Data::Deleted => {
                let _ = folder.delete();
            }
            Data::Kept => {
                (self.state.vm, self.state.epmd) = (None, None);
                let _ = self.state.write(&folder.path);
            }
        }
    }
}
