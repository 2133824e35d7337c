//! Standard output, whose reader may have had enough.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::{CliError, ExitReason};

/// Writes to standard output. A reader that has gone (`| head`) has had enough, and that is no failure.
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

/// Says that something cannot be written.
pub fn cannot_write(what: &str, error: &io::Error) -> CliError {
    CliError::new(ExitReason::Io, format!("cannot write {what}: {error}"))
}
