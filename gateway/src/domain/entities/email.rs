//! The mail address of a user, as it is stored.

use std::time::Duration;

use doorstep_contracts::{EmailAddress, Label, NotificationsChosen};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};

/// The window of the limits.
const DAY: Duration = Duration::from_hours(24);

/// A user's mail address, and the choice of mails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserEmail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirmed: Option<ConfirmedAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<PendingAddress>,
    /// The choice of mails; none until the user has chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) choices: Option<NotificationsChosen>,
    #[serde(default, skip_serializing_if = "RecentTimes::is_empty")]
    pub(crate) settings: RecentTimes,
}

impl UserEmail {
    pub(super) fn is_unused(&self) -> bool {
        *self == Self::default()
    }

    /// Removes the addresses, and returns true if there were any.
    pub(crate) fn remove_addresses(&mut self) -> bool {
        let confirmed = self.confirmed.take();
        let pending = self.pending.take();
        confirmed.is_some() || pending.is_some()
    }
}

/// An address that the user has confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfirmedAddress {
    pub(crate) address: EmailAddress,
    /// The nonce of the link that confirmed it.
    pub(crate) nonce: Label,
}

/// An address that the user has set and not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingAddress {
    pub(crate) address: EmailAddress,
    pub(crate) nonce: Label,
    /// The time at which its link expires.
    pub(crate) expires_at: Timestamp,
}

/// The links that were mailed to an address, on `address/SHA256`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailedLinks {
    pub(crate) at: RecentTimes,
}

/// The times of an action in the last day, for a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RecentTimes(Vec<Timestamp>);

impl RecentTimes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records an action, unless `most` of them were within the last 24 hours.
    pub(crate) fn record(&mut self, most: usize, now: Timestamp) -> bool {
        let day_ago = now.checked_sub(DAY).unwrap_or(Timestamp::MIN);
        self.0.retain(|at| *at > day_ago);
        if self.0.len() >= most {
            return false;
        }
        self.0.push(now);
        true
    }
}
