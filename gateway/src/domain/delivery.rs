//! Deliveries: the courier of an order, and that courier's positions. All events are on `delivery/NUMBER`, so the role
//! `tracking` applies them in the order in which the gateway recorded them.

use doorstep_contracts::{
    CourierId, DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded,
};
use doorstep_event::{Rejection, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, States};
use doorstep_store::EntityKey;

use super::{
    Command, Entity, Executed,
    entities::{Delivery, GpsFix, OrderNames, Step},
    order, rejected,
    requests::{Ack, AdvanceDelivery, AssignCourier, RecordPositions},
};

impl Command for AssignCourier {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.order.delivery_key(), self.order.order_key()]
    }

    /// Assigns a confirmed order to a courier. Assigning the same courier again changes nothing while the order is to be
    /// delivered.
    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed {
        let Self { order, courier } = self;
        order::is_confirmed(states, order)?;
        let key = order.delivery_key();
        if let Some(delivery) = states.get(&key).and_then(Entity::delivery) {
            if &delivery.courier == courier {
                return CommandOutcome::new::<Self>(&Ack {}, Effects::none());
            }
            return Err(rejected("assigned", "another courier has it already"));
        }
        let mut effects = Effects::none();
        let assigned = DeliveryAssigned {
            courier: courier.clone(),
            accepted_at: now,
            city: None,
            region: None,
            area: None,
            area_kind: None,
            position: None,
            window: None,
        };
        effects.publish(&order.delivery_subject(), &assigned)?;
        let delivery = Delivery {
            courier: courier.clone(),
            step: None,
        };
        states.put(&key, Entity::Delivery(delivery));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for AdvanceDelivery {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.order.delivery_key(), self.order.order_key()]
    }

    /// Records a step; a repeated one changes nothing. A cancelled order cannot be picked up.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let Self {
            order,
            courier,
            step,
            at,
        } = self;
        let key = order.delivery_key();
        let mut delivery = theirs(states, &key, courier)?;
        order::is_confirmed(states, order)?;
        let mut effects = Effects::none();
        if delivery.step >= Some(*step) {
            return CommandOutcome::new::<Self>(&Ack {}, effects);
        }
        let subject = order.delivery_subject();
        match step {
            Step::PickedUp => effects.publish(&subject, &DeliveryPickedUp { picked_up_at: *at })?,
            Step::Delivered if delivery.is_picked_up() => {
                effects.publish(&subject, &DeliveryDelivered { delivered_at: *at })?;
            }
            Step::Delivered => return Err(rejected("not_picked_up", "it is not picked up yet")),
        }
        delivery.step = Some(*step);
        states.put(&key, Entity::Delivery(delivery));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for RecordPositions {
    fn keys(&self) -> Vec<EntityKey> {
        let of = |fix: &GpsFix| [fix.order.delivery_key(), fix.order.order_key()];
        let mut keys: Vec<EntityKey> = self.fixes.iter().flat_map(of).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Records a courier's positions, all or nothing.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let mut effects = Effects::none();
        for fix in &self.fixes {
            theirs(states, &fix.order.delivery_key(), &self.courier)?;
            order::is_confirmed(states, &fix.order)?;
            let recorded = DeliveryPositionRecorded {
                position: fix.position,
                recorded_at: fix.recorded_at,
            };
            effects.publish(&fix.order.delivery_subject(), &recorded)?;
        }
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

/// Returns the delivery if it is this courier's. Another courier's delivery is rejected as if it did not exist.
fn theirs(
    states: &mut States<Entity>,
    key: &EntityKey,
    courier: &CourierId,
) -> Result<Delivery, Rejection> {
    let delivery = states.get(key).and_then(Entity::delivery);
    delivery
        .filter(|delivery| &delivery.courier == courier)
        .cloned()
        .ok_or_else(|| rejected("unknown_delivery", "you have no such delivery"))
}
