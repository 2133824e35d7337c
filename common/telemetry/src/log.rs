//! The log: on standard error, filtered, as text or as JSON. Panics come as one line of it; warnings that repeat are counted.

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    str::FromStr,
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{
        MakeWriter,
        format::{JsonFields, format},
    },
};

mod repeats;

use repeats::Seldom;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

/// What is logged, and how.
#[derive(Debug)]
pub struct LogSettings {
    /// Which.
    pub filter: EnvFilter,
    /// How.
    pub format: LogFormat,
}

/// What cannot be read as a setting of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The filter.
    #[error("{text:?} is not a filter such as info or doorstep_runtime=debug: {detail}")]
    Filter {
        /// What was given.
        text: String,
        /// Which part of it is wrong.
        detail: String,
    },
    /// The format.
    #[error("{0:?} is neither text nor json")]
    Format(String),
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

/// Reads a filter. Unless it names lapin itself, lapin is kept silent: it logs returned messages with their payload, and reports as
/// warnings what the supervisor mends and tells in words.
///
/// # Errors
/// Says which part of the filter cannot be read.
pub fn filter(text: &str) -> Result<EnvFilter, LogError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let wrong = |detail: String| LogError::Filter {
        text: text.to_owned(),
        detail,
    };
    let filter: EnvFilter = parts
        .join(",")
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| wrong(e.to_string()))?;
    if parts.iter().any(|part| part.starts_with("lapin")) {
        return Ok(filter);
    }
    let lapin = "lapin=off"
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| wrong(e.to_string()))?;
    Ok(filter.add_directive(lapin))
}

/// Starts to log with this writer, panics included. Warnings that repeat are counted, see [`end`]. For once at the start of a program.
///
/// # Panics
/// If there is a log already.
pub fn start<W>(settings: LogSettings, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer);
    match settings.format {
        LogFormat::Text => builder.event_format(Seldom(format())).init(),
        LogFormat::Json => builder
            .fmt_fields(JsonFields::new())
            .event_format(Seldom(format().json().flatten_event(true)))
            .init(),
    }
    // The engine makes a dead letter of an event whose handler panics; what it panicked with belongs in the log all the same.
    panic::set_hook(Box::new(log_panic));
}

/// Logs the counts of warnings that were repeated and not logged yet. For the end of a program.
pub fn end() {
    repeats::log_counts();
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
#[allow(clippy::unwrap_used, reason = "all of this is tests")]
mod tests {
    use super::*;

    #[test]
    fn lapin_is_quiet_unless_it_is_asked_for() {
        for quiet in ["debug", "info"] {
            let quiet = filter(quiet).unwrap().to_string();
            assert!(quiet.contains("lapin=off"), "{quiet}");
        }
        let asked = filter("info, lapin=trace").unwrap().to_string();
        assert!(!asked.contains("lapin=off"), "{asked}");
    }

    #[test]
    fn a_wrong_filter_or_format_is_told_with_its_text() {
        let said = filter("a=b=c").unwrap_err().to_string();
        assert!(said.contains("\"a=b=c\""), "{said}");
        let said = LogFormat::from_str("xml").unwrap_err().to_string();
        assert!(said.contains("\"xml\""), "{said}");
    }
}
