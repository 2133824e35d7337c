//! The states of the role, each under its own kind of key.

use doorstep_contracts::{
    AddressConfirmed, AddressSet, EmailAddress, NotificationsChosen,
    requests::{AddressStatus, MailView},
};
use serde::{Deserialize, Serialize};

/// The states of the role, each under its own kind of key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// On `user/NAME`.
    User(Box<UserMails>),
}

/// A user's address, choices and latest mails. Names are unique only within a program, so each part knows its program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserMails {
    /// The program of the user's own events; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) confirmed: Option<EmailAddress>,
    /// The address that the user has set and not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<AddressSet>,
    pub(super) choices: NotificationsChosen,
    /// The latest mails, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) recent: Vec<RecentMail>,
}

/// A mail in a user's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecentMail {
    /// The program of the order; none for a report and for the mail that confirms an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    pub(super) mail: MailView,
}

impl UserMails {
    pub(super) fn set(&mut self, set: &AddressSet) {
        self.pending = Some(set.clone());
    }

    /// Takes the address. One that was set later stays unconfirmed.
    pub(super) fn confirm(&mut self, confirmed: &AddressConfirmed) {
        let nonce = &confirmed.nonce;
        self.pending = self.pending.take().filter(|set| set.nonce != *nonce);
        self.confirmed = Some(confirmed.address.clone());
    }

    pub(super) fn remove(&mut self) {
        self.pending = None;
        self.confirmed = None;
    }

    pub(super) fn address_status(&self) -> AddressStatus {
        match (&self.confirmed, &self.pending) {
            (None, None) => AddressStatus::None,
            (None, Some(_)) => AddressStatus::Unconfirmed,
            (Some(_), None) => AddressStatus::Confirmed,
            (Some(_), Some(_)) => AddressStatus::ConfirmedAndChanging,
        }
    }
}
