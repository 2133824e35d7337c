//! Ends the processes that a process has started when that process ends, however that happens.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// The guard reads orders until its input ends. The end without `done` means that its owner has died. It ignores
/// signals, since a signal that ends its owner may also be sent to it.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
pids=
while read -r word value; do
  case $word in
    watch) pids="$pids $value" ;;
    forget) kept=; for pid in $pids; do [ "$pid" = "$value" ] || kept="$kept $pid"; done; pids=$kept ;;
    done) exit 0 ;;
  esac
done
[ -z "$pids" ] || kill -KILL $pids
[ $# -eq 0 ] || exec "$@"
"#;

/// A small shell process that outlives its owner by a moment. When the owner ends without dropping the guard (Ctrl-C,
/// SIGKILL, a crash), it kills the watched processes and runs a last command. If it is dropped, it does nothing.
///
/// A pipe that the kernel closes reports the end, so no signal is caught and nothing is polled. The guard runs in a
/// process group of its own, so Ctrl-C on a terminal does not reach it.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    orders: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard that watches nothing yet. After it has killed the watched processes, it will run `last_command`
    /// (program and arguments; may be empty).
    ///
    /// # Errors
    /// If no process can be started.
    pub fn start<S: AsRef<OsStr>>(last_command: &[S]) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
            .args(last_command)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run sh")?;
        let orders = shell.stdin.take();
        Ok(Self { shell, orders })
    }

    /// From now on the process `pid` is killed when the owner ends.
    ///
    /// # Errors
    /// If the guard itself was killed.
    pub fn watch(&mut self, pid: u32) -> Result<()> {
        self.order(&format!("watch {pid}\n"))
    }

    /// Forgets `pid`, which has ended. Required, since the system reuses ids.
    ///
    /// # Errors
    /// As [`Guard::watch`].
    pub fn forget(&mut self, pid: u32) -> Result<()> {
        self.order(&format!("forget {pid}\n"))
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the guard has ended")?;
        // One write for each order, so that the owner's end cannot cut it in two.
        orders
            .write_all(order.as_bytes())
            .context("the guard has ended")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The shell ends once its input is closed, so waiting for it needs no timeout.
        let _ = self.order("done\n");
        self.orders = None;
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::{process, wait};

    const BOUND: Duration = Duration::from_secs(10);

    #[test]
    fn a_dead_owners_guard_kills_and_cleans_up() {
        let trace = std::env::temp_dir().join(format!("doorstep-guard-{}", std::process::id()));
        let mut watched = Command::new("sleep").arg("62.25").spawn().unwrap();
        let mut forgotten = Command::new("sleep").arg("62.75").spawn().unwrap();
        let mut guard = Guard::start(&[OsStr::new("touch"), trace.as_os_str()]).unwrap();
        guard.watch(forgotten.id()).unwrap();
        guard.watch(watched.id()).unwrap();
        guard.forget(forgotten.id()).unwrap();
        // The kernel closes the pipe in the same way when the owner dies.
        guard.orders = None;
        let ended = wait::until(BOUND, || Ok(watched.try_wait()?)).unwrap();
        assert!(!ended.unwrap().success());
        let ran = wait::until(BOUND, || Ok(trace.exists().then_some(()))).unwrap();
        assert_eq!(ran, Some(()));
        assert!(process::is_running(forgotten.id(), "62.75"));
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
        fs::remove_file(trace).unwrap();
    }

    #[test]
    fn a_guard_that_is_dropped_does_nothing() {
        let mut watched = Command::new("sleep").arg("63.25").spawn().unwrap();
        let mut guard = Guard::start::<&str>(&[]).unwrap();
        guard.watch(watched.id()).unwrap();
        drop(guard);
        assert!(watched.try_wait().unwrap().is_none());
        watched.kill().unwrap();
        watched.wait().unwrap();
    }
}
