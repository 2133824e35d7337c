//! Deliveries, on `delivery/ORDER`.
//!
//! What happens to a delivery is told in the order in which it became known, by the sequence. A position keeps its own time, which may
//! lie before the assignment's: couriers' devices report late.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CourierId, Label, Position};

/// `delivery.assigned.v1`: a courier took the delivery on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryAssigned {
    /// Who delivers.
    pub courier: CourierId,
    /// When the courier accepted.
    pub accepted_at: Timestamp,
    /// The city, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<Label>,
    /// The part of the city, by the delivery company's own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Label>,
    /// The block, campus or estate that the address is in, by the delivery company's own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<Label>,
    /// What kind of area that is, by the delivery company's own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area_kind: Option<Label>,
    /// Where the parcel waits for the courier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// When the courier was promised to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<TimeWindow>,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeWindow {
    /// Its first moment.
    pub start: Timestamp,
    /// Its last moment, not before the first.
    pub end: Timestamp,
}

impl Contract for DeliveryAssigned {
    const TYPE: &'static str = "delivery.assigned.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        match self.window {
            Some(TimeWindow { start, end }) if end < start => Err(format!(
                "time window ends at {end}, before it starts at {start}"
            )),
            _ => Ok(()),
        }
    }
}

/// `delivery.position_recorded.v1`: where the courier was at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryPositionRecorded {
    /// Where.
    pub position: Position,
    /// When the courier was there: the time of the fix.
    pub recorded_at: Timestamp,
}

impl Contract for DeliveryPositionRecorded {
    const TYPE: &'static str = "delivery.position_recorded.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// `delivery.picked_up.v1`: the courier has the parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryPickedUp {
    /// When the courier took it.
    pub picked_up_at: Timestamp,
}

impl Contract for DeliveryPickedUp {
    const TYPE: &'static str = "delivery.picked_up.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

/// `delivery.delivered.v1`: the parcel is where it belongs. The last event of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryDelivered {
    /// When it was handed over or left on the doorstep.
    pub delivered_at: Timestamp,
}

impl Contract for DeliveryDelivered {
    const TYPE: &'static str = "delivery.delivered.v1";
    const REQUIRES_SEQUENCE: bool = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_window_does_not_end_before_it_starts() {
        let mut assigned: DeliveryAssigned =
            serde_json::from_str(include_str!("../golden/delivery.assigned.v1.json")).unwrap();
        assert_eq!(assigned.check(), Ok(()));
        let window = assigned.window.unwrap();
        assigned.window = Some(TimeWindow {
            start: window.end,
            end: window.start,
        });
        let said = assigned.check().unwrap_err();
        assert!(said.contains("before it starts"), "{said}");
    }
}
