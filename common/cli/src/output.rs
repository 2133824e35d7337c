//! Standard output, whose reader may close it early.

use std::io::{self, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use crate::CliError;

/// Writes to standard output. A reader that has closed it (`| head`) has read enough, which is no failure.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(cannot_write("standard output", &e)),
        _ => Ok(()),
    }
}

/// Writes one line to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_line(line: &str) -> Result<(), CliError> {
    print(|out| writeln!(out, "{line}"))
}

/// Writes one JSON object on one line to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    print(|out| {
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// Returns the failure for output that cannot be written.
pub fn cannot_write(what: &str, error: &io::Error) -> CliError {
    CliError::io(format!("cannot write {what}: {error}"))
}

/// Creates a progress bar with this template on standard error, shown if that is a terminal.
#[must_use]
pub fn progress_bar(total: Option<u64>, template: &str) -> ProgressBar {
    // At most five redraws a second: more cost more than they show.
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Standard error for the log; on a terminal a progress bar that stands on the line gives way.
pub struct SuspendBar;

impl<'a> MakeWriter<'a> for SuspendBar {
    type Writer = io::Stderr;

    fn make_writer(&'a self) -> Self::Writer {
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // The log has nowhere to say that it cannot be written.
            let _ = stderr.write_all(b"\r\x1b[2K");
        }
        stderr
    }
}
