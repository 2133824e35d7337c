//! The log: on standard error, by `DOORSTEP_LOG`, as text or as JSON. Panics come as one line of it.

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::EnvFilter;

/// What is logged unless said otherwise.
pub(crate) const DEFAULT_FILTER: &str = "info";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// What is logged, and how.
#[derive(Debug)]
pub(crate) struct LogSettings {
    /// Which.
    pub(crate) filter: EnvFilter,
    /// How.
    pub(crate) format: LogFormat,
}

/// Reads a filter. Unless it names lapin itself, lapin is limited to errors: it logs returned messages with their payload, and
/// reports as warnings what the supervisor mends and tells in words.
///
/// # Errors
/// Says which part of the filter cannot be read.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let filter: EnvFilter = parts.join(",").parse().map_err(|e| {
        format!("{text:?} is not a filter such as info or doorstep_runtime=debug: {e}")
    })?;
    if parts.iter().any(|part| part.starts_with("lapin")) {
        return Ok(filter);
    }
    let lapin = "lapin=off".parse().map_err(|e| format!("lapin=off: {e}"))?;
    Ok(filter.add_directive(lapin))
}

/// Starts to log, panics included.
pub(crate) fn start(settings: LogSettings) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    // The engine makes a dead letter of an event whose handler panics; what it panicked with belongs in the log all the same.
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("without a text");
    // On one line, whatever is in it: what reads the log takes lines.
    let text = text.escape_debug();
    match panic.location() {
        Some(at) => tracing::error!(file = at.file(), line = at.line(), "panicked: {text}"),
        None => tracing::error!("panicked: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lapin_is_quiet_unless_it_is_asked_for() {
        let quiet = filter("debug").unwrap().to_string();
        assert!(quiet.contains("lapin=off"), "{quiet}");
        let default = filter(DEFAULT_FILTER).unwrap().to_string();
        assert!(default.contains("lapin=off"), "{default}");
        let asked = filter("info, lapin=trace").unwrap().to_string();
        assert!(!asked.contains("lapin=off"), "{asked}");
    }

    #[test]
    fn a_wrong_filter_is_told_with_its_text() {
        let said = filter("a=b=c").unwrap_err();
        assert!(said.contains("\"a=b=c\""), "{said}");
    }
}
