//! Requests to the role `payments`: authorizing, capturing, voiding and refunding payments.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{CustomerId, InvoiceNo, Label, Money, PaymentMethod};

/// `payments.authorize.v1`: holds an amount for an order. An order has one authorization: repeating the same terms changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizePayment {
    pub order: InvoiceNo,
    pub customer: CustomerId,
    /// The amount: above zero, at most [`AuthorizePayment::MAX_AMOUNT`].
    pub amount: Money,
    /// The method; see [`PaymentMethod`] for those used by tests.
    pub method: PaymentMethod,
    /// Duration of the hold in seconds, at most [`AuthorizePayment::MAX_HOLD`]; by default [`AuthorizePayment::DEFAULT_HOLD`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u32>,
}

impl AuthorizePayment {
    /// Maximum amount of a payment, in whole units.
    pub const MAX_AMOUNT: i64 = 100_000;
    /// Default duration of a hold in seconds: one day. Longer than any outage that should delay an order's confirmation.
    pub const DEFAULT_HOLD: u32 = 24 * 60 * 60;
    /// Maximum duration of a hold in seconds: seven days.
    pub const MAX_HOLD: u32 = 7 * 24 * 60 * 60;
}

/// The end of an authorization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentAuthorization {
    /// An amount not captured by then lapses.
    pub authorized_until: Timestamp,
}

impl RequestContract for AuthorizePayment {
    const TYPE: &'static str = "payments.authorize.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentAuthorization;

    fn check(&self) -> Result<(), String> {
        match self.hold_seconds {
            Some(seconds) if seconds == 0 || seconds > Self::MAX_HOLD => Err(format!(
                "hold of {seconds} s is not within 1 to {} s",
                Self::MAX_HOLD
            )),
            _ => Ok(()),
        }
    }
}

/// `payments.capture.v1`: charges a held amount. For a confirmed order this happens without a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturePayment {
    pub order: InvoiceNo,
}

impl RequestContract for CapturePayment {
    const TYPE: &'static str = "payments.capture.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.void.v1`: releases a held amount. If nothing was held yet, a later authorization is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidPayment {
    pub order: InvoiceNo,
    /// Free text of the caller that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
}

impl RequestContract for VoidPayment {
    const TYPE: &'static str = "payments.void.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.refund.v1`: returns a captured amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundPayment {
    pub order: InvoiceNo,
    /// Free text of the caller that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
}

impl RequestContract for RefundPayment {
    const TYPE: &'static str = "payments.refund.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.payment.v1`: reads the status of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadPayment {
    pub order: InvoiceNo,
}

impl RequestContract for ReadPayment {
    const TYPE: &'static str = "payments.payment.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = PaymentView;
}

/// The status of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentView {
    pub order: InvoiceNo,
    pub status: PaymentStatus,
    /// The order's status as known to the role.
    pub order_status: PaidOrder,
    /// The customer; `None` if nothing was ever held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// The amount; `None` if nothing was ever held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
    /// End of the hold, also if it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The order is confirmed without an authorization yet. The amount is captured as soon as it is authorized.
    Awaited,
    Authorized,
    /// The shop has received the amount.
    Captured,
    /// Nothing is held, and nothing will be.
    Voided,
    /// The shop has returned the amount.
    Refunded,
}

/// An order's status as known to the role `payments`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaidOrder {
    /// No relevant event yet.
    #[default]
    Open,
    Confirmed,
    /// It was refused, abandoned or cancelled.
    Ended,
}

pub(super) const AUTHORIZE: &[ErrorCode] = &[
    ErrorCode::new("card_declined", "the card is declined"),
    ErrorCode::new("insufficient_funds", "the card has insufficient funds"),
    ErrorCode::new("unknown_method", "the payment method is unknown"),
    ErrorCode::new(
        "invalid_amount",
        "the amount is not above zero and at most 100000",
    ),
    ErrorCode::new(
        "already_authorized",
        "money is held for this order on other terms",
    ),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
    ErrorCode::new("refunded", "the payment was refunded"),
    ErrorCode::new(
        "order_closed",
        "the order was refused, abandoned or cancelled",
    ),
];

pub(super) const CAPTURE: &[ErrorCode] = &[
    ErrorCode::new("not_authorized", "nothing is held for this order"),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
    ErrorCode::new("refunded", "the payment was refunded"),
];

pub(super) const VOID: &[ErrorCode] = &[
    ErrorCode::new("captured", "the payment was captured: request a refund"),
    ErrorCode::new("refunded", "the payment was refunded"),
];

pub(super) const REFUND: &[ErrorCode] = &[
    ErrorCode::new("not_authorized", "nothing is held for this order"),
    ErrorCode::new(
        "not_captured",
        "the payment is only authorized: request a void",
    ),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
];

pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_payment",
    "no payment for this order is known",
)];
