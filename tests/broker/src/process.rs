//! Processes by their id: signals, and checks that an id still belongs to the recorded process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait;

const END_BOUND: Duration = Duration::from_secs(10);
const FREEZE_BOUND: Duration = Duration::from_secs(10);

/// A signal to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Requests a graceful stop.
    Terminate,
    /// Ends it immediately.
    Kill,
    /// Freezes it; its connections stay open and go silent.
    Freeze,
    /// Resumes a frozen process.
    Thaw,
}

/// Sends `signal` to the process `pid`. A frozen process stands still when this returns.
///
/// # Errors
/// If there is no such process, another user owns it, or it keeps running after the freeze.
pub fn send_signal(pid: u32, signal: Signal) -> Result<()> {
    let name = match signal {
        Signal::Terminate => "TERM",
        Signal::Kill => "KILL",
        Signal::Freeze => "STOP",
        Signal::Thaw => "CONT",
    };
    // The shell's builtin `kill`, since the program of that name is missing on some systems.
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()])
        .output()
        .context("cannot run sh")?;
    let reason = String::from_utf8_lossy(&sent.stderr);
    ensure!(
        sent.status.success(),
        "cannot send SIG{name} to process {pid}: {}",
        reason.trim()
    );
    if signal != Signal::Freeze {
        return Ok(());
    }
    // The signal reaches each thread separately, and on a busy machine some keep running for a while.
    match wait::until(FREEZE_BOUND, || Ok(stands_still(pid).then_some(())))? {
        Some(()) => Ok(()),
        None => bail!("process {pid} keeps running after SIGSTOP"),
    }
}

/// Returns true if no thread of a process runs, or if the system does not show threads.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    let runs = |thread: fs::DirEntry| {
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else {
            return false;
        };
        // The fields follow the name, which is in brackets and may contain anything.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        !matches!(state, Some('T' | 't' | 'Z' | 'X'))
    };
    !threads.flatten().any(runs)
}

/// Returns true if `pid` is a running process whose command line contains `mark`. Ids are reused, marks are not.
pub(crate) fn is_running(pid: u32, mark: &str) -> bool {
    command_line(pid).is_some_and(|line| line.contains(mark))
}

/// Ends a process started by an earlier process, if it is still running, and waits until it is gone.
pub(crate) fn end(pid: u32, mark: &str) -> Result<()> {
    if !is_running(pid, mark) {
        return Ok(());
    }
    send_signal(pid, Signal::Kill)?;
    let gone = wait::until(END_BOUND, || Ok((!is_running(pid, mark)).then_some(())))?;
    match gone {
        Some(()) => Ok(()),
        None => bail!("process {pid} ({mark}) is still there after SIGKILL"),
    }
}

/// Returns the arguments of a process, separated by spaces; `None` if it is gone or waits to be reaped.
fn command_line(pid: u32) -> Option<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        return (!line.is_empty()).then_some(line);
    }
    let shown = Command::new("ps")
        .args(["-ww", "-o", "args=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let line = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    (shown.status.success() && !line.is_empty() && !line.starts_with('<')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_recognised_by_its_mark_only() {
        let mut child = Command::new("sleep").arg("61.5").spawn().unwrap();
        let seen = wait::until(END_BOUND, || {
            Ok(is_running(child.id(), "61.5").then_some(()))
        });
        assert_eq!(seen.unwrap(), Some(()));
        assert!(!is_running(child.id(), "another mark"));
        end(child.id(), "another mark").unwrap();
        assert!(child.try_wait().unwrap().is_none());
        end(child.id(), "61.5").unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(send_signal(child.id(), Signal::Terminate).is_err());
    }
}
