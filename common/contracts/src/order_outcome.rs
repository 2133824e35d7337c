//! The outcome of a placed order, on `order/INVOICE`.
//!
//! Exactly one of confirmed, refused and abandoned follows; a confirmed order may be cancelled later. The event's own time says when.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{Label, RestaurantId};

/// `order.confirmed.v1`: the payment is authorized, and the restaurant makes the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderConfirmed {
    pub restaurant: RestaurantId,
    /// Time by which the order is promised to be ready.
    pub promised_at: Timestamp,
}

impl Contract for OrderConfirmed {
    const TYPE: &'static str = "order.confirmed.v1";
}

/// `order.refused.v1`: payment or restaurant rejected the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRefused {
    pub by: RefusedBy,
    /// Code of the rejection, such as `card_declined` or `at_capacity`.
    pub reason: Label,
}

/// The party that rejected an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum RefusedBy {
    /// The payment could not be authorized.
    Payment,
    /// The restaurant does not make it.
    Restaurant,
}

impl RefusedBy {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Contract for OrderRefused {
    const TYPE: &'static str = "order.refused.v1";
}

/// `order.abandoned.v1`: payment or restaurant did not reply in time, and the customer no longer waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderAbandoned {
    /// The reason, such as `payments timed out`.
    pub reason: Label,
}

impl Contract for OrderAbandoned {
    const TYPE: &'static str = "order.abandoned.v1";
}

/// `order.cancelled.v1`: a confirmed order was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderCancelled {
    pub by: CancelledBy,
    /// Free text of the party that cancelled.
    pub reason: Label,
}

/// The party that cancelled an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CancelledBy {
    Customer,
    Restaurant,
    Operator,
}

impl CancelledBy {
    /// Returns the value on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Contract for OrderCancelled {
    const TYPE: &'static str = "order.cancelled.v1";
}
