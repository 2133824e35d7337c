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

/// Which order an Idempotency-Key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    /// The order.
    pub(crate) order: InvoiceNo,
    /// Of what came with the key.
    pub(crate) fingerprint: String,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Whose it is.
    pub(crate) customer: CustomerId,
    /// The restaurant.
    pub(crate) restaurant: RestaurantId,
    /// The order's lines; empty once the order is closed, since orders stay and this is most of one.
    pub(crate) lines: Vec<OrderLine>,
    /// The total price.
    pub(crate) total: Money,
    /// When it was begun.
    pub(crate) placed_at: Timestamp,
    /// The order's state.
    pub(crate) stage: OrderState,
}

/// The state of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum OrderState {
    /// Payment and restaurant are being asked.
    Open,
    /// All have agreed.
    Confirmed {
        /// When it will be ready.
        promised_at: Timestamp,
    },
    /// One has not.
    Refused {
        /// Who.
        by: RefusedBy,
        /// The refusal's code.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// One could not be asked in time.
    Abandoned {
        /// Why.
        reason: Label,
    },
    /// It was confirmed, and called off later.
    Cancelled {
        /// When it would have been ready.
        promised_at: Timestamp,
        /// By whom.
        by: CancelledBy,
        /// Why.
        reason: Label,
    },
}

/// A possible outcome of an open order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderDecision {
    /// All have agreed.
    Confirmed {
        /// When it will be ready.
        promised_at: Timestamp,
    },
    /// One has not.
    Refused {
        /// Who.
        by: RefusedBy,
        /// The refusal's code.
        code: String,
        /// The refusal in words.
        detail: String,
    },
    /// One could not be asked in time.
    Abandoned {
        /// Why.
        reason: Label,
    },
}

/// Open orders with the times after which they are abandoned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenOrders {
    /// By number.
    pub(crate) orders: BTreeMap<String, Timestamp>,
    /// Those that were open in a copy of the store that was put in its place. They are not abandoned, since the lost store may have ended
    /// them and released their stock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) left: BTreeMap<String, Timestamp>,
}

/// The entities that an order's number names.
pub(crate) trait OrderNames {
    /// Of the order.
    fn order_key(&self) -> EntityKey;
    /// Of its delivery.
    fn delivery_key(&self) -> EntityKey;
    /// Of the part of the list of open orders that it is in.
    fn part_key(&self) -> EntityKey;
    /// The subject of its delivery.
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
        // The numbers that the gateway gives end in random digits.
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

/// The entities that list open orders.
pub(crate) fn part_keys() -> Vec<EntityKey> {
    (0..PARTS).map(part_key).collect()
}

impl IdempotencyRecord {
    /// The entity of a customer's Idempotency-Key.
    pub(crate) fn entity(customer: &CustomerId, key: &str) -> EntityKey {
        EntityKey::new(format!("intent/{customer}/{key}"))
    }
}

impl OrderState {
    /// Returns true if it has its outcome.
    pub(crate) fn is_decided(&self) -> bool {
        *self != Self::Open
    }

    /// When it will be, or would have been, ready.
    pub(crate) fn promised_at(&self) -> Option<Timestamp> {
        match self {
            Self::Confirmed { promised_at } | Self::Cancelled { promised_at, .. } => {
                Some(*promised_at)
            }
            Self::Open | Self::Refused { .. } | Self::Abandoned { .. } => None,
        }
    }

    /// The same in the word of the contracts.
    pub(crate) fn status(&self) -> OrderStatus {
        match self {
            Self::Open => OrderStatus::Placed,
            Self::Confirmed { .. } => OrderStatus::Confirmed,
            Self::Refused { .. } => OrderStatus::Refused,
            Self::Abandoned { .. } => OrderStatus::Abandoned,
            Self::Cancelled { .. } => OrderStatus::Cancelled,
        }
    }

    /// Describes it, to follow "this one" or its number.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Open => "is still being decided on",
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
