//! The folders of private nodes below `target/doorstep-broker`: their owners, and leftovers of killed owners.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::state::{NodeOwner, NodeState};
use crate::wait;

const LOCK_BOUND: Duration = Duration::from_secs(60);
const FORK_BOUND: Duration = Duration::from_secs(5);

/// All node folders, locked while this process creates, finds or removes one. The lock is held only for as long as it
/// takes to end a few leftover processes.
pub(crate) struct Nodes {
    root: PathBuf,
    _lock: File,
}

/// A node's folder with the lock that shows that its owner is alive. The kernel releases the lock when the owner ends.
#[derive(Debug)]
pub(crate) struct OwnedFolder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Nodes {
    pub(crate) fn locked() -> Result<Self> {
        let root = nodes_folder()?;
        private_folder(&root)?;
        let path = root.join(".lock");
        let lock =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match wait::until(LOCK_BOUND, || Ok(try_lock(&lock)?.then_some(())))? {
            Some(()) => Ok(Self { root, _lock: lock }),
            None => bail!("{} is locked by another process", path.display()),
        }
    }

    /// Ends the nodes whose owners are gone and deletes their folders.
    pub(crate) fn sweep(&self) -> Result<()> {
        for folder in self.folders()? {
            let state = NodeState::read(&folder)?;
            let stays = state
                .as_ref()
                .is_some_and(|state| state.keeper == NodeOwner::Nobody);
            if stays {
                continue;
            }
            // Locked by a living owner, or being deleted by one: left alone.
            let Ok(Some(owned)) = OwnedFolder::lock_existing(folder) else {
                continue;
            };
            if let Some(state) = state {
                state.end_processes()?;
            }
            owned.delete()?;
        }
        Ok(())
    }

    /// Returns the recorded ports of all nodes, running or not.
    pub(crate) fn taken_ports(&self) -> Result<Vec<u16>> {
        let mut taken = Vec::new();
        for folder in self.folders()? {
            if let Some(state) = NodeState::read(&folder)? {
                taken.extend(state.ports.all());
            }
        }
        Ok(taken)
    }

    /// Creates the folder `name`, or takes over the leftover of an owner that is gone.
    ///
    /// # Errors
    /// If a living process owns it.
    pub(crate) fn own(&self, name: &str) -> Result<OwnedFolder> {
        let path = self.root.join(name);
        private_folder(&path)?;
        // A child process that another thread is starting has a copy of every lock between fork and exec.
        match wait::until(FORK_BOUND, || OwnedFolder::lock_existing(path.clone()))? {
            Some(owned) => Ok(owned),
            None => bail!("the node {name} is being used by another process"),
        }
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        Ok(folders)
    }
}

impl OwnedFolder {
    /// Takes the lock of an existing folder; `None` if another process has it.
    fn lock_existing(path: PathBuf) -> Result<Option<Self>> {
        let lock = File::create(path.join("owner.lock"))
            .with_context(|| format!("cannot write into {}", path.display()))?;
        Ok(try_lock(&lock)?.then_some(Self { path, _lock: lock }))
    }

    /// Deletes the folder with its contents.
    pub(crate) fn delete(self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            // A sweep may find a folder that its owner is deleting.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Returns Cargo's target folder, for everything that a checkout produces.
///
/// # Errors
/// If the current folder is unknown.
pub fn target_folder() -> Result<PathBuf> {
    // Cargo marks its target folder with this file, and every test and xtask runs from within it.
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    let program = std::env::current_exe().unwrap_or_default();
    if let Some(folder) = program.ancestors().skip(1).find(marked) {
        return Ok(folder.to_owned());
    }
    let here = std::env::current_dir().context("the current folder is unknown")?;
    Ok(here.join("target"))
}

fn nodes_folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("doorstep-broker"))
}

/// Creates a folder that only its owner may enter, since it contains a node's password and cookie.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

fn try_lock(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("this file system has no locks"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::ports::Ports;
    use crate::process;

    #[test]
    fn leftovers_of_a_killed_owner_are_deleted() {
        let nodes = Nodes::locked().unwrap();
        let name = format!("left-over-{}", std::process::id());
        let left = nodes.own(&name).unwrap();
        let mut state = NodeState::new(&name, Ports::from_first(20_900)).unwrap();
        let mark = state.vm_mark();
        // A process with a command line like the node's, waiting for input that never comes.
        let mut vm = Command::new("sh")
            .args(["-c", "read -r _", &mark])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        state.vm = Some(vm.id());
        state.write(&left.path).unwrap();
        // A command line is readable only a moment after its program was started.
        let runs = wait::until(Duration::from_secs(10), || {
            Ok(process::is_running(vm.id(), &mark).then_some(()))
        });
        assert!(runs.unwrap().is_some());

        nodes.sweep().unwrap();
        assert!(left.path.is_dir(), "its owner lives");

        // Releases the lock, as the kernel does when its holder dies. A child process that another test is starting has
        // a copy of it between fork and exec.
        let path = left.path.clone();
        drop(left);
        let swept = wait::until(Duration::from_secs(10), || {
            nodes.sweep()?;
            Ok((!path.exists()).then_some(()))
        });
        assert!(swept.unwrap().is_some(), "{} stays", path.display());
        assert!(!process::is_running(vm.id(), &mark));
        assert!(!vm.wait().unwrap().success());
    }

    #[test]
    fn objects_without_an_owner_stay() {
        let nodes = Nodes::locked().unwrap();
        let name = format!("kept-{}", std::process::id());
        let kept = nodes.own(&name).unwrap();
        let mut state = NodeState::new(&name, Ports::from_first(20_904)).unwrap();
        state.keeper = NodeOwner::Nobody;
        state.write(&kept.path).unwrap();
        drop(kept);
        nodes.sweep().unwrap();
        assert!(nodes.path_of(&name).is_dir());
        assert!(nodes.taken_ports().unwrap().contains(&20_907));
        nodes.own(&name).unwrap().delete().unwrap();
    }
}
