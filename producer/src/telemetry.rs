//! What the program tells of itself: its log on standard error, and its spans if a collector is named.

use std::io::{self, IsTerminal, Write};

use doorstep_messaging::trace;
use doorstep_telemetry::{
    HttpUrl,
    log::{self, LogSettings},
    trace::Tracing,
};
use tracing_subscriber::fmt::MakeWriter;

/// What is logged unless said otherwise: not what `doorstep_messaging` and lapin report of the connection, which the sender tells in
/// words for whoever typed the command.
pub(crate) const DEFAULT_FILTER: &str = "warn,doorstep_messaging=error,lapin=off";

/// What to tell, and whom.
#[derive(Debug)]
pub(crate) struct TelemetrySettings {
    /// The log.
    pub(crate) log: LogSettings,
    /// Who takes spans.
    pub(crate) collector: Option<HttpUrl>,
}

/// Starts to log, and to hand over spans until what is returned is dropped.
pub(crate) fn start(settings: TelemetrySettings) -> Option<Tracing> {
    log::start(settings.log, Stderr);
    settings.collector.map(|collector| {
        let tracing = Tracing::start(collector, "doorstep-producer");
        trace::start();
        tracing
    })
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
