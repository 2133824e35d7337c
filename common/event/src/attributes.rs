//! Types of an event's attributes: each is validated once, where it enters, and trusted afterwards.

use std::{num::NonZeroU64, str::FromStr, sync::Arc};

use derive_more::Display;
use serde::{Deserialize, Serialize};

/// Maximum bytes of an attribute, the limit of AMQP's short strings (message id, routing key).
const MAX_BYTES: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The attribute exceeds AMQP's short strings.
    #[error("{name} has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// The attribute's CloudEvents name.
        name: &'static str,
        bytes: usize,
    },
    /// The attribute contains a control character, which could garble logs and terminals.
    #[error("{0} contains a control character")]
    ControlCharacter(&'static str),
    /// The subject has no `/`, or nothing before or after it.
    #[error("subject {0:?} is not of the form KIND/KEY, such as order/536365")]
    SubjectForm(String),
    /// The type does not consist of words joined by dots with a version at the end.
    #[error("type {0:?} is not of the form subject.fact.vN, such as order.placed.v1")]
    TypeForm(String),
    /// The type belongs to another kind of subject.
    #[error(
        "type {kind:?} does not belong on subject {subject:?}: the type's first word and the subject's first segment differ"
    )]
    TypeOffSubject { kind: String, subject: String },
    #[error("sequence {0} is not a whole number from 1")]
    SequenceForm(String),
    #[error("time {0} is not an RFC 3339 time such as 2026-11-30T03:00:00Z")]
    TimeForm(String),
    /// The epoch is not a counter with a random part.
    #[error(
        "epoch {0:?} is not of the form COUNTER-RANDOM, a number from 1 and 16 hexadecimal digits, such as 17-9f3a6c2b81d4e07a"
    )]
    EpochForm(String),
    /// The epoch exceeds the longest valid one.
    #[error("epoch has {bytes} bytes, more than {max}")]
    TooLongEpoch { bytes: usize, max: usize },
}

/// Quotes a value for a message and truncates it if long, so that an invalid value cannot fill a log or a store.
pub(crate) fn shown(value: &str) -> String {
    const MAX_CHARS: usize = 100;
    match value.char_indices().nth(MAX_CHARS) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}...", &value[..end]),
    }
}

fn check(name: &'static str, value: &str) -> Result<(), AttributeError> {
    if value.is_empty() {
        return Err(AttributeError::Empty(name));
    }
    if value.len() > MAX_BYTES {
        return Err(AttributeError::TooLong {
            name,
            bytes: value.len(),
        });
    }
    // The common case is short ASCII, for which checking the bytes is enough.
    if value.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(AttributeError::ControlCharacter(name));
    }
    Ok(())
}

macro_rules! text_attribute {
    ($(#[$doc:meta])* $name:ident, $attribute:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[derive(derive_more::Debug, Display)]
        #[serde(try_from = "String", into = "String")]
        #[debug("{_0:?}")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates the text.
            ///
            /// # Errors
            /// Fails if the text is empty, exceeds 255 bytes, contains control characters, or has the wrong form.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, AttributeError> {
                let text = text.into();
                check($attribute, &text)?;
                let extra: fn(&str) -> Result<(), AttributeError> = $extra;
                extra(&text)?;
                Ok(Self(text))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = AttributeError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = AttributeError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for Arc<str> {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.as_ref().to_owned()
            }
        }
    };
}

text_attribute!(
    /// Identifies an event among those of its source. Doorstep's own sources use `SUBJECT#SEQUENCE`.
    EventId,
    "id",
    |_| Ok(())
);

text_attribute!(
    /// Identifies a request among those of its caller.
    RequestId,
    "request id",
    |_| Ok(())
);

text_attribute!(
    /// The store that assigns sequences: a role or program with an id generated when its store is created, or an import's fingerprint.
    Source,
    "source",
    |_| Ok(())
);

text_attribute!(
    /// The subject of an event, as `KIND/KEY`: `order/536365`. Compared as bytes, so `stock/85123a` is not `stock/85123A`.
    Subject,
    "subject",
    |text| match text.split_once('/') {
        Some((kind, key)) if !kind.is_empty() && !key.is_empty() => Ok(()),
        _ => Err(AttributeError::SubjectForm(text.to_owned())),
    }
);

