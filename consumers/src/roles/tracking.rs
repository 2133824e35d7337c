//! Tracking: the state of every delivery, on `delivery/ORDER`.
//!
//! A delivery is assigned, picked up and delivered, in this order; positions may come at any time after the assignment.
//! The order is that of the stream: the times in the events come from the clocks of people and couriers, and are kept
//! as they are. They are compared only with each other, except that a fix dated well ahead of now is counted and never
//! becomes the last one. A fix may be older than the assignment, or than the fix before it.
//!
//! An event before the assignment is rejected: only a later event of its own stream could help.

use std::time::Duration;

use doorstep_contracts::{
    CourierId, DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded,
    Label, Position, TimeWindow,
    requests::{DeliveryStatus, DeliveryView, GpsFix, ReadDelivery},
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported, reply};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::not_handled;

/// The maximum by which a fix may be dated ahead of its commit to become the last one. Couriers' clocks differ by less;
/// a fix beyond it would hide every later one until its time has come.
const MAX_AHEAD: Duration = Duration::from_mins(10);

pub(crate) struct Tracking;

/// The events that the role handles.
pub(crate) enum Fact {
    /// A courier took the delivery on.
    Assigned(Box<DeliveryAssigned>),
    /// A courier reported a position.
    Position(DeliveryPositionRecorded),
    /// The courier has the parcel.
    PickedUp(DeliveryPickedUp),
    /// The parcel has arrived.
    Delivered(DeliveryDelivered),
}

/// A delivery. The order of the fields is the order in exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    status: DeliveryStatus,
    courier: CourierId,
    accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    picked_up_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivered_at: Option<Timestamp>,
    /// The number of the courier's fixes. Only the last one is kept, so that a state stays small.
    fixes: u64,
    /// The fix with the latest time of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_fix: Option<GpsFix>,
    /// The place where the parcel waits for the courier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pick_up_position: Option<Position>,
    /// The time window promised for the courier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<TimeWindow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    city: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    area: Option<Label>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    area_kind: Option<Label>,
}

impl Role for Tracking {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = ReadDelivery;
    type State = Delivery;

