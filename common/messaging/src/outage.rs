//! The reasons of an outage, as far as the log has them: a reason that changes is logged, one that alternates is not logged again.

/// The most kinds of reasons that are logged during one outage.
const MAX_KINDS: usize = 8;

/// The kinds of reasons that were logged since an outage began.
#[derive(Debug, Default)]
pub struct OutageReasons {
    kinds: Vec<String>,
}

impl OutageReasons {
    /// Returns whether the log should have this reason: no reason of its kind was logged during this outage, and fewer than 8 kinds were.
    /// Reasons that differ in their digits alone, such as ports and durations, are of one kind.
    pub fn is_new(&mut self, reason: &str) -> bool {
        let kind: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if self.kinds.len() >= MAX_KINDS || self.kinds.contains(&kind) {
            return false;
        }
        self.kinds.push(kind);
        true
    }

    /// Ends the outage: the next one logs every kind anew.
    pub fn clear(&mut self) {
        self.kinds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_reason_is_new_once_and_digits_make_no_other() {
        let mut reasons = OutageReasons::default();
        assert!(reasons.is_new("no answer from 10.0.0.1 for 5s"));
        assert!(!reasons.is_new("no answer from 10.0.0.2 for 10s"));
        assert!(reasons.is_new("the password is wrong"));
        for _ in 0..3 {
            assert!(!reasons.is_new("no answer from 10.0.0.1 for 5s"));
            assert!(!reasons.is_new("the password is wrong"));
        }
        reasons.clear();
        assert!(reasons.is_new("the password is wrong"));
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut reasons = OutageReasons::default();
        let kinds = ('a'..='z').filter(|kind| reasons.is_new(&kind.to_string()));
        assert_eq!(kinds.count(), MAX_KINDS);
    }
}
