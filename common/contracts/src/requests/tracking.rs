//! What is asked of the role `tracking`: where a delivery is.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{CourierId, DeliveryId, Label, Position, TimeWindow};

/// `tracking.delivery.v1`: where is the delivery of an order?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadDelivery {
    /// Which order is delivered.
    pub order: DeliveryId,
}

impl RequestContract for ReadDelivery {
    const TYPE: &'static str = "tracking.delivery.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = DeliveryView;
}

/// How far a delivery has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryView {
    /// Which order is delivered.
    pub order: DeliveryId,
    /// How far it has come.
    pub status: DeliveryStatus,
    /// Who delivers.
    pub courier: CourierId,
    /// When the courier accepted.
    pub accepted_at: Timestamp,
    /// When the courier took the parcel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked_up_at: Option<Timestamp>,
    /// When it was handed over or left on the doorstep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// How many fixes of the courier there were.
    pub fixes: u64,
    /// The latest fix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fix: Option<GpsFix>,
    /// Where the parcel waits for the courier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick_up_position: Option<Position>,
    /// When the courier was promised to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<TimeWindow>,
    /// The city, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Label>,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// A courier took it on.
    Assigned,
    /// The courier has the parcel.
    PickedUp,
    /// The parcel is where it belongs.
    Delivered,
}

/// Where the courier was, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpsFix {
    /// Where.
    pub position: Position,
    /// When.
    pub recorded_at: Timestamp,
}

/// Why a delivery cannot be shown.
pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_delivery",
    "no courier has taken it on yet",
)];
