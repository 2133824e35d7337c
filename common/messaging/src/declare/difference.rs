//! What the broker tells about an argument that differs.

/// The argument, and its two values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) argument: String,
    pub(super) there: String,
    pub(super) wanted: String,
}

impl Difference {
    /// Reads `inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '5' but current is '7'`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once("received ")?;
        let (received, current) = rest.split_once(" but current is ")?;
        // `none`, `the value 'quorum' of type 'longstr'`, or only `'quorum'`.
        let plain = |text: &str| match text.split_once('\'') {
            None => text.trim().replace("none", "not set"),
            Some((_, rest)) => match rest.split_once('\'').map_or(rest, |(value, _)| value) {
                "" => "empty".to_owned(),
                value => value.to_owned(),
            },
        };
        Some(Self {
            argument: argument.to_owned(),
            there: plain(current),
            wanted: plain(received),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_read_from_the_brokers_words() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'long' but current is none";
        let difference = Difference::read(text).unwrap();
        assert_eq!(difference.argument, "x-max-length");
        assert_eq!(difference.wanted, "5");
        assert_eq!(difference.there, "not set");
        let text = "inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but current is the value 'x' of type 'longstr'";
        let difference = Difference::read(text).unwrap();
        assert_eq!((&*difference.wanted, &*difference.there), ("empty", "x"));
        assert_eq!(Difference::read("something else"), None);
    }
}
