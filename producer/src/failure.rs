//! Why the program ends without having done its work, and the exit code that says so.

use std::fmt;

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done; rows that an import refused are counted and listed, and do not change this
  1    failed in a way that the other codes do not cover
  64   wrong usage or settings; all wrong settings are listed at once
  65   wrong input data: not gzip, not CSV, truncated, other columns; `publish`: at least one line was refused
  66   the input file is missing or cannot be opened
  69   the broker cannot be reached, or does not take the events
  74   reading or writing a file failed
  130  stopped by SIGINT or SIGTERM: what was confirmed is told, and a second signal ends at once";

/// Why the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What no other reason covers.
    Failed,
    /// Wrong usage or settings.
    Settings,
    /// The input is not what it should be.
    Data,
    /// The input is not there, or may not be read.
    Missing,
    /// The broker cannot be reached, or does not take events.
    Broker,
    /// A file could not be read or written.
    Io,
    /// The user stopped the program.
    Interrupted,
}

impl Reason {
    /// The exit code, by the usual numbers of `sysexits.h`.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Settings => 64,
            Self::Data => 65,
            Self::Missing => 66,
            Self::Broker => 69,
            Self::Io => 74,
            Self::Interrupted => 130,
        }
    }
}

/// The end of the program: what went wrong, in words for whoever typed the command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) reason: Reason,
    text: String,
}

impl Failure {
    /// Ends with this reason and text; the text names the thing and, where there is one, the remedy.
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
