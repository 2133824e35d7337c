//! Orders: each is begun before any role is called, then confirmed, rejected or abandoned, exactly one of these.
//!
//! The commit of an outcome also releases the stock that was reserved at the beginning. Payment and restaurant learn of
//! the outcome by its event.

use doorstep_contracts::{
    CancelledBy, InvoiceNo, Label, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderPlaced,
    OrderRefused, StockAdjusted, StockReason, StockReleased, StockReserved,
};
use doorstep_event::{Rejection, Subject, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, States};
use doorstep_store::EntityKey;

use super::{
    Command, Entity, Executed,
    entities::{
        IdempotencyRecord, OpenOrders, Order, OrderDecision, OrderNames, OrderState, part_keys,
    },
    rejected,
    requests::{Ack, AdoptOutcome, BeginOrder, CancelOrder, EndOrder, LeaveOpen},
};

/// The limit of open orders in one part.
const MAX_IN_PART: usize = 256;

impl Command for BeginOrder {
    fn keys(&self) -> Vec<EntityKey> {
        vec![
            self.order.order_key(),
            IdempotencyRecord::entity(&self.customer, &self.key),
            self.order.part_key(),
        ]
    }

    /// Begins an order: publishes that it is placed, and reserves its stock.
    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed {
        let Self { order, .. } = self;
        let intent = IdempotencyRecord::entity(&self.customer, &self.key);
        if states.get(&intent).is_some() {
            return Err(rejected(
                "idempotency_key_in_use",
                "the Idempotency-Key was used before",
            ));
        }
        if states.get(&order.order_key()).is_some() {
            return Err(rejected(
                "order_exists",
                format!("order {order} exists already"),
            ));
        }
        let mut open = open_part(states, order);
        if open.orders.len() + open.left.len() >= MAX_IN_PART {
            return Err(rejected("overloaded", "too many orders are in checkout"));
        }
        open.orders.insert(order.to_string(), self.deadline);

        let mut effects = Effects::none();
        let placed = OrderPlaced {
            placed_at: now,
            customer: Some(self.customer.clone()),
            country: self.country.clone(),
            lines: self.lines.clone(),
            total: self.total,
        };
        effects.publish(&order.order_subject(), &placed)?;
        for line in &self.lines {
            let reserved = StockReserved {
                quantity: line.quantity,
                reference: order.order_subject(),
            };
            effects.publish(&line.sku.subject(), &reserved)?;
        }
        states.put(&order.part_key(), Entity::Open(open));
        states.put(
            &intent,
            Entity::Intent(IdempotencyRecord {
                order: order.clone(),
                fingerprint: self.fingerprint.clone(),
            }),
        );
        let begun = Order {
            customer: self.customer.clone(),
            restaurant: self.restaurant.clone(),
            lines: self.lines.clone(),
            total: self.total,
            placed_at: now,
            stage: OrderState::Open,
        };
        states.put(&order.order_key(), Entity::Order(begun.into()));
        CommandOutcome::new::<Self>(&Ack {}, effects)
    }
}

impl Command for EndOrder {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.order.order_key(), self.order.part_key()]
    }

    /// Records the outcome of an order unless it has one. The first outcome stays, and is the reply.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let number = &self.order;
        let order = known(states, number)?;
        if order.stage != OrderState::Open {
            return CommandOutcome::new::<Self>(&order.stage, Effects::none());
        }
        let effects = effects_of_end(number, &order, &self.outcome)?;
        let stage = close(states, number, order, &self.outcome);
        CommandOutcome::new::<Self>(&stage, effects)
    }
}

impl Command for LeaveOpen {
    fn keys(&self) -> Vec<EntityKey> {
        part_keys()
    }

    /// Leaves the open orders to an operator.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        for part in part_keys() {
            let open = states.get(&part).and_then(Entity::open);
            let Some(mut open) = open.filter(|open| !open.orders.is_empty()).cloned() else {
                continue;
            };
            open.left.append(&mut open.orders);
            states.put(&part, Entity::Open(open));
        }
        CommandOutcome::new::<Self>(&Ack {}, Effects::none())
    }
}

impl Command for AdoptOutcome {
    fn keys(&self) -> Vec<EntityKey> {
        vec![self.order.order_key(), self.order.part_key()]
    }

    /// Records an outcome that the lost store published, and publishes nothing again.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let number = &self.order;
        let order = known(states, number)?;
        if !open_part(states, number).left.contains_key(number.as_str()) {
            return CommandOutcome::new::<Self>(&order.stage, Effects::none());
        }
        let stage = close(states, number, order, &self.outcome);
        CommandOutcome::new::<Self>(&stage, Effects::none())
    }
}

/// Returns the events of an outcome.
fn effects_of_end(
    number: &InvoiceNo,
    order: &Order,
    outcome: &OrderDecision,
) -> Result<Effects, Rejection> {
    let mut effects = Effects::none();
    let subject = number.order_subject();
    match outcome {
        OrderDecision::Confirmed { promised_at } => effects.publish(
            &subject,
            &OrderConfirmed {
                restaurant: order.restaurant.clone(),
                promised_at: *promised_at,
            },
        )?,
        OrderDecision::Refused { by, code, .. } => effects.publish(
            &subject,
            &OrderRefused {
                by: *by,
                reason: label(code),
            },
        )?,
        OrderDecision::Abandoned { reason } => effects.publish(
            &subject,
            &OrderAbandoned {
                reason: reason.clone(),
            },
        )?,
    }
    for line in &order.lines {
        let stock = line.sku.subject();
        let released = StockReleased {
            quantity: line.quantity,
            reference: subject.clone(),
        };
        effects.publish(&stock, &released)?;
        if matches!(outcome, OrderDecision::Confirmed { .. }) {
            effects.publish(
                &stock,
                &adjusted(-line.quantity, StockReason::Sale, &subject),
            )?;
        }
    }
    Ok(effects)
}

