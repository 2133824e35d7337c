//! The owners of sources: the user of the broker that may publish events under a source.

use doorstep_event::{BrokerUser, Source, Timestamp};
use serde::Serialize;

/// The owner of a source, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceOwner {
    /// The user. `None` if all events so far came without a user id: the first user that publishes with one becomes the owner.
    pub user: Option<BrokerUser>,
    /// When it became the owner.
    pub since: Timestamp,
    /// The owner before it, whose events may still be in a queue.
    pub former: Option<FormerOwner>,
}

/// The owner that a source had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FormerOwner {
    /// None: its events came without a user id.
    Nobody,
    /// This user.
    User(BrokerUser),
}

impl SourceOwner {
    /// The first owner of a source.
    #[must_use]
    pub fn first(user: Option<BrokerUser>, since: Timestamp) -> Self {
        Self {
            user,
            since,
            former: None,
        }
    }

    /// The owner that takes over from this one.
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

/// The record of a source's owner, as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerRow {
    /// The version, 0 if there is no record.
    pub version: u64,
    /// The owner, `None` if there is no record.
    pub owner: Option<SourceOwner>,
}

/// The record of a source's owner that a batch rests on.
#[derive(Debug, Clone)]
pub struct OwnerChange {
    /// The source.
    pub source: Source,
    /// The version read, 0 if there was no record. Another version is a conflict.
    pub expect: u64,
    /// The record from now on, which raises the version. `None` leaves it as it is.
    pub after: Option<SourceOwner>,
}

/// A source that the store knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    /// The source.
    pub source: Source,
    /// Its owner. `None` if no delivery of it was accepted.
    pub owner: Option<SourceOwner>,
    /// The number of its streams.
    pub streams: u64,
}
