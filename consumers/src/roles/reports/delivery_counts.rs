//! Deliveries of a day, by city.

use std::collections::BTreeMap;

use doorstep_contracts::{DeliveryAssigned, Label};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};

/// The maximum of cities in an entity. Further ones are counted together.
const MAX_CITIES: usize = 1_000;
/// The upper bounds of the classes of durations, in minutes; the last class has none. Never change them: stored counts
/// belong to these classes.
pub(crate) const DURATION_BOUNDS: [u16; 8] = [15, 30, 45, 60, 90, 120, 240, 480];

/// Counts by class of duration.
pub(crate) type DurationCounts = [u64; DURATION_BOUNDS.len() + 1];

/// The deliveries of one city, or of several. The order of the fields is the order in exports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryCounts {
    pub(crate) assigned: u64,
    pub(crate) picked_up: u64,
    /// Picked up after the end of the promised time window.
    pub(crate) picked_up_late: u64,
    pub(crate) delivered: u64,
    /// The times from the assignment to the pick-up.
    pub(crate) until_picked_up: DurationCounts,
    /// The times from the pick-up to the delivery.
    pub(crate) until_delivered: DurationCounts,
}

impl DeliveryCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.assigned += other.assigned;
        self.picked_up += other.picked_up;
        self.picked_up_late += other.picked_up_late;
        self.delivered += other.delivered;
        let durations = [
            (&mut self.until_picked_up, &other.until_picked_up),
            (&mut self.until_delivered, &other.until_delivered),
        ];
        for (sums, counts) in durations {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }
}

/// On `deliveries/DAY`: the steps of deliveries on a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryDay {
    /// By city; under no name the deliveries without a city.
    pub(super) cities: BTreeMap<String, DeliveryCounts>,
    /// The deliveries of the cities that came after the first 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) other: Option<DeliveryCounts>,
}

/// On `delivery/ORDER`: the part of a delivery that its next step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delivery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    city: Option<Label>,
    accepted_at: Timestamp,
    /// The end of the promised time window of the pick-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    picked_up_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
}

impl DeliveryDay {
    pub(super) fn assign(&mut self, assigned: &DeliveryAssigned) -> Delivery {
        self.city(assigned.city.as_ref()).assigned += 1;
        Delivery {
            city: assigned.city.clone(),
            accepted_at: assigned.accepted_at,
            due_at: assigned.window.map(|window| window.end),
            picked_up_at: None,
            delivered_at: None,
        }
    }

    /// Counts a pick-up.
    ///
    /// # Errors
    /// It contradicts the delivery.
    pub(super) fn pick_up(
        &mut self,
        mut delivery: Delivery,
        at: Timestamp,
    ) -> Result<Delivery, String> {
        if let Some(before) = delivery.picked_up_at {
            return Err(format!("was already picked up at {before}"));
        }
        let counts = self.city(delivery.city.as_ref());
        counts.picked_up += 1;
        if delivery.due_at.is_some_and(|due| at > due) {
            counts.picked_up_late += 1;
        }
        counts.until_picked_up[class(delivery.accepted_at, at)] += 1;
        delivery.picked_up_at = Some(at);
        Ok(delivery)
    }

    /// Counts a delivery.
    ///
    /// # Errors
    /// It contradicts the delivery.
    pub(super) fn deliver(
        &mut self,
        mut delivery: Delivery,
        at: Timestamp,
    ) -> Result<Delivery, String> {
        if let Some(before) = delivery.delivered_at {
            return Err(format!("was already delivered at {before}"));
        }
        let picked_up_at = delivery
            .picked_up_at
            .ok_or_else(|| "was not picked up yet".to_owned())?;
        let counts = self.city(delivery.city.as_ref());
        counts.delivered += 1;
        counts.until_delivered[class(picked_up_at, at)] += 1;
        delivery.delivered_at = Some(at);
        Ok(delivery)
    }

    /// Returns its counts by city; under no city those of the cities beyond the bound.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Option<&str>, &DeliveryCounts)> {
        let cities = self.cities.iter();
        cities
            .map(|(city, counts)| (Some(city.as_str()), counts))
            .chain(self.other.iter().map(|other| (None, other)))
    }

    fn city(&mut self, city: Option<&Label>) -> &mut DeliveryCounts {
        let name = city.map_or("", Label::as_str);
        if self.cities.len() >= MAX_CITIES && !self.cities.contains_key(name) {
            return self.other.get_or_insert_default();
        }
        self.cities.entry(name.to_owned()).or_default()
    }
}

/// Returns the class of a duration. A clock that runs behind may make it negative: that is the first class.
fn class(from: Timestamp, to: Timestamp) -> usize {
    let minutes = to.duration_since(from).as_mins();
    DURATION_BOUNDS.partition_point(|bound| minutes >= i64::from(*bound))
}
