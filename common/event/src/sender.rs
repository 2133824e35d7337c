//! The sender of a message, as far as the broker guarantees it.

use std::{fmt, sync::Arc};

use derive_more::Display;
use serde::{Deserialize, Serialize};

/// The name of a broker user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display)]
#[serde(from = "String", into = "String")]
pub struct BrokerUser(Arc<str>);

impl BrokerUser {
    /// Creates any name; only the broker knows which users exist.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for BrokerUser {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<BrokerUser> for String {
    fn from(user: BrokerUser) -> Self {
        user.0.as_ref().to_owned()
    }
}

/// The sender of a delivery. RabbitMQ checks a message's user id against the connection that publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sender {
    /// Published through the events exchange, without a user id.
    #[default]
    Anonymous,
    /// Published through the events exchange by this user.
    User(BrokerUser),
    /// Published another way, without topic permissions. The text describes it for people.
    Bypass(Arc<str>),
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("a message without a user id"),
            Self::User(user) => write!(f, "user {user:?}", user = user.as_str()),
            Self::Bypass(exchange) => f.write_str(exchange),
        }
    }
}