/// Gives an open order its outcome.
fn close(
    states: &mut States<Entity>,
    number: &InvoiceNo,
    mut order: Order,
    outcome: &OrderDecision,
) -> OrderState {
    order.stage = outcome.clone().into();
    if !matches!(order.stage, OrderState::Confirmed { .. }) {
        order.lines = Vec::new();
    }
    let mut open = open_part(states, number);
    open.orders.remove(number.as_str());
    open.left.remove(number.as_str());
    states.put(&number.part_key(), Entity::Open(open));
    let stage = order.stage.clone();
    states.put(&number.order_key(), Entity::Order(order.into()));
    stage
}

impl Command for CancelOrder {
    fn keys(&self) -> Vec<EntityKey> {
        vec![
            self.order.order_key(),
            self.order.delivery_key(),
            self.order.part_key(),
        ]
    }

    /// Cancels a confirmed order and takes its stock back. A cancelled order stays as it is. An operator abandons an order
    /// that a restored copy has left, knowing by then that it never ended.
    fn execute(&self, states: &mut States<Entity>, _now: Timestamp) -> Executed {
        let number = &self.order;
        let mut order = known(states, number)?;
        let promised_at = match &order.stage {
            OrderState::Confirmed { promised_at } => *promised_at,
            stage @ OrderState::Cancelled { .. } => {
                return CommandOutcome::new::<Self>(stage, Effects::none());
            }
            OrderState::Open
                if self.by == CancelledBy::Operator
                    && open_part(states, number).left.contains_key(number.as_str()) =>
            {
                let outcome = OrderDecision::Abandoned {
                    reason: self.reason.clone(),
                };
                let effects = effects_of_end(number, &order, &outcome)?;
                let stage = close(states, number, order, &outcome);
                return CommandOutcome::new::<Self>(&stage, effects);
            }
            other => {
                return Err(rejected(
                    "not_confirmed",
                    format!(
                        "only a confirmed order can be cancelled, and this one {}",
                        other.describe()
                    ),
                ));
            }
        };
        let delivery = states
            .get(&number.delivery_key())
            .and_then(Entity::delivery);
        if delivery.is_some_and(super::Delivery::is_picked_up) {
            return Err(rejected("picked_up", "its courier is on the way already"));
        }
        let mut effects = Effects::none();
        let subject = number.order_subject();
        effects.publish(
            &subject,
            &OrderCancelled {
                by: self.by,
                reason: self.reason.clone(),
            },
        )?;
        for line in &order.lines {
            let returned = adjusted(line.quantity, StockReason::Return, &subject);
            effects.publish(&line.sku.subject(), &returned)?;
        }
        order.lines = Vec::new();
        order.stage = OrderState::Cancelled {
            promised_at,
            by: self.by,
            reason: self.reason.clone(),
        };
        let stage = order.stage.clone();
        states.put(&number.order_key(), Entity::Order(order.into()));
        CommandOutcome::new::<Self>(&stage, effects)
    }
}

fn adjusted(delta: i64, reason: StockReason, order: &Subject) -> StockAdjusted {
    StockAdjusted {
        delta,
        reason,
        reference: order.clone(),
    }
}

/// Returns the order of that number.
pub(super) fn known(states: &mut States<Entity>, number: &InvoiceNo) -> Result<Order, Rejection> {
    let order = states.get(&number.order_key()).and_then(Entity::order);
    order
        .cloned()
        .ok_or_else(|| rejected("unknown_order", "this order does not exist"))
}

/// Checks that the order of that number can be delivered.
pub(super) fn is_confirmed(
    states: &mut States<Entity>,
    number: &InvoiceNo,
) -> Result<(), Rejection> {
    let order = states.get(&number.order_key()).and_then(Entity::order);
    let order = order.ok_or_else(|| rejected("unknown_order", "this order does not exist"))?;
    match &order.stage {
        OrderState::Confirmed { .. } => Ok(()),
        other => Err(rejected(
            "not_confirmed",
            format!(
                "only a confirmed order can be delivered, and {number} {}",
                other.describe()
            ),
        )),
    }
}

fn open_part(states: &mut States<Entity>, number: &InvoiceNo) -> OpenOrders {
    let part = states.get(&number.part_key()).and_then(Entity::open);
    part.cloned().unwrap_or_default()
}

/// Converts a text to a label: cuts it to the limit, and removes characters that no terminal should print.
pub(crate) fn label(text: &str) -> Label {
    let plain: String = text.chars().filter(|c| !c.is_control()).take(50).collect();
    Label::new(&plain).unwrap_or_else(|_| {
        #[expect(clippy::expect_used, reason = "a constant")]
        Label::new("unknown").expect("a label")
    })
}
