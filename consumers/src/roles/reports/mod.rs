//! Reports: the figures of sales by day, country and stock code, and of deliveries by day and city.
//!
//! Each figure is a sum or a count, so events of different streams add up to the same figures in any order. An event
//! counts on its own day in UTC. The entity of a day names its country, so a report reads exactly the days of its
//! period.
//!
//! The end of an order names neither its day nor its country. So the order remembers both with its lines, and the
//! reversal reaches the day's figures as an event that this role schedules for itself.

mod charts;
mod csv;
mod delivery_counts;
pub(crate) mod figures;
mod page;
pub(crate) mod period;
pub(crate) mod report;
#[cfg(test)]
mod tests;
mod turnover;

use doorstep_contracts::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, InvoiceNo, Label, OrderAbandoned,
    OrderCancelled, OrderPlaced, OrderRefused, ReturnRecorded,
};
use doorstep_event::{Contract, ContractError, Event, Subject, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use jiff::{civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

use self::{
    delivery_counts::{Delivery, DeliveryDay},
    turnover::{OrderSales, ReturnedInvoice, SalesDay, SoldLines},
};
use super::{not_handled, order_of};

pub(crate) struct Reports;

/// The events that the role handles.
pub(crate) enum Fact {
    Placed(OrderPlaced),
    Returned(ReturnRecorded),
    /// An order was rejected, abandoned or cancelled.
    Ended(InvoiceNo),
    /// The sales of an ended order are to be reversed.
    Reversed(InvoiceNo),
    Assigned(Box<DeliveryAssigned>),
    PickedUp(DeliveryPickedUp),
    Delivered(DeliveryDelivered),
}

/// `sales.reversed.v1`, on `sales/DAY/COUNTRY` from this role to itself: reverse the sales of an order. It is never
/// published.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SalesReversed {
    order: InvoiceNo,
}

impl Contract for SalesReversed {
    const TYPE: &'static str = "sales.reversed.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The states of the role, each under its own kind of key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// On `sales/DAY/COUNTRY`.
    Sales(SalesDay),
    /// On `order/INVOICE`.
    Order(OrderSales),
    /// On `return/INVOICE`.
    Return(ReturnedInvoice),
    /// On `deliveries/DAY`.
    Deliveries(DeliveryDay),
    /// On `delivery/ORDER`.
    Delivery(Delivery),
}

impl Role for Reports {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = Record;

    fn name(&self) -> &'static str {
        "reports"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            OrderPlaced::TYPE => Fact::Placed(OrderPlaced::read(event)?),
            OrderRefused::TYPE => OrderRefused::read(event)
                .and_then(|_| order_of(event))
                .map(Fact::Ended)?,
            OrderAbandoned::TYPE => OrderAbandoned::read(event)
                .and_then(|_| order_of(event))
                .map(Fact::Ended)?,
            OrderCancelled::TYPE => OrderCancelled::read(event)
                .and_then(|_| order_of(event))
                .map(Fact::Ended)?,
            SalesReversed::TYPE => Fact::Reversed(SalesReversed::read(event)?.order),
            ReturnRecorded::TYPE => Fact::Returned(ReturnRecorded::read(event)?),
            DeliveryAssigned::TYPE => Fact::Assigned(DeliveryAssigned::read(event)?.into()),
            DeliveryPickedUp::TYPE => Fact::PickedUp(DeliveryPickedUp::read(event)?),
            DeliveryDelivered::TYPE => Fact::Delivered(DeliveryDelivered::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    /// Returns the entity of the event's day if it has one, then that of its own subject.
    fn keys(&self, event: &Event, fact: &Fact) -> Vec<EntityKey> {
        let own = EntityKey::from(&event.subject);
        match fact {
            Fact::Placed(fact) => vec![sales_key(fact.placed_at, &fact.country), own],
            Fact::Returned(fact) => vec![sales_key(fact.recorded_at, &fact.country), own],
            Fact::Ended(_) => vec![own],
            Fact::Reversed(order) => vec![own, EntityKey::from(&order.order_subject())],
            Fact::Assigned(fact) => vec![deliveries_key(fact.accepted_at), own],
            Fact::PickedUp(fact) => vec![deliveries_key(fact.picked_up_at), own],
            Fact::Delivered(fact) => vec![deliveries_key(fact.delivered_at), own],
        }
    }

    fn handle(
        &self,
        states: &mut States<Record>,
        event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let own = EntityKey::from(&event.subject);
        let mut effects = Effects::none();
        let applied = match fact {
            Fact::Placed(placed) => place(states, &own, placed),
            Fact::Returned(returned) => take_back(states, &own, returned),
            Fact::Ended(order) => {
                if let Some(day) = end(states, &own) {
                    let order = order.clone();
                    effects.schedule(now, &day, &SalesReversed { order })?;
                }
                Ok(())
            }
            Fact::Reversed(order) => {
                reverse(states, &own, &EntityKey::from(&order.order_subject()))
            }
            Fact::Assigned(assigned) => assign(states, &own, assigned),
            Fact::PickedUp(fact) => progress(states, &own, |day, delivery| {
                day.pick_up(delivery, fact.picked_up_at)
            }),
            Fact::Delivered(fact) => progress(states, &own, |day, delivery| {
                day.deliver(delivery, fact.delivered_at)
            }),
        };
        applied.map_err(|why| HandlerError::Reject(format!("{} {why}", event.subject)))?;
        Ok(effects)
    }
}

/// The reason why an event is rejected.
type Rejected = String;

/// Counts an order, and reverses it at once if its end came first.
fn place(
    states: &mut States<Record>,
    order: &EntityKey,
    placed: &OrderPlaced,
) -> Result<(), Rejected> {
    let has_ended = match states.get(order) {
        None => false,
        Some(Record::Order(OrderSales::EndedFirst)) => true,
        Some(_) => return Err("was already placed".to_owned()),
    };
    let sold = SoldLines::new(date(placed.placed_at), &placed.country, &placed.lines)
        .ok_or_else(uncountable)?;
    let day = sales(states)?;
    day.add_order(&sold.lines).ok_or_else(uncountable)?;
    if has_ended {
        day.reverse_order(&sold.lines).ok_or_else(uncountable)?;
    }
    let state = match has_ended {
        true => OrderSales::Reversed,
        false => OrderSales::Placed(sold),
    };
    states.put(order, Record::Order(state));
    Ok(())
}

/// Counts returned goods.
fn take_back(
    states: &mut States<Record>,
    invoice: &EntityKey,
    returned: &ReturnRecorded,
) -> Result<(), Rejected> {
    if let Some(Record::Return(before)) = states.get(invoice) {
        return Err(format!("was already recorded at {}", before.recorded_at));
    }
    let day = sales(states)?;
    day.add_return(&returned.lines).ok_or_else(uncountable)?;
    let state = ReturnedInvoice {
        recorded_at: returned.recorded_at,
    };
    states.put(invoice, Record::Return(state));
    Ok(())
}

/// Marks an order as ended, and returns the day whose sales are to be reversed, if there is one.
fn end(states: &mut States<Record>, order: &EntityKey) -> Option<Subject> {
    match states.get(order).cloned() {
        None => {
            states.put(order, Record::Order(OrderSales::EndedFirst));
            None
        }
        Some(Record::Order(OrderSales::Placed(sold))) => {
            let day = Subject::new(sold.key());
            states.put(order, Record::Order(OrderSales::Ending(sold)));
            day.ok()
        }
        // An order ends once. A second end, from another source, changes nothing.
        Some(_) => None,
    }
}

/// Reverses the sales of an ended order, once.
fn reverse(
    states: &mut States<Record>,
    day: &EntityKey,
    order: &EntityKey,
) -> Result<(), Rejected> {
    let Some(Record::Order(OrderSales::Ending(sold))) = states.get(order).cloned() else {
        return Ok(());
    };
    if sold.key() != day.as_str() {
        return Err(format!("does not count {order}"));
    }
    let day = sales(states)?;
    day.reverse_order(&sold.lines).ok_or_else(uncountable)?;
    states.put(order, Record::Order(OrderSales::Reversed));
    Ok(())
}

fn assign(
    states: &mut States<Record>,
    delivery: &EntityKey,
    assigned: &DeliveryAssigned,
) -> Result<(), Rejected> {
    if states.get(delivery).is_some() {
        return Err("was already assigned".to_owned());
    }
    let state = deliveries(states)?.assign(assigned);
    states.put(delivery, Record::Delivery(state));
    Ok(())
}

/// Counts a further step of a delivery on the day of that step.
fn progress(
    states: &mut States<Record>,
    key: &EntityKey,
    step: impl FnOnce(&mut DeliveryDay, Delivery) -> Result<Delivery, Rejected>,
) -> Result<(), Rejected> {
    let Some(Record::Delivery(delivery)) = states.get(key).cloned() else {
        return Err("was not assigned yet".to_owned());
    };
    let delivery = step(deliveries(states)?, delivery)?;
    states.put(key, Record::Delivery(delivery));
    Ok(())
}

/// Returns the sales of the event's day, to be changed in place: a busy day is large.
fn sales(states: &mut States<Record>) -> Result<&mut SalesDay, Rejected> {
    let empty = || Record::Sales(SalesDay::default());
    match states.first_mut().get_or_insert_with(empty) {
        Record::Sales(day) => Ok(day),
        _ => Err(wrong_kind()),
    }
}

fn deliveries(states: &mut States<Record>) -> Result<&mut DeliveryDay, Rejected> {
    let empty = || Record::Deliveries(DeliveryDay::default());
    match states.first_mut().get_or_insert_with(empty) {
        Record::Deliveries(day) => Ok(day),
        _ => Err(wrong_kind()),
    }
}

fn wrong_kind() -> Rejected {
    "belongs to a day whose entity has another form".to_owned()
}

fn uncountable() -> Rejected {
    "leads beyond what can be counted on its day".to_owned()
}

fn sales_key(at: Timestamp, country: &Label) -> EntityKey {
    EntityKey::new(turnover::sales_key(date(at), country))
}

fn deliveries_key(at: Timestamp) -> EntityKey {
    EntityKey::new(format!("deliveries/{}", date(at)))
}

/// Returns the day of a time in UTC.
fn date(at: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(at).date()
}
