//! Why a request has no reply.

use std::time::Duration;

use doorstep_event::Rejection;

/// Why there is no reply. After everything but [`Refused`](Self::Refused) and [`Overloaded`](Self::Overloaded) a command may have been
/// obeyed all the same, or may yet be: asking again under the same id tells, and does nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The role will not do it, and says why. Nothing was changed; the same request will be refused again.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// Nobody answers for that role now: it has no queue, or nobody consumes from it.
    #[error("nobody answers for {role}, is it running?")]
    NoResponder {
        /// The role that was asked.
        role: String,
    },
    /// The deadline is over.
    #[error("no answer came before the deadline")]
    TimedOut,
    /// There is more to do than can be done: here, in the queue or in the role. A command was not begun, unless it was asked before under
    /// the same id: of that it says nothing.
    #[error("too much is asked, try again in {retry_after:?}")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The broker is away, takes nothing for now, or was lost while the request was under way; or a server was lost that may have
    /// begun the command, and nobody can say now what became of it.
    #[error("the role cannot be reached for now: {reason}")]
    Unreachable {
        /// What is known of it.
        reason: String,
    },
    /// What came back is not a reply of the agreed form.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

impl CallError {
    /// Whether the same request, under the same id, may soon be answered.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoResponder { .. } | Self::Overloaded { .. } | Self::Unreachable { .. } => true,
            // With the deadline the time to try again is over, too.
            Self::Refused(_) | Self::TimedOut | Self::Malformed(_) => false,
        }
    }

    /// What to say of a command that was asked more than once, of which this is the last word: what was in doubt stays in doubt, until
    /// somebody says what became of it.
    pub(crate) fn prefer_ambiguous(self, doubt: Option<Self>) -> Self {
        match (self, doubt) {
            (Self::Overloaded { .. } | Self::NoResponder { .. }, Some(doubt)) => doubt,
            (error, _) => error,
        }
    }

    /// Whether the command may have been begun all the same, or may yet be.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::NoResponder { .. }
            | Self::TimedOut
            | Self::Unreachable { .. }
            | Self::Malformed(_) => true,
            Self::Refused(_) | Self::Overloaded { .. } => false,
        }
    }

    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self::Unreachable {
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_doubt_stays_so_until_somebody_says_what_became_of_it() {
        let retry_after = Duration::from_secs(1);
        let overloaded = || CallError::Overloaded { retry_after };
        let nobody = || CallError::NoResponder {
            role: "payments".to_owned(),
        };
        let lost = || CallError::unreachable("the connection broke");
        let refused = || CallError::from(Rejection::new("card_declined", "the card was declined"));
        for (doubt, last, says) in [
            (None, overloaded(), overloaded()),
            (Some(lost()), overloaded(), lost()),
            (Some(lost()), nobody(), lost()),
            (Some(nobody()), overloaded(), nobody()),
            (Some(lost()), CallError::TimedOut, CallError::TimedOut),
            (Some(lost()), refused(), refused()),
        ] {
            assert_eq!(last.prefer_ambiguous(doubt), says);
        }
        assert!(
            lost().may_have_executed()
                && nobody().may_have_executed()
                && !overloaded().may_have_executed()
        );
    }
}
