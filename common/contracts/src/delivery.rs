//! Deliveries, on `delivery/ORDER`.
//!
//! The sequence is the order in which events of a delivery became known. A position keeps its own time, which may precede the assignment's:
//! couriers' devices report late.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CourierId, Label, Position};

/// `delivery.assigned.v1`: a courier accepted the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryAssigned {
    pub courier: CourierId,
    pub accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Label>,
    /// The part of the city, numbered by the delivery company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Label>,
    /// The block, campus or estate of the address, numbered by the delivery company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<Label>,
    /// The kind of that area, numbered by the delivery company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area_kind: Option<Label>,
    /// Pickup location of the parcel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Promised time window of the pickup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<TimeWindow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeWindow {
    pub start: Timestamp,
    /// End of the window, not before `start`.
    pub end: Timestamp,
}

impl Contract for DeliveryAssigned {
    const TYPE: &'static str = "delivery.assigned.v1";

    fn check(&self) -> Result<(), String> {
        match self.window {
            Some(TimeWindow { start, end }) if end < start => Err(format!(
                "time window ends at {end}, before it starts at {start}"
            )),
            _ => Ok(()),
        }
    }
}

/// `delivery.position_recorded.v1`: the courier's position at a given time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryPositionRecorded {
    pub position: Position,
    /// Time of the GPS fix.
    pub recorded_at: Timestamp,
}

impl Contract for DeliveryPositionRecorded {
    const TYPE: &'static str = "delivery.position_recorded.v1";
}

/// `delivery.picked_up.v1`: the courier has the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryPickedUp {
    pub picked_up_at: Timestamp,
}

impl Contract for DeliveryPickedUp {
    const TYPE: &'static str = "delivery.picked_up.v1";
}

/// `delivery.delivered.v1`: the parcel has arrived. The last event of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryDelivered {
    /// Time when it was handed over or left on the doorstep.
    pub delivered_at: Timestamp,
}

impl Contract for DeliveryDelivered {
    const TYPE: &'static str = "delivery.delivered.v1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_window_ends_after_its_start() {
        let mut assigned: DeliveryAssigned =
            serde_json::from_str(include_str!("../golden/delivery.assigned.v1.json")).unwrap();
        assert_eq!(assigned.check(), Ok(()));
        let window = assigned.window.unwrap();
        assigned.window = Some(TimeWindow {
            start: window.end,
            end: window.start,
        });
        let error = assigned.check().unwrap_err();
        assert!(error.contains("before it starts"), "{error}");
    }
}
