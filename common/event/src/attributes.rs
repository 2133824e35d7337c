//! The attributes of an event as types: each is checked once, where it enters, and can be trusted from there on.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The most bytes that an attribute may have: AMQP's short strings (message id, routing key) hold no more.
const MAX_BYTES: usize = 255;

/// What is wrong with an attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The attribute is there, but has no characters.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The attribute does not fit AMQP's short strings.
    #[error("{name} has {bytes} bytes, at most {MAX_BYTES} fit")]
    TooLong {
        /// The attribute's CloudEvents name.
        name: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// The attribute holds a control character, which no log or terminal should have to print.
    #[error("{0} holds a control character")]
    ControlCharacter(&'static str),
    /// The subject has no `/`, or nothing before or behind it.
    #[error("subject {0:?} is not of the form KIND/KEY, such as order/536365")]
    SubjectForm(String),
    /// The type is not words joined by dots with a version at the end.
    #[error("type {0:?} is not of the form subject.fact.vN, such as order.placed.v1")]
    TypeForm(String),
    /// The type is about another kind of subject.
    #[error(
        "type {kind:?} does not belong on subject {subject:?}: the type's first word and the subject's first segment differ"
    )]
    TypeOffSubject {
        /// The type.
        kind: String,
        /// The subject.
        subject: String,
    },
    /// The sequence is not a whole number from 1.
    #[error("sequence {0} is not a whole number from 1")]
    SequenceForm(String),
    /// The time is not of the form of RFC 3339.
    #[error("time {0} is not of the form of RFC 3339, such as 2026-11-30T03:00:00Z")]
    TimeForm(String),
    /// The epoch is not a counter and a random part.
    #[error(
        "epoch {0:?} is not of the form COUNTER-RANDOM, a number from 1 and 16 hexadecimal digits, such as 17-9f3a6c2b81d4e07a"
    )]
    EpochForm(String),
    /// The epoch is longer than any.
    #[error("epoch has {bytes} bytes, at most {max} are an epoch")]
    TooLongEpoch {
        /// The text's length.
        bytes: usize,
        /// The length of the longest epoch.
        max: usize,
    },
}

/// A value in quotes for a message, cut off where it is long: what is refused must not fill a log or a store.
pub(crate) fn shown(value: &str) -> String {
    const MOST: usize = 100;
    match value.char_indices().nth(MOST) {
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
    // The common case is short ASCII, for which a look at the bytes is enough.
    if value.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(AttributeError::ControlCharacter(name));
    }
    Ok(())
}

macro_rules! text_attribute {
    ($(#[$doc:meta])* $name:ident, $attribute:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text.
            ///
            /// # Errors
            /// Says what is wrong with the text: empty, above 255 bytes, holding control characters, or of another form.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, AttributeError> {
                let text = text.into();
                check($attribute, &text)?;
                let extra: fn(&str) -> Result<(), AttributeError> = $extra;
                extra(&text)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
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
    /// Names an event among the events of its source. Doorstep's own sources use `SUBJECT#SEQUENCE`.
    EventId,
    "id",
    |_| Ok(())
);

text_attribute!(
    /// Names a request among the requests of its caller.
    RequestId,
    "request id",
    |_| Ok(())
);

text_attribute!(
    /// The store that numbers: a role or program plus an id minted when its store is created, or an import's fingerprint.
    Source,
    "source",
    |_| Ok(())
);

text_attribute!(
    /// What an event is about, as `KIND/KEY`: `order/536365`. Compared as bytes, so `stock/85123a` is not `stock/85123A`.
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
    let wrong = || AttributeError::TypeForm(text.to_owned());
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (front, version) = text.rsplit_once(".v").ok_or_else(wrong)?;
    let version_is_number = !version.is_empty()
        && !version.starts_with('0')
        && version.bytes().all(|b| b.is_ascii_digit());
    if !version_is_number || !front.contains('.') || !front.split('.').all(word) {
        return Err(wrong());
    }
    Ok(())
}

impl Subject {
    /// The first segment: `order` of `order/536365`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.as_str()
            .split_once('/')
            .map_or(self.as_str(), |(kind, _)| kind)
    }

    /// What spreads subjects over partitions: the subject itself, so that a subject's events share one queue.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        self.as_str()
    }
}

impl EventType {
    /// The first word: `order` of `order.placed.v1`.
    #[must_use]
    pub fn subject_kind(&self) -> &str {
        self.as_str()
            .split_once('.')
            .map_or(self.as_str(), |(first, _)| first)
    }

    /// The type without its version: `order.placed` of `order.placed.v1`.
    #[must_use]
    pub fn without_version(&self) -> &str {
        self.as_str()
            .rsplit_once(".v")
            .map_or(self.as_str(), |(front, _)| front)
    }

    /// Checks that this type may be used on that subject.
    ///
    /// # Errors
    /// The type's first word and the subject's first segment differ.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// The first number of every stream.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// A number from 1 up to what a signed 64-bit integer holds, which is what stores can keep.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        i64::try_from(number).ok()?;
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Sequence {
    type Err = AttributeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u64::from_str` accepts a leading plus sign, a sequence does not.
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AttributeError::SequenceForm(shown(text)));
        }
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| AttributeError::SequenceForm(shown(text)))
    }
}

/// A stream: the events of one source about one subject. There is order within a stream and none between streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Who numbers.
    pub source: Source,
    /// What the events are about.
    pub subject: Subject,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.subject, self.source)
    }
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
