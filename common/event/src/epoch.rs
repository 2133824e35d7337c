//! The epoch of a store: one of its starts, carried by every event that it numbers afterwards.

use std::{num::NonZeroU64, str::FromStr};

use crate::AttributeError;

const RANDOM_DIGITS: usize = 16;
/// Maximum bytes of an epoch's text: 19 digits of the counter, a hyphen and the random part.
pub const MAX_EPOCH_BYTES: usize = 19 + 1 + RANDOM_DIGITS;

/// One start of a store: a counter from 1 and 64 random bits, formatted as `17-9f3a6c2b81d4e07a`.
///
/// Two stores restored from one copy continue with the same counter, but with different random parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, derive_more::Display)]
#[display("{counter}-{random:016x}")]
pub struct Epoch {
    counter: NonZeroU64,
    random: u64,
}

impl Epoch {
    /// Creates an epoch with a counter between 1 and `i64::MAX`, the limit of stores.
    #[must_use]
    pub fn new(counter: u64, random: u64) -> Option<Self> {
        i64::try_from(counter).ok()?;
        NonZeroU64::new(counter).map(|counter| Self { counter, random })
    }

    /// Returns the counter: the number of starts of the store.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.counter.get()
    }

    #[must_use]
    pub fn random(self) -> u64 {
        self.random
    }
}

impl FromStr for Epoch {
    type Err = AttributeError;

    /// Accepts exactly the format of [`Epoch`]: no sign, no leading zero, lower case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (counter, random) = text.split_once('-')?;
            let is_counter =
                counter.bytes().all(|b| b.is_ascii_digit()) && !counter.starts_with('0');
            let is_random = random.len() == RANDOM_DIGITS
                && random
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !is_counter || !is_random {
                return None;
            }
            Self::new(counter.parse().ok()?, u64::from_str_radix(random, 16).ok()?)
        };
        if text.len() > MAX_EPOCH_BYTES {
            return Err(AttributeError::TooLongEpoch {
                bytes: text.len(),
                max: MAX_EPOCH_BYTES,
            });
        }
        parse().ok_or_else(|| AttributeError::EpochForm(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_round_trip() {
        for (counter, random, text) in [
            (1, 0, "1-0000000000000000"),
            (17, 0x9f3a_6c2b_81d4_e07a, "17-9f3a6c2b81d4e07a"),
            (
                u64::MAX / 2,
                u64::MAX,
                "9223372036854775807-ffffffffffffffff",
            ),
        ] {
            let epoch = Epoch::new(counter, random).unwrap();
            assert_eq!(epoch.to_string(), text);
            assert_eq!(text.parse::<Epoch>().unwrap(), epoch);
            assert!(text.len() <= MAX_EPOCH_BYTES);
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        assert_eq!(Epoch::new(0, 1), None);
        assert_eq!(Epoch::new(u64::MAX, 1), None);
        for bad in [
            "",
            "-",
            "17",
            "0-9f3a6c2b81d4e07a",
            "017-9f3a6c2b81d4e07a",
            "+17-9f3a6c2b81d4e07a",
            "17-9F3A6C2B81D4E07A",
            "17-9f3a6c2b81d4e07",
            "17-9f3a6c2b81d4e07a0",
            "17-+f3a6c2b81d4e07a",
            "9223372036854775808-9f3a6c2b81d4e07a",
            "17-9f3a6c2b81d4e07a-1",
        ] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
        let long = "1".repeat(1_000_000);
        let error = long.parse::<Epoch>().unwrap_err().to_string();
        assert!(error.len() < 100, "{error}");
    }
}
