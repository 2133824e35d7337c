//! The delivery of an order, as it is stored.

use doorstep_contracts::{CourierId, InvoiceNo, Position};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};

/// The courier of an order, and the progress of the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) courier: CourierId,
    /// The last step taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::domain) step: Option<Step>,
}

/// A step that a courier takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The courier has the parcel.
    PickedUp,
    /// The customer has the parcel.
    Delivered,
}

/// A position of an order's courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpsFix {
    pub(crate) order: InvoiceNo,
    pub(crate) position: Position,
    /// The time at which the courier was there.
    pub(crate) recorded_at: Timestamp,
}

impl Delivery {
    /// Returns true if the parcel has left the restaurant.
    pub(crate) fn is_picked_up(&self) -> bool {
        self.step.is_some()
    }
}
