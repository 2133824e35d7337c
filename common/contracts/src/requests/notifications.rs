//! Requests to the role `notifications`: the mails of a user.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{CustomerId, NotificationsChosen};

/// `notifications.mails.v1`: reads the status of a user's address, the user's choices, and the latest mails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadMails {
    pub customer: CustomerId,
}

impl RequestContract for ReadMails {
    const TYPE: &'static str = "notifications.mails.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = MailsView;
}

/// The mails of a user. It holds no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailsView {
    pub address: AddressStatus,
    pub choices: NotificationsChosen,
    /// The latest mails, oldest first; at most 50.
    pub mails: Vec<MailView>,
}

/// The status of a user's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressStatus {
    /// The user has none, so no mail is sent.
    None,
    /// The user has set one and not confirmed it, so no mail is sent but the one with its link.
    Unconfirmed,
    /// Mails are sent to it.
    Confirmed,
    /// Mails are sent to a confirmed address, until the user confirms the one set later.
    ConfirmedAndChanging,
}

/// A mail, or the reason why there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailView {
    /// The fact that caused it, such as `order/536365/confirmed`. Each cause has one mail.
    pub cause: String,
    pub kind: MailKind,
    pub status: MailStatus,
    /// The reason of the status, for people: the server's reply, or why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the latest change of its status.
    pub at: Timestamp,
}

/// The subject matter of a mail.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MailKind {
    OrderConfirmed,
    OrderRefused,
    OrderAbandoned,
    OrderCancelled,
    OrderDelivered,
    ReportReady,
    ReportFailed,
    /// The mail with the link that confirms an address.
    ConfirmAddress,
}

/// The status of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MailStatus {
    /// It waits for the mail server.
    Queued,
    /// The mail server has accepted it.
    Sent,
    /// It was not wanted, or there was no address for it.
    Skipped,
    /// The mail server may have accepted it: an operator decides.
    Unknown,
    /// The mail server rejected it for good: it is a dead letter.
    Failed,
    /// An operator cancelled it.
    Cancelled,
}

impl MailStatus {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
