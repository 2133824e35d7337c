//! The failure of a call in this process.

use std::time::Duration;

/// Why a request has no answer. After [`LocalCallError::TimedOut`] and [`LocalCallError::Closed`] a command may have been obeyed all the same, or
/// may yet be: asking again under the same id tells, and does nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalCallError {
    /// There is more to do than can be done. The request was not begun, unless it was asked before under the same id: of that it says
    /// nothing.
    #[error("too much is asked of this role, try again in {retry_after:?}")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The deadline is over.
    #[error("no answer came before the deadline")]
    TimedOut,
    /// The role has ended, or is ending.
    #[error("the role has ended")]
    Closed,
    /// The store cannot be read now, so a query has no answer.
    #[error("{reason}")]
    Unavailable {
        /// What the store has said.
        reason: String,
    },
}
