//! What is asked of the role `payments`: to hold money for an order, to take it, and to give it back.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{CustomerId, InvoiceNo, Label, Money, PaymentMethod};

/// `payments.authorize.v1`: hold money for an order. For one order money is held once: the same terms again change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizePayment {
    /// What is paid for.
    pub order: InvoiceNo,
    /// Who pays.
    pub customer: CustomerId,
    /// How much: above zero, at most [`AuthorizePayment::MOST`].
    pub amount: Money,
    /// How; see [`PaymentMethod`] for those that tests use.
    pub method: PaymentMethod,
    /// For how long, in seconds, at most [`AuthorizePayment::LONGEST`]; [`AuthorizePayment::DEFAULT_HOLD`] where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u32>,
}

impl AuthorizePayment {
    /// The most that one payment may be of, in whole units: a hundred thousand.
    pub const MAX_AMOUNT: i64 = 100_000;
    /// How long money is held where nothing is said, in seconds: a day. Longer than any outage behind which an order's confirmation should
    /// wait.
    pub const DEFAULT_HOLD: u32 = 24 * 60 * 60;
    /// The longest that money may be held, in seconds: seven days.
    pub const MAX_HOLD: u32 = 7 * 24 * 60 * 60;
}

/// Until when money is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentAuthorization {
    /// What is not captured by then lapses.
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

/// `payments.capture.v1`: take what is held. An order that is confirmed has this done without asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturePayment {
    /// What is paid for.
    pub order: InvoiceNo,
}

impl RequestContract for CapturePayment {
    const TYPE: &'static str = "payments.capture.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.void.v1`: let go of what is held. Where nothing was held yet, nothing will be: a later authorization is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidPayment {
    /// What was to be paid for.
    pub order: InvoiceNo,
    /// Why, in the words of whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
}

impl RequestContract for VoidPayment {
    const TYPE: &'static str = "payments.void.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.refund.v1`: give back what was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundPayment {
    /// What was paid for.
    pub order: InvoiceNo,
    /// Why, in the words of whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
}

impl RequestContract for RefundPayment {
    const TYPE: &'static str = "payments.refund.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = PaymentView;
}

/// `payments.payment.v1`: how far a payment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadPayment {
    /// What is paid for.
    pub order: InvoiceNo,
}

impl RequestContract for ReadPayment {
    const TYPE: &'static str = "payments.payment.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = PaymentView;
}

/// How far a payment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentView {
    /// What is paid for.
    pub order: InvoiceNo,
    /// How far it has come.
    pub status: PaymentStatus,
    /// What the role has heard of the order.
    pub order_status: PaidOrder,
    /// Who pays; nobody where nothing was ever held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// How much; nothing where nothing was ever held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
    /// Until when it is or was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_until: Option<Timestamp>,
}

/// How far a payment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The order is confirmed and nothing was authorized for it: it is captured as soon as it is.
    Awaited,
    /// The money is held.
    Authorized,
    /// The shop has it.
    Captured,
    /// Nothing is held, and nothing will be.
    Voided,
    /// The shop had it, and gave it back.
    Refunded,
}

/// What the role `payments` has heard of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaidOrder {
    /// Nothing that matters to it.
    #[default]
    Open,
    /// It is confirmed.
    Confirmed,
    /// It was refused, abandoned or cancelled.
    Ended,
}

/// Why money cannot be held.
pub(super) const AUTHORIZE: &[ErrorCode] = &[
    ErrorCode::new("card_declined", "the card is declined"),
    ErrorCode::new("insufficient_funds", "the card has not enough money"),
    ErrorCode::new("unknown_method", "nobody takes this way to pay"),
    ErrorCode::new(
        "bad_amount",
        "the amount is not above zero and at most 100000",
    ),
    ErrorCode::new(
        "already_authorized",
        "money is held for this order on other terms",
    ),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
    ErrorCode::new("refunded", "the payment was refunded"),
    ErrorCode::new(
        "order_ended",
        "the order was refused, abandoned or cancelled",
    ),
];

/// Why money cannot be taken.
pub(super) const CAPTURE: &[ErrorCode] = &[
    ErrorCode::new("not_authorized", "nothing is held for this order"),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
    ErrorCode::new("refunded", "the payment was refunded"),
];

/// Why money cannot be let go.
pub(super) const VOID: &[ErrorCode] = &[
    ErrorCode::new("captured", "the payment was captured, ask for a refund"),
    ErrorCode::new("refunded", "the payment was refunded"),
];

/// Why money cannot be given back.
pub(super) const REFUND: &[ErrorCode] = &[
    ErrorCode::new("not_authorized", "nothing is held for this order"),
    ErrorCode::new(
        "not_captured",
        "the payment is authorized only, ask for a void",
    ),
    ErrorCode::new("voided", "the payment was voided, or has lapsed"),
];

/// Why a payment cannot be shown.
pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_payment",
    "nothing is known of a payment for this order",
)];
