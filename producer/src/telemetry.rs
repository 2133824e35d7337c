//! The log: on standard error, by `DOORSTEP_LOG`.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// What is logged unless said otherwise: not what `doorstep_messaging` and lapin report of the connection, which the sender tells in
/// words for whoever typed the command.
pub(crate) const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

/// Starts to log.
pub(crate) fn start(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Stderr)
        .init();
}

/// Standard error; on a terminal a progress bar that stands on the line gives way.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
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
