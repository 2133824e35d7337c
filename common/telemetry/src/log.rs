//! The log: on standard error, filtered, as text or JSON. A panic is one line; repeated warnings are counted.

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object per line, for programs.
    Json,
}

#[derive(Debug)]
pub struct LogSettings {
    pub filter: EnvFilter,
    pub format: LogFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error("{text:?} is not a filter such as info or doorstep_runtime=debug: {detail}")]
    Filter {
        text: String,
        /// The part of the filter that is invalid.
        detail: String,
    },
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

/// Parses a filter. Unless it names lapin, lapin is turned off: it logs returned messages with their payload, and warns of errors that the
/// supervisor handles and reports itself.
///
/// # Errors
/// Names the invalid part of the filter.
pub fn filter(text: &str) -> Result<EnvFilter, LogError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let invalid = |detail: String| LogError::Filter {
        text: text.to_owned(),
        detail,
    };
    let filter: EnvFilter = parts
        .join(",")
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| invalid(e.to_string()))?;
    if parts.iter().any(|part| part.starts_with("lapin")) {
        return Ok(filter);
    }
    let lapin = "lapin=off"
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| invalid(e.to_string()))?;
    Ok(filter.add_directive(lapin))
}

/// Starts logging with this writer, including panics. Repeated warnings are counted, see [`end`]. Call once at the start of a program.
///
/// # Panics
/// If logging has already been started.
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
    // The engine turns an event whose handler panics into a dead letter; the panic message still belongs in the log.
    panic::set_hook(Box::new(log_panic));
}

/// Logs the outstanding counts of repeated warnings. Call at the end of a program.
pub fn end() {
    repeats::log_counts();
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("without a message");
    // On one line, because log processors expect lines.
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
    fn lapin_is_off_unless_named() {
        for quiet in ["debug", "info"] {
            let quiet = filter(quiet).unwrap().to_string();
            assert!(quiet.contains("lapin=off"), "{quiet}");
        }
        let explicit = filter("info, lapin=trace").unwrap().to_string();
        assert!(!explicit.contains("lapin=off"), "{explicit}");
    }

    #[test]
    fn errors_quote_the_invalid_setting() {
        let error = filter("a=b=c").unwrap_err().to_string();
        assert!(error.contains("\"a=b=c\""), "{error}");
        let error = LogFormat::from_str("xml").unwrap_err().to_string();
        assert!(error.contains("\"xml\""), "{error}");
    }
}
