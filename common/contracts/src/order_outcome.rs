//! What becomes of an order after it was placed, on `order/INVOICE`.
//!
//! Exactly one of confirmed, refused and abandoned follows; a confirmed order may be cancelled later. When that was, the event's own
//! time says.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Label, RestaurantId};

/// `order.confirmed.v1`: the money is held, and the restaurant makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderConfirmed {
    /// Who makes it.
    pub restaurant: RestaurantId,
    /// When it will be ready, as promised.
    pub promised_at: Timestamp,
}

impl Contract for OrderConfirmed {
    const TYPE: &'static str = "order.confirmed.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// `order.refused.v1`: one of those who were asked said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRefused {
    /// Who said no.
    pub by: RefusedBy,
    /// Why: the code of the refusal, such as `card_declined` or `at_capacity`.
    pub reason: Label,
}

/// Who refused an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// The money could not be held.
    Payment,
    /// The restaurant does not make it.
    Restaurant,
}

impl RefusedBy {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Restaurant => "restaurant",
        }
    }
}

impl Contract for OrderRefused {
    const TYPE: &'static str = "order.refused.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// `order.abandoned.v1`: somebody who had to be asked could not be asked in time, and nobody waits any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderAbandoned {
    /// Why, such as `payments timed out`.
    pub reason: Label,
}

impl Contract for OrderAbandoned {
    const TYPE: &'static str = "order.abandoned.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// `order.cancelled.v1`: somebody called a confirmed order off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderCancelled {
    /// Who called it off.
    pub by: CancelledBy,
    /// Why, in their words.
    pub reason: Label,
}

/// Who cancelled an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelledBy {
    /// Who ordered.
    Customer,
    /// Who was to make it.
    Restaurant,
    /// Who runs the shop.
    Operator,
}

impl CancelledBy {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Restaurant => "restaurant",
            Self::Operator => "operator",
        }
    }
}

impl Contract for OrderCancelled {
    const TYPE: &'static str = "order.cancelled.v1";
    const REQUIRES_SEQUENCE: bool = true;
}
