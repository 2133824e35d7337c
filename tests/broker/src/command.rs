//! Runs another program to its end, with a timeout.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

const LAST_OUTPUT_BOUND: Duration = Duration::from_secs(5);

pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` without input and returns its output. Kills it when `bound` has passed.
pub(crate) fn run(command: &mut Command, bound: Duration) -> Result<Ran> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let stdout = collected(child.stdout.take());
    let stderr = collected(child.stderr.take());
    let Some(status) = wait::until(bound, || Ok(child.try_wait()?))? else {
        // It may have just exited, so killing it may fail.
        let _ = child.kill();
        let _ = child.wait();
        bail!("{name} did not end within {} s", bound.as_secs());
    };
    // A child of that program may keep the pipe open beyond its end, hence the timeout.
    Ok(Ran {
        status,
        stdout: stdout.recv_timeout(LAST_OUTPUT_BOUND).unwrap_or_default(),
        stderr: stderr.recv_timeout(LAST_OUTPUT_BOUND).unwrap_or_default(),
    })
}

/// Returns true if `command` can be run and succeeds within `bound`.
pub(crate) fn succeeds(command: &mut Command, bound: Duration) -> bool {
    run(command, bound).is_ok_and(|ran| ran.status.success())
}

/// Reads a pipe on a thread of its own, so that the program is not blocked by a full pipe.
fn collected(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // The output before an error is worth showing, too.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let ran = run(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(ran.is_err());
    }

    #[test]
    fn much_output_on_both_pipes_does_not_block() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 3";
        let ran = run(
            Command::new("sh").args(["-c", script]),
            Duration::from_secs(30),
        )
        .unwrap();
        assert_eq!(ran.status.code(), Some(3));
        assert_eq!((ran.stdout.len(), ran.stderr.len()), (300_000, 300_000));
    }
}
