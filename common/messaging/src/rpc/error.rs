//! Errors of RPC calls.

use std::time::Duration;

use doorstep_event::Rejection;

/// The reason why a call has no reply. Except after [`Rejected`](Self::Rejected) and [`Overloaded`](Self::Overloaded), a command may have
/// been executed, or may still be. Calling again with the same id returns its result, and executes nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The role rejects the request. Nothing was changed, and the same request will be rejected again.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No server consumes the role's requests: the queue is missing or has no consumer.
    #[error("no consumer serves requests to {role}: is it running?")]
    NoResponder { role: String },
    #[error("no reply before the deadline")]
    TimedOut,
    /// This client, the queue or the role is overloaded. This attempt has not begun the command; an earlier attempt with the same id may
    /// have.
    #[error("overloaded: try again in {retry_after:?}")]
    Overloaded {
        /// Time after which a retry makes sense.
        retry_after: Duration,
    },
    /// The broker is unreachable, blocks publishing, or was lost during the call. Or a server was lost that may have begun the command, and
    /// its result is not known for now.
    #[error("the role cannot be reached for now: {reason}")]
    Unreachable { reason: String },
    /// The reply violates the wire format.
    #[error("the reply is malformed: {0}")]
    Malformed(String),
}

impl CallError {
    /// Returns whether a retry with the same id may soon succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoResponder { .. } | Self::Overloaded { .. } | Self::Unreachable { .. } => true,
            // After the deadline, there is no time for a retry either.
            Self::Rejected(_) | Self::TimedOut | Self::Malformed(_) => false,
        }
    }

    /// Returns the error to report after retries of a command. `self` is the last error, `doubt` an earlier ambiguous one: an ambiguous
    /// outcome stays so until a reply resolves it.
    pub(crate) fn prefer_ambiguous(self, doubt: Option<Self>) -> Self {
        match (self, doubt) {
            (Self::Overloaded { .. } | Self::NoResponder { .. }, Some(doubt)) => doubt,
            (error, _) => error,
        }
    }

    /// Returns whether the command may have been executed, or may still be.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::NoResponder { .. }
            | Self::TimedOut
            | Self::Unreachable { .. }
            | Self::Malformed(_) => true,
            Self::Rejected(_) | Self::Overloaded { .. } => false,
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
    fn an_ambiguous_outcome_stays_until_resolved() {
        let retry_after = Duration::from_secs(1);
        let overloaded = || CallError::Overloaded { retry_after };
        let no_responder = || CallError::NoResponder {
            role: "payments".to_owned(),
        };
        let lost = || CallError::unreachable("the connection broke");
        let rejected = || CallError::from(Rejection::new("card_declined", "the card was declined"));
        for (doubt, last, says) in [
            (None, overloaded(), overloaded()),
            (Some(lost()), overloaded(), lost()),
            (Some(lost()), no_responder(), lost()),
            (Some(no_responder()), overloaded(), no_responder()),
            (Some(lost()), CallError::TimedOut, CallError::TimedOut),
            (Some(lost()), rejected(), rejected()),
        ] {
            assert_eq!(last.prefer_ambiguous(doubt), says);
        }
        assert!(
            lost().may_have_executed()
                && no_responder().may_have_executed()
                && !overloaded().may_have_executed()
        );
    }
}
