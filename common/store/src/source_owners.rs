//! Owners of sources: the broker user that may publish events under a source.

use doorstep_event::{BrokerUser, Source, Timestamp};
use serde::Serialize;

/// The recorded owner of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceOwner {
    /// The user. `None` if all events so far came without a user id: the first user that publishes with one becomes the
    /// owner.
    pub user: Option<BrokerUser>,
    /// The time when it became the owner.
    pub since: Timestamp,
    /// The previous owner, whose events may still be in a queue.
    pub former: Option<FormerOwner>,
}

/// The previous owner of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FormerOwner {
    /// None: its events came without a user id.
    Nobody,
    User(BrokerUser),
}

impl SourceOwner {
    /// Creates the first owner of a source.
    #[must_use]
    pub fn first(user: Option<BrokerUser>, since: Timestamp) -> Self {
        Self {
            user,
            since,
            former: None,
        }
    }

    /// Returns the owner that succeeds this one.
    #[must_use]
    pub fn succeeded_by(&self, user: BrokerUser, since: Timestamp) -> Self {
        let former = match &self.user {
            None => FormerOwner::Nobody,
            Some(user) => FormerOwner::User(user.clone()),
        };
        Self {
            user: Some(user),
            since,
            former: Some(former),
        }
    }
}

/// The row of a source's owner, as read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerRow {
    /// The version, 0 if there is no row.
    pub version: u64,
    /// The owner, `None` if there is no row.
    pub owner: Option<SourceOwner>,
}

/// A source's owner that a batch depends on.
#[derive(Debug, Clone)]
pub struct OwnerChange {
    pub source: Source,
    /// The version read, 0 if there was no row. Another version is a conflict.
    pub expect: u64,
    /// The new owner, which raises the version. `None` leaves the row as it is.
    pub after: Option<SourceOwner>,
}

/// A source that the store knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    pub source: Source,
    /// Its owner. `None` if no delivery of it was accepted.
    pub owner: Option<SourceOwner>,
    /// The number of its streams.
    pub streams: u64,
}
