//! The facts that mails are about, and the messages by which the role talks to itself.

use doorstep_contracts::{
    CancelledBy, CustomerId, InvoiceNo, Label, Money, RefusedBy, ReportFailed, ReportReady,
    RestaurantId, requests::MailKind,
};
use doorstep_event::{Contract, RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

/// The fact that a mail is about. It holds no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    Order(OrderTopic),
    Report(ReportTopic),
    /// The user has set an address, under this nonce.
    Address {
        customer: CustomerId,
        nonce: Label,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderTopic {
    pub(super) order: InvoiceNo,
    pub(super) total: Money,
    pub(super) outcome: OrderOutcome,
}

/// An event in the life of an order that its customer gets a mail about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderOutcome {
    Confirmed {
        restaurant: RestaurantId,
        promised_at: Timestamp,
    },
    Refused {
        by: RefusedBy,
        reason: Label,
    },
    Abandoned {
        reason: Label,
    },
    Cancelled {
        by: CancelledBy,
        reason: Label,
    },
    Delivered {
        delivered_at: Timestamp,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportTopic {
    /// The report's id.
    pub(super) report: String,
    pub(super) outcome: ReportOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReportOutcome {
    Ready(Box<ReportReady>),
    Failed(Box<ReportFailed>),
}

impl Topic {
    /// Returns the name of the cause, such as `order/536365/confirmed`. A cause has one mail.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Order(OrderTopic { order, outcome, .. }) => {
                format!("order/{order}/{}", outcome.name())
            }
            Self::Report(ReportTopic { report, outcome }) => {
                let outcome = match outcome {
                    ReportOutcome::Ready(_) => "ready",
                    ReportOutcome::Failed(_) => "failed",
                };
                format!("report/{report}/{outcome}")
            }
            Self::Address { customer, nonce } => format!("user/{customer}/confirm-{nonce}"),
        }
    }

    pub(super) fn kind(&self) -> MailKind {
        match self {
            Self::Order(topic) => match topic.outcome {
                OrderOutcome::Confirmed { .. } => MailKind::OrderConfirmed,
                OrderOutcome::Refused { .. } => MailKind::OrderRefused,
                OrderOutcome::Abandoned { .. } => MailKind::OrderAbandoned,
                OrderOutcome::Cancelled { .. } => MailKind::OrderCancelled,
                OrderOutcome::Delivered { .. } => MailKind::OrderDelivered,
            },
            Self::Report(topic) => match topic.outcome {
                ReportOutcome::Ready(_) => MailKind::ReportReady,
                ReportOutcome::Failed(_) => MailKind::ReportFailed,
            },
            Self::Address { .. } => MailKind::ConfirmAddress,
        }
    }
}

impl ReportOutcome {
    pub(super) fn requested_by(&self) -> &CustomerId {
        match self {
            Self::Ready(ready) => &ready.requested_by,
            Self::Failed(failed) => &failed.requested_by,
        }
    }
}

impl OrderOutcome {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Confirmed { .. } => "confirmed",
            Self::Refused { .. } => "refused",
            Self::Abandoned { .. } => "abandoned",
            Self::Cancelled { .. } => "cancelled",
            Self::Delivered { .. } => "delivered",
        }
    }
}

/// `mail.due.v1`, on `mail/CAUSE` from this role to itself: decide on the mail for a cause. It is never
/// published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailDue {
    /// The recipient; none if the order names no customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<CustomerId>,
    /// The program whose customer it is: the source of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    pub(super) topic: Topic,
}

impl Contract for MailDue {
    const TYPE: &'static str = "mail.due.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// `notifications.mailed.v1`: the result of the task that sends a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mailed {
    pub(super) customer: CustomerId,
    /// The id of the task, which is the key of the mail's state.
    pub(super) mail: String,
    pub(super) result: MailResult,
}

/// The end of a mail that needs no operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MailResult {
    /// The mail server has accepted it, with these words.
    Sent { reply: String },
    /// There is no address for it any more.
    Skipped { reason: String },
}

impl RequestContract for Mailed {
    const TYPE: &'static str = "notifications.mailed.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}