    fn name(&self) -> &'static str {
        "tracking"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            DeliveryAssigned::TYPE => Fact::Assigned(DeliveryAssigned::read(event)?.into()),
            DeliveryPositionRecorded::TYPE => {
                Fact::Position(DeliveryPositionRecorded::read(event)?)
            }
            DeliveryPickedUp::TYPE => Fact::PickedUp(DeliveryPickedUp::read(event)?),
            DeliveryDelivered::TYPE => Fact::Delivered(DeliveryDelivered::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, event: &Event, _fact: &Fact) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Delivery>,
        event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let subject = &event.subject;
        let reject = |why: String| Err(HandlerError::Reject(format!("{subject} {why}")));
        match (fact, states.first_mut()) {
            (Fact::Assigned(fact), delivery @ None) => *delivery = Some(Delivery::assigned(fact)),
            (Fact::Assigned(fact), Some(delivery)) => {
                return reject(format!(
                    "cannot be assigned to courier {}: courier {} has it since {}",
                    fact.courier, delivery.courier, delivery.accepted_at
                ));
            }
            (_, None) => {
                return reject(format!(
                    "was not assigned yet, which has to come before {}",
                    event.event_type
                ));
            }
            (Fact::Position(fact), Some(delivery)) => delivery.record(fact, now),
            (Fact::PickedUp(fact), Some(delivery)) => match delivery.picked_up_at {
                None => {
                    delivery.status = DeliveryStatus::PickedUp;
                    delivery.picked_up_at = Some(fact.picked_up_at);
                }
                Some(at) => return reject(format!("was already picked up at {at}")),
            },
            (Fact::Delivered(fact), Some(delivery)) => match delivery.status {
                DeliveryStatus::PickedUp => {
                    delivery.status = DeliveryStatus::Delivered;
                    delivery.delivered_at = Some(fact.delivered_at);
                }
                DeliveryStatus::Assigned => return reject("was not picked up yet".to_owned()),
                DeliveryStatus::Delivered => return reject("was already delivered".to_owned()),
            },
        }
        Ok(Effects::none())
    }

    fn read_query(&self, request: &Request) -> Result<ReadDelivery, ContractError> {
        match request.kind.as_str() {
            ReadDelivery::TYPE => ReadDelivery::read(request),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn query_keys(&self, _request: &Request, query: &ReadDelivery) -> Vec<EntityKey> {
        vec![EntityKey::from(&query.order.subject())]
    }

    fn query(
        &self,
        states: &States<Delivery>,
        _request: &Request,
        query: &ReadDelivery,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let ReadDelivery { order } = query;
        let delivery = states
            .get(&EntityKey::from(&order.subject()))
            .ok_or_else(|| {
                let detail = format!("no courier has taken the delivery of order {order} on yet");
                Rejection::new("unknown_delivery", detail)
            })?
            .clone();
        reply::<ReadDelivery>(&DeliveryView {
            order: order.clone(),
            status: delivery.status,
            courier: delivery.courier,
            accepted_at: delivery.accepted_at,
            picked_up_at: delivery.picked_up_at,
            delivered_at: delivery.delivered_at,
            fixes: delivery.fixes,
            last_fix: delivery.last_fix,
            pick_up_position: delivery.pick_up_position,
            window: delivery.window,
            city: delivery.city,
        })
    }
}

impl Delivery {
    fn assigned(fact: &DeliveryAssigned) -> Self {
        Self {
            status: DeliveryStatus::Assigned,
            courier: fact.courier.clone(),
            accepted_at: fact.accepted_at,
            picked_up_at: None,
            delivered_at: None,
            fixes: 0,
            last_fix: None,
            pick_up_position: fact.position,
            window: fact.window,
            city: fact.city.clone(),
            region: fact.region.clone(),
            area: fact.area.clone(),
            area_kind: fact.area_kind.clone(),
        }
    }

    /// Counts a fix, and keeps it unless the present one has a later time: of two with one time, the later report wins.
    /// A fix dated well ahead of now is not kept; one that was kept before gives way to any other.
    fn record(&mut self, fact: &DeliveryPositionRecorded, now: Timestamp) {
        let DeliveryPositionRecorded {
            position,
            recorded_at,
        } = *fact;
        self.fixes += 1;
        let latest = now.checked_add(MAX_AHEAD).unwrap_or(Timestamp::MAX);
        let is_later = |last: GpsFix| last.recorded_at <= recorded_at || last.recorded_at > latest;
        if recorded_at <= latest && self.last_fix.is_none_or(is_later) {
            self.last_fix = Some(GpsFix {
                position,
                recorded_at,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::testing::{RoleHarness, applied, event, exported, rejected, ten};

    const KEY: &str = "delivery/3781637";

    fn at(time: &str) -> Timestamp {
        format!("2022-05-01T{time}:00Z").parse().unwrap()
    }

    fn assigned_to(courier: &str) -> DeliveryAssigned {
        DeliveryAssigned {
            courier: CourierId::new(courier).unwrap(),
            accepted_at: at("00:10"),
            city: Some(Label::new("Chongqing").unwrap()),
            region: None,
            area: None,
            area_kind: None,
            position: None,
            window: None,
        }
    }

    fn assigned() -> Delivery {
        applied(&Tracking, None, &event(KEY, 1, &assigned_to("317")))
    }

    fn seen(before: Delivery, time: &str, longitude: f64) -> Delivery {
        let fact = DeliveryPositionRecorded {
            position: Position::new(longitude, 29.5).unwrap(),
            recorded_at: at(time),
        };
        applied(&Tracking, Some(before), &event(KEY, 2, &fact))
    }

    fn picked_up(before: Delivery) -> Delivery {
        let fact = DeliveryPickedUp {
            picked_up_at: at("01:28"),
        };
        applied(&Tracking, Some(before), &event(KEY, 3, &fact))
    }

    fn delivered(before: Delivery) -> Delivery {
        let fact = DeliveryDelivered {
            delivered_at: at("04:10"),
        };
        applied(&Tracking, Some(before), &event(KEY, 4, &fact))
    }

    #[test]
    fn delivery_goes_from_assigned_to_delivered() {
        let delivery = seen(assigned(), "00:50", 106.5);
        assert_eq!(delivery.status, DeliveryStatus::Assigned);
        let delivery = picked_up(delivery);
        assert_eq!(delivery.status, DeliveryStatus::PickedUp);
        let delivery = delivered(delivery);
        let json = r#"{"status":"delivered","courier":"317","accepted_at":"2022-05-01T00:10:00Z","picked_up_at":"2022-05-01T01:28:00Z","delivered_at":"2022-05-01T04:10:00Z","fixes":1,"last_fix":{"position":{"longitude":106.5,"latitude":29.5},"recorded_at":"2022-05-01T00:50:00Z"},"city":"Chongqing"}"#;
        assert_eq!(exported(&delivery), json);
        assert_eq!(serde_json::from_str::<Delivery>(json).unwrap(), delivery);
    }

    #[test]
    fn fix_keeps_its_time_even_before_assignment() {
        let delivery = seen(assigned(), "00:01", 106.4);
        let fix = delivery.last_fix.unwrap();
        assert!(fix.recorded_at < delivery.accepted_at);
        assert_eq!(fix.recorded_at, at("00:01"));
    }

    #[test]
    fn last_fix_is_latest_by_its_own_time() {
        let delivery = seen(assigned(), "00:50", 106.5);
        let delivery = seen(delivery, "00:20", 106.2);
        let fix = delivery.last_fix.unwrap();
        assert_eq!((delivery.fixes, fix.position.longitude()), (2, 106.5));
        let delivery = seen(delivery, "00:50", 106.6);
        assert_eq!(delivery.last_fix.unwrap().position.longitude(), 106.6);
    }

    #[test]
    fn future_fix_hides_no_other() {
        let fix = |time: &str, longitude| DeliveryPositionRecorded {
            position: Position::new(longitude, 29.5).unwrap(),
            recorded_at: time.parse().unwrap(),
        };
        let ahead = fix("2046-07-16T00:00:00Z", 1.0);
        let mut delivery = applied(&Tracking, Some(assigned()), &event(KEY, 2, &ahead));
        assert_eq!((delivery.fixes, delivery.last_fix), (1, None));
        // A fix within the differences of clocks counts.
        let soon = ten() + MAX_AHEAD;
        delivery.record(&fix(&soon.to_string(), 2.0), ten());
        assert_eq!(delivery.last_fix.unwrap().position.longitude(), 2.0);
        // One that was kept before gives way, even to an earlier one.
        delivery.last_fix = Some(GpsFix {
            recorded_at: "2046-07-16T00:00:00Z".parse().unwrap(),
            ..delivery.last_fix.unwrap()
        });
        delivery.record(&fix("2026-11-23T09:59:00Z", 3.0), ten());
        assert_eq!(delivery.last_fix.unwrap().position.longitude(), 3.0);
        assert_eq!(delivery.fixes, 3);
    }

    #[test]
    fn fix_may_follow_the_delivery() {
        let delivery = seen(delivered(picked_up(assigned())), "04:30", 106.9);
        assert_eq!(
            (delivery.fixes, delivery.status),
            (1, DeliveryStatus::Delivered)
        );
    }

    #[test]
    fn a_delivery_is_assigned_once() {
        let said = rejected(
            &Tracking,
            Some(assigned()),
            &event(KEY, 2, &assigned_to("9")),
        );
        assert_eq!(
            said,
            "delivery/3781637 cannot be assigned to courier 9: courier 317 has it since 2022-05-01T00:10:00Z"
        );
    }

    #[test]
    fn nothing_comes_before_the_assignment() {
        let up = DeliveryPickedUp {
            picked_up_at: at("01:28"),
        };
        let said = rejected(&Tracking, None, &event(KEY, 1, &up));
        assert_eq!(
            said,
            "delivery/3781637 was not assigned yet, which has to come before delivery.picked_up.v1"
        );
        let fix = DeliveryPositionRecorded {
            position: Position::new(0.0, 0.0).unwrap(),
            recorded_at: at("00:10"),
        };
        rejected(&Tracking, None, &event(KEY, 1, &fix));
        let done = DeliveryDelivered {
            delivered_at: at("04:10"),
        };
        rejected(&Tracking, None, &event(KEY, 1, &done));
    }

    #[test]
    fn parcel_is_picked_up_once_then_delivered_once() {
        let up = DeliveryPickedUp {
            picked_up_at: at("02:00"),
        };
        let done = DeliveryDelivered {
            delivered_at: at("05:00"),
        };
        let said = rejected(&Tracking, Some(assigned()), &event(KEY, 2, &done));
        assert!(said.ends_with("was not picked up yet"), "{said}");
        let gone = picked_up(assigned());
        let said = rejected(&Tracking, Some(gone.clone()), &event(KEY, 4, &up));
        assert!(
            said.ends_with("already picked up at 2022-05-01T01:28:00Z"),
            "{said}"
        );
        let arrived = delivered(gone);
        let said = rejected(&Tracking, Some(arrived.clone()), &event(KEY, 5, &done));
        assert!(said.ends_with("was already delivered"), "{said}");
        let said = rejected(&Tracking, Some(arrived), &event(KEY, 5, &up));
        assert!(said.contains("already picked up"), "{said}");
    }

    #[test]
    fn query_returns_the_state_of_a_delivery() {
        let mut bench = RoleHarness::new(Tracking);
        let order = || doorstep_contracts::DeliveryId::new("3781637").unwrap();
        let rejected = bench.query(&ReadDelivery { order: order() }).unwrap_err();
        assert_eq!(rejected.code, "unknown_delivery");
        bench.give(&event(KEY, 1, &assigned_to("317"))).unwrap();
        let view = bench.query(&ReadDelivery { order: order() }).unwrap();
        assert_eq!(
            (view.status, view.courier.as_str(), view.fixes),
            (DeliveryStatus::Assigned, "317", 0)
        );
    }
}
