//! Why the program ends without having done all that it was asked, and the exit code that says so.

use std::fmt;

/// The exit codes, as they stand at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed in a way that the other codes do not cover
  2    `run --until-idle`: all is worked, but something is blocked, missing or dead; `dead replay`: some were refused anew;
       `topology verify`: the broker differs;
       `health`: not every role does its work, or something is stuck
  3    `dead`: already settled or edited by somebody else
  64   wrong usage or settings; all wrong settings are listed at once
  65   `dead`: what cannot be tried again, and data that would not be taken
  66   the store, entity or dead letter is not there; `health`: nobody answers
  69   the broker cannot be reached, or does not let the roles work
  70   a role broke off: a mistake in the program
  73   the store cannot be created or opened
  74   reading or writing a store or file failed
  75   too busy just now, try again
  130  interrupted before all was done, or ended at once by a second SIGINT or SIGTERM";

/// Why the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What no other reason covers.
    Failed,
    /// Everything was worked, and something needs an operator.
    Trouble,
    /// The broker differs from what is declared here.
    Differs,
    /// Somebody else has settled it first.
    Settled,
    /// Wrong usage or settings.
    Settings,
    /// It is not of a kind with which this can be done.
    Data,
    /// It is not there.
    Missing,
    /// The broker cannot be reached, or does not let the roles work.
    Broker,
    /// A mistake in the program.
    Internal,
    /// A store cannot be created or opened.
    CannotCreate,
    /// A store or file cannot be read or written.
    Io,
    /// It may work a moment later.
    Busy,
    /// The user stopped the program.
    Interrupted,
}

impl Reason {
    /// The exit code, by the usual numbers of `sysexits.h`.
    pub(crate) fn code(self) -> u8 {
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
