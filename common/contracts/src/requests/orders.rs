//! Requests to the role `orders`: the status of an order.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ErrorCode, PaymentStatus};
use crate::{CustomerId, InvoiceNo, Label, Money, RestaurantId};

/// `orders.order.v1`: reads the status of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOrder {
    pub order: InvoiceNo,
}

impl RequestContract for ReadOrder {
    const TYPE: &'static str = "orders.order.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = OrderView;
}

/// The status of an order, with its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderView {
    pub order: InvoiceNo,
    pub status: OrderStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    pub country: Label,
    pub line_count: u64,
    pub total: Money,
    pub placed_at: Timestamp,
    /// The restaurant, once the order is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restaurant: Option<RestaurantId>,
    /// The promised time of readiness, once the order is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_at: Option<Timestamp>,
    /// Status of its payment, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentStatus>,
    /// The order's history as it became known, oldest first. Only the end of a very long history is kept; the numbers continue.
    pub history: Vec<HistoryEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    Placed,
    /// The payment is authorized, and the restaurant makes the order.
    Confirmed,
    /// Payment or restaurant rejected the order.
    Refused,
    /// Payment or restaurant did not reply in time.
    Abandoned,
    /// The confirmed order was cancelled.
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// Its number, from 1. A reader that has seen it continues with higher ones.
    pub number: u64,
    /// The time given by the event's source; without one, the time at which it became known.
    pub at: Timestamp,
    pub what: HistoryKind,
    /// Details for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    Placed,
    /// The payment is authorized, and the restaurant makes the order.
    Confirmed,
    /// Payment or restaurant rejected the order.
    Refused,
    /// Payment or restaurant did not reply in time.
    Abandoned,
    Cancelled,
    PaymentAuthorized,
    /// The shop has received the held amount.
    PaymentCaptured,
    /// The held amount is free again.
    PaymentVoided,
    /// The captured amount was returned.
    PaymentRefunded,
}

pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_order",
    "there is no such order, or it is not known yet",
)];
