//! Reasons why lapin cannot parse a message.

use std::fmt;

/// A reason why lapin's parser would reject a content header or overflow its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    NotUtf8(&'static str),
    /// Nesting beyond [`MAX_DEPTH`](super::check::MAX_DEPTH).
    TooDeep,
    /// A header value of a type that RabbitMQ's AMQP 0-9-1 does not have.
    UnknownType(u8),
    /// A length exceeds its container.
    CutOff,
    /// Number of bytes after the last property.
    Surplus(usize),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8("header_name") => f.write_str("the name of a header is not UTF-8"),
            Self::NotUtf8(what) => write!(f, "{what} is not UTF-8"),
            Self::TooDeep => write!(
                f,
                "its headers are nested more than {} levels deep",
                super::check::MAX_DEPTH
            ),
            Self::UnknownType(kind) => write!(
                f,
                "a header's value is of the unknown type {:?}",
                char::from(*kind)
            ),
            Self::CutOff => f.write_str("its properties end within a value"),
            Self::Surplus(count) => write!(f, "{count} bytes follow its properties"),
        }
    }
}
