//! An order and the lists of orders, as they are stored.

use std::collections::BTreeMap;

use doorstep_contracts::{
    CancelledBy, CustomerId, DeliveryId, InvoiceNo, Label, Money, OrderLine, RefusedBy,
    RestaurantId, requests::OrderStatus,
};
use doorstep_event::{Subject, Timestamp};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

/// Number of parts of the list of open orders. Each commit rewrites the parts it touches, so they should be small.
const PARTS: u32 = 16;

/// The order that an Idempotency-Key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    pub(crate) order: InvoiceNo,
    /// The fingerprint of the request that came with the key.
    pub(crate) fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: CustomerId,
    pub(crate) restaurant: RestaurantId,
    /// The order's lines. They are most of its size and orders are never deleted, so closing an order empties them.
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) total: Money,
    /// The time at which it was begun.
    pub(crate) placed_at: Timestamp,
    pub(crate) stage: OrderState,
}

/// The state of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum OrderState {
    /// Payment and restaurant are being called.
    Open,
    /// Payment and restaurant have accepted it.
    Confirmed {
        /// The time at which it will be ready.
        promised_at: Timestamp,
    },
    /// Payment or restaurant has rejected it.
    Refused {
        by: RefusedBy,
        /// The code of the rejection.
        code: String,
        /// The rejection for people to read.
        detail: String,
    },
    /// A call got no reply in time.
    Abandoned { reason: Label },
    /// It was confirmed, and cancelled later.
    Cancelled {
        /// The time at which it would have been ready.
        promised_at: Timestamp,
        by: CancelledBy,
        reason: Label,
    },
}

/// The outcome of an open order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderDecision {
    /// Payment and restaurant have accepted it.
    Confirmed {
        /// The time at which it will be ready.
        promised_at: Timestamp,
    },
    /// Payment or restaurant has rejected it.
    Refused {
        by: RefusedBy,
        /// The code of the rejection.
        code: String,
        /// The rejection for people to read.
        detail: String,
    },
    /// A call got no reply in time.
    Abandoned { reason: Label },
}

/// Open orders with the times after which they are abandoned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenOrders {
    /// The deadlines, by order number.
    pub(crate) orders: BTreeMap<String, Timestamp>,
    /// The open orders of a restored copy of the store. They are not abandoned, since the lost store may have ended
    /// them and released their stock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) left: BTreeMap<String, Timestamp>,
}

/// The entities and subjects of an order's number.
pub(crate) trait OrderNames {
    fn order_key(&self) -> EntityKey;
    fn delivery_key(&self) -> EntityKey;
    /// The entity of the list of open orders that the order is in.
    fn part_key(&self) -> EntityKey;
    fn delivery_subject(&self) -> Subject;
}

impl OrderNames for InvoiceNo {
    fn order_key(&self) -> EntityKey {
        EntityKey::from(&self.order_subject())
    }

    fn delivery_key(&self) -> EntityKey {
        EntityKey::from(&self.delivery_subject())
    }

    fn part_key(&self) -> EntityKey {
        // Order numbers of the gateway end in random digits.
        let sum: u32 = self.as_str().bytes().rev().take(4).map(u32::from).sum();
        part_key(sum % PARTS)
    }

    fn delivery_subject(&self) -> Subject {
        #[expect(clippy::expect_used, reason = "both names keep the same rules")]
        let delivery = DeliveryId::new(self.as_str()).expect("an order's number is a delivery's");
        delivery.subject()
    }
}

fn part_key(part: u32) -> EntityKey {
    EntityKey::new(format!("open/{part:x}"))
}

/// Returns the entities that list open orders.
pub(crate) fn part_keys() -> Vec<EntityKey> {
    (0..PARTS).map(part_key).collect()
}

impl IdempotencyRecord {
    /// Returns the entity of a customer's Idempotency-Key.
    pub(crate) fn entity(customer: &CustomerId, key: &str) -> EntityKey {
        EntityKey::new(format!("intent/{customer}/{key}"))
    }
}

impl OrderState {
    /// Returns true if the order has its outcome.
    pub(crate) fn is_decided(&self) -> bool {
        *self != Self::Open
    }

    /// Returns the time at which the order will be, or would have been, ready.
    pub(crate) fn promised_at(&self) -> Option<Timestamp> {
        match self {
            Self::Confirmed { promised_at } | Self::Cancelled { promised_at, .. } => {
                Some(*promised_at)
            }
            Self::Open | Self::Refused { .. } | Self::Abandoned { .. } => None,
        }
    }

    /// Returns the status that the contracts use.
    pub(crate) fn status(&self) -> OrderStatus {
        match self {
            Self::Open => OrderStatus::Placed,
            Self::Confirmed { .. } => OrderStatus::Confirmed,
            Self::Refused { .. } => OrderStatus::Refused,
            Self::Abandoned { .. } => OrderStatus::Abandoned,
            Self::Cancelled { .. } => OrderStatus::Cancelled,
        }
    }

    /// Describes the state, as the continuation of "this one" or of an order's number.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Open => "has no outcome yet",
            Self::Confirmed { .. } => "is confirmed",
            Self::Refused { .. } => "was refused",
            Self::Abandoned { .. } => "was abandoned",
            Self::Cancelled { .. } => "was cancelled",
        }
    }
}

impl From<OrderDecision> for OrderState {
    fn from(outcome: OrderDecision) -> Self {
        match outcome {
            OrderDecision::Confirmed { promised_at } => Self::Confirmed { promised_at },
            OrderDecision::Refused { by, code, detail } => Self::Refused { by, code, detail },
            OrderDecision::Abandoned { reason } => Self::Abandoned { reason },
        }
    }
}
