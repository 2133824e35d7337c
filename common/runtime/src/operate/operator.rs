//! The attribution of a manual change: operator, time and reason.

use doorstep_event::Timestamp;
use doorstep_store::{AuditAction, NewAudit};

/// The maximum length of an operator's name and of a reason, in bytes.
const MAX_NAME_BYTES: usize = 1_000;

/// The name of an operator who changes something by hand. It is self-declared and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, derive_more::Display)]
pub struct Operator(String);

/// The error for a name or reason that cannot be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be recorded: write 1 to {MAX_NAME_BYTES} bytes of text without control characters"
)]
pub struct OperatorError(String);

impl Operator {
    /// Creates an operator from a name.
    ///
    /// # Errors
    /// It is empty, too long, or contains control characters.
    pub fn new(name: &str) -> Result<Self, OperatorError> {
        checked(name).map(Self)
    }
}

/// The operator, time and reason of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    pub(super) operator: Operator,
    pub(super) at: Timestamp,
    pub(super) reason: Option<String>,
}

impl Attribution {
    /// Attributes a change to this operator at this time.
    #[must_use]
    pub fn new(operator: Operator, at: Timestamp) -> Self {
        Self {
            operator,
            at,
            reason: None,
        }
    }

    /// Returns the record of an action on this subject.
    pub(super) fn record(&self, action: AuditAction, about: impl Into<String>) -> NewAudit {
        NewAudit {
            operator: self.operator.to_string(),
            action,
            about: about.into(),
            dead: None,
            stream: None,
            sequences: None,
            reason: self.reason.clone(),
            before: None,
            after: None,
        }
    }

    /// Adds a reason.
    ///
    /// # Errors
    /// It is empty, too long, or contains control characters.
    pub fn with_reason(self, reason: &str) -> Result<Self, OperatorError> {
        Ok(Self {
            reason: Some(checked(reason)?),
            ..self
        })
    }

    /// Returns the same attribution at another time.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Self {
        Self { at, ..self.clone() }
    }
}

/// A change that a program makes by itself, without an operator.
impl From<Timestamp> for Attribution {
    fn from(at: Timestamp) -> Self {
        Self::new(Operator("a program".to_owned()), at)
    }
}

fn checked(text: &str) -> Result<String, OperatorError> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        return Err(OperatorError(text.chars().take(100).collect()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_of_one_line() {
        assert_eq!(Operator::new(" ada@desk ").unwrap().to_string(), "ada@desk");
        for bad in ["", "  ", "ada\nroot", &"x".repeat(1_001)] {
            assert!(Operator::new(bad).is_err(), "{bad:?}");
        }
    }
}