text_attribute!(
    /// The versioned type of an event, `SUBJECT_KIND.FACT.vN`: `order.placed.v1`. Also its routing key.
    EventType,
    "type",
    check_type
);

fn check_type(text: &str) -> Result<(), AttributeError> {
    let invalid = || AttributeError::TypeForm(text.to_owned());
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (front, version) = text.rsplit_once(".v").ok_or_else(invalid)?;
    let version_is_number = !version.is_empty()
        && !version.starts_with('0')
        && version.bytes().all(|b| b.is_ascii_digit());
    if !version_is_number || !front.contains('.') || !front.split('.').all(word) {
        return Err(invalid());
    }
    Ok(())
}

impl Subject {
    /// Returns the first segment: `order` for `order/536365`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.as_str()
            .split_once('/')
            .map_or(self.as_str(), |(kind, _)| kind)
    }

    /// Returns the key for partitioning: the subject itself, so that a subject's events share one queue.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        self.as_str()
    }
}

impl EventType {
    /// Returns the first word: `order` for `order.placed.v1`.
    #[must_use]
    pub fn subject_kind(&self) -> &str {
        self.as_str()
            .split_once('.')
            .map_or(self.as_str(), |(first, _)| first)
    }

    /// Returns the type without its version: `order.placed` for `order.placed.v1`.
    #[must_use]
    pub fn without_version(&self) -> &str {
        self.as_str()
            .rsplit_once(".v")
            .map_or(self.as_str(), |(front, _)| front)
    }

    /// Checks that this type belongs to that subject.
    ///
    /// # Errors
    /// Fails if the type's first word and the subject's first segment differ.
    pub fn check_subject(&self, subject: &Subject) -> Result<(), AttributeError> {
        if self.subject_kind() == subject.kind() {
            return Ok(());
        }
        Err(AttributeError::TypeOffSubject {
            kind: self.to_string(),
            subject: subject.to_string(),
        })
    }
}

/// The number of an event in its stream, from 1, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display,
)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// The first number of every stream.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// Creates a sequence from a number between 1 and `i64::MAX`, the limit of stores.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        i64::try_from(number).ok()?;
        NonZeroU64::new(number).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Sequence {
    type Err = AttributeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u64::from_str` accepts a leading plus sign; a sequence does not.
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AttributeError::SequenceForm(shown(text)));
        }
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| AttributeError::SequenceForm(shown(text)))
    }
}

/// A stream: the events of one source about one subject. Events are ordered within a stream, not between streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Display)]
#[display("{subject} from {source}")]
pub struct StreamKey {
    pub source: Source,
    pub subject: Subject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_words_with_a_version() {
        for good in ["order.placed.v1", "delivery.picked_up.v12", "a.b.c.v1"] {
            assert!(EventType::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "order",
            "order.placed",
            "order.v1",
            "order.placed.v0",
            "order.placed.v",
            "Order.placed.v1",
            "order..v1",
            ".placed.v1",
            "order.placed.v1a",
        ] {
            assert!(EventType::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subjects_have_a_kind_and_a_key() {
        assert_eq!(Subject::new("order/53/6").unwrap().kind(), "order");
        for bad in ["", "order", "order/", "/1", "order/\u{7}"] {
            assert!(Subject::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_type_belongs_to_its_kind_of_subject() {
        let placed = EventType::new("order.placed.v1").unwrap();
        assert!(
            placed
                .check_subject(&Subject::new("order/1").unwrap())
                .is_ok()
        );
        assert!(
            placed
                .check_subject(&Subject::new("orders/1").unwrap())
                .is_err()
        );
    }

    #[test]
    fn sequences_count_from_one() {
        assert_eq!(
            "00000000000000000017".parse::<Sequence>().unwrap().get(),
            17
        );
        for bad in ["", "0", "-1", "+1", "1.0", "18446744073709551615", "x"] {
            assert!(bad.parse::<Sequence>().is_err(), "{bad}");
        }
    }
}
