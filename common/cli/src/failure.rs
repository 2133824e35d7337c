//! The reasons for which a program ends without having done its work, with their exit codes. The end of a program's
//! help lists those that it uses.

use doorstep_store::StoreError;

/// The reason for which a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// A failure that no other reason covers.
    Failed,
    /// All was done, and something needs an operator.
    Trouble,
    /// The broker differs from the declared topology.
    Differs,
    /// Another operator has resolved it first.
    Settled,
    /// Wrong usage or settings.
    Settings,
    /// The input is invalid, or of a kind that does not allow this.
    Data,
    /// A thing that does not exist or may not be read.
    Missing,
    /// The broker is unreachable, accepts no events, or does not let roles work.
    Broker,
    /// A bug in the program.
    Internal,
    /// A store cannot be created or opened.
    CannotCreate,
    /// A store or file cannot be read or written.
    Io,
    /// A temporary failure: a retry a moment later may succeed.
    Busy,
    /// A role's queue belongs to another store.
    OtherStore,
    /// The user stopped the program.
    Interrupted,
}

impl ExitReason {
    /// Returns the exit code, by the usual numbers of `sysexits.h`.
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

/// A program's failure, in words for the user who typed the command.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct CliError {
    /// The reason, which decides the exit code.
    pub reason: ExitReason,
    text: String,
}

impl CliError {
    /// Creates a failure with this reason and text. The text names the object and, if there is one, the remedy.
    pub fn new(reason: ExitReason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

macro_rules! constructors {
    ($($name:ident => $reason:ident),* $(,)?) => {
        /// One constructor for each common reason.
        impl CliError {
            $(pub fn $name(text: impl Into<String>) -> Self {
                Self::new(ExitReason::$reason, text)
            })*
        }
    };
}

constructors! {
    broker => Broker,
    busy => Busy,
    cannot_create => CannotCreate,
    data => Data,
    differs => Differs,
    failed => Failed,
    internal => Internal,
    interrupted => Interrupted,
    io => Io,
    missing => Missing,
    settings => Settings,
    settled => Settled,
    trouble => Trouble,
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let reason = match error {
            StoreError::Unavailable { .. } => ExitReason::Io,
            StoreError::Unusable { .. } => ExitReason::CannotCreate,
        };
        Self::new(reason, error.to_string())
    }
}
