//! What the program tells of itself while it runs: its log, and its spans if a collector is named.

use std::io;

use doorstep_messaging::trace;
use doorstep_telemetry::{
    HttpUrl,
    log::{self, LogSettings},
    trace::Tracing,
};

/// What is logged unless said otherwise.
pub(crate) const DEFAULT_FILTER: &str = "info";

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
    log::start(settings.log, io::stderr);
    settings.collector.map(|collector| {
        let tracing = Tracing::start(collector, "doorstep-consumers");
        trace::start();
        tracing
    })
}
