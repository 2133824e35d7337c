//! Outage reasons in the log: a new reason is logged, an alternating one is not repeated.

/// Maximum kinds of reasons logged during one outage.
const MAX_KINDS: usize = 8;

/// The kinds of reasons logged since an outage began.
#[derive(Debug, Default)]
pub struct OutageReasons {
    kinds: Vec<String>,
}

impl OutageReasons {
    /// Returns whether to log this reason: its kind has not been logged during this outage, and fewer than 8 kinds have. Reasons that
    /// differ only in digits, such as ports and durations, are of one kind.
    pub fn is_new(&mut self, reason: &str) -> bool {
        let kind: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.kinds.len() >= MAX_KINDS || self.kinds.contains(&kind) {
            return false;
        }
        self.kinds.push(kind);
        true
    }

    /// Ends the outage: the next one logs every kind again.
    pub fn clear(&mut self) {
        self.kinds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_reason_is_logged_once_ignoring_digits() {
        let mut reasons = OutageReasons::default();
        assert!(reasons.is_new("no reply from 10.0.0.1 for 5s"));
        assert!(!reasons.is_new("no reply from 10.0.0.2 for 10s"));
        assert!(reasons.is_new("the password is wrong"));
        for _ in 0..3 {
            assert!(!reasons.is_new("no reply from 10.0.0.1 for 5s"));
            assert!(!reasons.is_new("the password is wrong"));
        }
        reasons.clear();
        assert!(reasons.is_new("the password is wrong"));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut reasons = OutageReasons::default();
        let kinds = ('a'..='z').filter(|kind| reasons.is_new(&kind.to_string()));
        assert_eq!(kinds.count(), MAX_KINDS);
    }
}
