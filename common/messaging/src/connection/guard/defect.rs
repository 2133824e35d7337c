//! The reasons for which the client could not read a message.

use std::fmt;

/// A reason for which the client's parser would refuse a content header, or overflow its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// This short string is not UTF-8.
    NotUtf8(&'static str),
    /// Tables and arrays within each other, more than [`MAX_DEPTH`](super::check::MAX_DEPTH).
    TooDeep,
    /// A header's value is of a type that AMQP 0-9-1 as RabbitMQ speaks it does not have.
    UnknownType(u8),
    /// A length reaches beyond what it is part of.
    CutOff,
    /// This number of bytes follows the last property.
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
