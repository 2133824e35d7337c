//! Requests to the role `tracking`: the status of a delivery.

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{CourierId, DeliveryId, Label, Position, TimeWindow};

/// `tracking.delivery.v1`: reads the status of an order's delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadDelivery {
    pub order: DeliveryId,
}

impl RequestContract for ReadDelivery {
    const TYPE: &'static str = "tracking.delivery.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = DeliveryView;
}

/// The status of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryView {
    pub order: DeliveryId,
    pub status: DeliveryStatus,
    pub courier: CourierId,
    /// Time when the courier accepted.
    pub accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked_up_at: Option<Timestamp>,
    /// Time when it was handed over or left on the doorstep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// Number of the courier's GPS fixes.
    pub fixes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fix: Option<GpsFix>,
    /// Pickup location of the parcel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick_up_position: Option<Position>,
    /// Promised time window of the pickup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<TimeWindow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Label>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    Assigned,
    /// The courier has the parcel.
    PickedUp,
    Delivered,
}

/// A position of the courier with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpsFix {
    pub position: Position,
    pub recorded_at: Timestamp,
}

pub(super) const READ: &[ErrorCode] = &[ErrorCode::new(
    "unknown_delivery",
    "no courier has accepted it yet",
)];
