//! Why a program ends without having done all that it was asked, and the exit code that says so. Which of them a program uses stands at
//! the end of its help.

use std::fmt;

/// Why the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// What no other reason covers.
    Failed,
    /// Everything was done, and something needs an operator.
    Trouble,
    /// The broker differs from what is declared here.
    Differs,
    /// Somebody else has settled it first.
    Settled,
    /// Wrong usage or settings.
    Settings,
    /// The input is not what it should be, or not of a kind with which this can be done.
    Data,
    /// It is not there, or may not be read.
    Missing,
    /// The broker cannot be reached, or does not take events or let roles work.
    Broker,
    /// A mistake in the program.
    Internal,
    /// A store cannot be created or opened.
    CannotCreate,
    /// A store or file cannot be read or written.
    Io,
    /// It may work a moment later.
    Busy,
    /// A role's queue belongs to another store.
    OtherStore,
    /// The user stopped the program.
    Interrupted,
}

impl ExitReason {
    /// The exit code, by the usual numbers of `sysexits.h`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Trouble | Self::Differs => 2,
            Self::Settled => 3,
            Self::Settings => 64,
            Self::Data => 65,
            Self::Missing => 66,
            Self::Broker => 69,
            Self::Internal => 70,
            Self::CannotCreate => 73,
            Self::Io => 74,
            Self::Busy => 75,
            Self::OtherStore => 78,
            Self::Interrupted => 130,
        }
    }
}

/// The end of the program: what went wrong, in words for whoever typed the command.
#[derive(Debug)]
pub struct CliError {
    /// Decides the exit code.
    pub reason: ExitReason,
    text: String,
}

impl CliError {
    /// Ends with this reason and text; the text names the thing and, where there is one, the remedy.
    pub fn new(reason: ExitReason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}
