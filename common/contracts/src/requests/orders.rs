//! What is asked of the role `orders`: how far an order has come.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ErrorCode, PaymentStatus};
use crate::{CustomerId, InvoiceNo, Label, Money, RestaurantId};

/// `orders.order.v1`: how far has an order come?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOrder {
    /// Which one.
    pub order: InvoiceNo,
}

impl RequestContract for ReadOrder {
    const TYPE: &'static str = "orders.order.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = OrderView;
}

/// How far an order has come, and how it got there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderView {
    /// Which one.
    pub order: InvoiceNo,
    /// How far it has come.
    pub status: OrderStatus,
    /// Who ordered, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// Where the order came from.
    pub country: Label,
    /// How many lines it has.
    pub line_count: u64,
    /// What it costs.
    pub total: Money,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Who makes it, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restaurant: Option<RestaurantId>,
    /// When it will be ready, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_at: Option<Timestamp>,
    /// How far its payment has come, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentStatus>,
    /// What has happened to it, in the order in which it became known, the oldest first. Of a very long one only the end is kept; the
    /// numbers go on.
    pub history: Vec<HistoryEntry>,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// It was placed.
    Placed,
    /// It is paid for, and the restaurant makes it.
    Confirmed,
    /// Payment or restaurant said no.
    Refused,
    /// Nobody could be asked in time.
    Abandoned,
    /// It was confirmed, and somebody called it off.
    Cancelled,
}

/// Something that has happened to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryEntry {
    /// Its number, from 1: a reader that has seen it asks for what is above it.
    pub number: u64,
    /// When it happened, as its source knows it; where that says nothing, when it became known.
    pub at: Timestamp,
    /// What.
    pub what: HistoryKind,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What may happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryKind {
    /// It was placed.
    Placed,
    /// It is paid for, and the restaurant makes it.
    Confirmed,
    /// Payment or restaurant said no.
    Refused,
    /// Nobody could be asked in time.
    Abandoned,
    /// Somebody called it off.
    Cancelled,
    /// Money is held for it.
    PaymentAuthorized,
    /// What was held is the shop's.
    PaymentCaptured,
    /// What was held is free again.
    PaymentVoided,
    /// What was captured went back.
    PaymentRefunded,
}

/// Why an order cannot be shown.
pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_order",
    "there is no such order, or it is not known yet",
)];
