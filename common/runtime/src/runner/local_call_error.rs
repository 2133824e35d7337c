//! The failure of a call in this process.

use std::time::Duration;

/// The reason why a call has no result. After [`LocalCallError::TimedOut`] and [`LocalCallError::Closed`], a command
/// may still have been executed or may yet be: a repeated call under the same id tells, and executes nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalCallError {
    /// A bound is reached. The request was not started now; an earlier call under the same id may have been.
    #[error("the role is overloaded, try again in {retry_after:?}")]
    Overloaded {
        /// The recommended delay before a retry.
        retry_after: Duration,
    },
    /// The deadline is over.
    #[error("no reply came before the deadline")]
    TimedOut,
    /// The role has ended, or is ending.
    #[error("the role has ended")]
    Closed,
    /// The store cannot be read now, so a query has no result.
    #[error("{reason}")]
    Unavailable {
        /// The store's error.
        reason: String,
    },
}
