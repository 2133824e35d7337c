//! Parses the broker's text about an argument that differs.

use std::fmt;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PreconditionFailed {
    pub(crate) argument: String,
    pub(crate) actual: ArgumentValue,
    pub(crate) expected: ArgumentValue,
}

/// A value as the broker formats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentValue {
    NotSet,
    /// A value, with its type if the broker names it.
    Value {
        text: String,
        kind: Option<String>,
    },
    /// The visible start of a value whose end is cut off. The broker's error texts have at most 255 bytes.
    CutOff(String),
}

impl PreconditionFailed {
    /// Parses `inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '5' but current is '7'`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let (expected, actual) = match rest.split_once("received ") {
            None => (ArgumentValue::unknown(), ArgumentValue::unknown()),
            Some((_, values)) => match values.split_once(" but current is ") {
                None => (ArgumentValue::unknown(), ArgumentValue::unknown()),
                Some((received, current)) => {
                    (ArgumentValue::read(received), ArgumentValue::read(current))
                }
            },
        };
        Some(Self {
            argument: argument.to_owned(),
            actual,
            expected,
        })
    }
}

impl ArgumentValue {
    /// Parses `none`, `the value 'quorum' of type 'longstr'`, or only `'quorum'`.
    fn read(text: &str) -> Self {
        let text = text.trim();
        if text == "none" {
            return Self::NotSet;
        }
        let whole = |text: &str| -> Option<(String, Option<String>)> {
            if let Some(rest) = text.strip_prefix("the value '") {
                let (value, kind) = rest.strip_suffix('\'')?.rsplit_once("' of type '")?;
                return Some((value.to_owned(), Some(kind.to_owned())));
            }
            let value = text.strip_prefix('\'')?.strip_suffix('\'')?;
            Some((value.to_owned(), None))
        };
        match whole(text) {
            Some((text, kind)) => Self::Value { text, kind },
            None => Self::cut_off(text),
        }
    }

    fn unknown() -> Self {
        Self::CutOff(String::new())
    }

    fn cut_off(text: &str) -> Self {
        let text = text.strip_suffix("...").unwrap_or(text);
        let text = text.strip_prefix("the value ").unwrap_or(text);
        Self::CutOff(text.strip_prefix('\'').unwrap_or_default().to_owned())
    }
}

impl fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet => f.write_str("not set"),
            Self::CutOff(_) => f.write_str("different"),
            Self::Value { text, .. } if text.is_empty() => f.write_str("empty"),
            Self::Value { text, .. } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_parsed_from_the_error() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'long' but current is none";
        let difference = PreconditionFailed::read(text).unwrap();
        assert_eq!(difference.argument, "x-max-length");
        assert_eq!(difference.expected.to_string(), "5");
        assert_eq!(difference.actual, ArgumentValue::NotSet);
        let text = "inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received the value '' of type 'longstr' but current is the value 'it's' of type 'longstr'";
        let difference = PreconditionFailed::read(text).unwrap();
        assert_eq!(difference.expected.to_string(), "empty");
        assert_eq!(
            difference.actual,
            ArgumentValue::Value {
                text: "it's".to_owned(),
                kind: Some("longstr".to_owned())
            }
        );
        let text =
            "inequivalent arg 'durable' for queue 'q': received 'true' but current is 'false'";
        assert_eq!(
            PreconditionFailed::read(text).unwrap().actual.to_string(),
            "false"
        );
        assert_eq!(PreconditionFailed::read("something else"), None);
    }

    #[test]
    fn a_truncated_value_is_not_the_value() {
        for (cut, visible) in [
            ("the value 'dead.or...", "dead.or"),
            ("the value 'a' of ty", "a' of ty"),
            ("'quo...", "quo"),
            ("'...", ""),
            ("no", ""),
        ] {
            let text =
                format!("inequivalent arg 'a' for queue 'q': received none but current is {cut}");
            let actual = PreconditionFailed::read(&text).unwrap().actual;
            assert_eq!(actual, ArgumentValue::CutOff(visible.to_owned()));
        }
        let text = "inequivalent arg 'a' for queue 'q': received the val";
        assert_eq!(
            PreconditionFailed::read(text).unwrap().actual,
            ArgumentValue::unknown()
        );
    }
}
