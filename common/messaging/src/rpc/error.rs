//! Why a request has no reply.

use std::time::Duration;

use doorstep_event::Refused;

/// Why there is no reply. After everything but [`Refused`](Self::Refused) and [`Overloaded`](Self::Overloaded) a command may have been
/// obeyed all the same, or may yet be: asking again under the same id tells, and does nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The role will not do it, and says why. Nothing was changed; the same request will be refused again.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody answers for that role now: it has no queue, or nobody consumes from it.
    #[error("nobody answers for {role}, is it running?")]
    NoResponder {
        /// The role that was asked.
        role: String,
    },
    /// The deadline is over.
    #[error("no answer came before the deadline")]
    TimedOut,
    /// There is more to do than can be done: here, in the queue or in the role. The request was not begun.
    #[error("too much is asked, try again in {retry_after:?}")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The broker is away, takes nothing for now, or was lost while the request was under way.
    #[error("the broker is not there for requests: {reason}")]
    Unreachable {
        /// What is known of it.
        reason: String,
    },
    /// What came back is not a reply of the agreed form.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

impl AskError {
    /// Whether the same request, under the same id, may soon be answered.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoResponder { .. } | Self::Overloaded { .. } | Self::Unreachable { .. } => true,
            // With the deadline the time to try again is over, too.
            Self::Refused(_) | Self::TimedOut | Self::Malformed(_) => false,
        }
    }

    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self::Unreachable {
            reason: reason.into(),
        }
    }
}
