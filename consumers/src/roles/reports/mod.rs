//! Reports: the figures of sales by day, country and stock code, and of deliveries by day and city.
//!
//! Each figure is a sum or a count, so events of different streams add up to the same figures in any order. An event
//! counts on its own day in UTC. The entity of a day names its country, so a report reads exactly the days of its
//! period.
//!
//! The end of an order names neither its day nor its country. So the order remembers both with its lines, and the
//! reversal reaches the day's figures as an event that this role schedules for itself.

mod charts;
mod contracts;
mod csv;
mod delivery_counts;
pub(crate) mod figures;
mod files;
mod page;
pub(crate) mod period;
pub(crate) mod report;
mod requested;
mod settings;
mod tasks;
#[cfg(test)]
mod tests;
mod turnover;

use std::time::Duration;

use doorstep_contracts::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, InvoiceNo, Label, OrderAbandoned,
    OrderCancelled, OrderPlaced, OrderRefused, ReturnRecorded,
    requests::{CancelReport, ListReports, ReadReport, RequestReport},
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Subject, Timestamp,
};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, Reading, Role, States, reply, task::TaskOutcome,
};
use doorstep_store::{EntityKey, TaskId};
use jiff::{civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

pub(crate) use self::settings::ReportSettings;
use self::{
    contracts::{ExpiryDue, RemovedReport, RenderedReport},
    delivery_counts::{Delivery, DeliveryDay},
    requested::{
        RenderEnded, RequestedReport, RequesterReports, expiry_due, report_key, requester_key,
    },
    turnover::{OrderSales, ReturnedInvoice, SalesDay, SoldLines},
};
use super::{not_handled, order_of};

pub(crate) struct Reports {
    /// The time that requested reports are kept.
    retention: Duration,
}

impl Reports {
    /// Creates the role; without settings for a dry run, which stores nothing.
    pub(crate) fn new(settings: Option<&ReportSettings>) -> Self {
        Self {
            retention: settings.map_or(Duration::MAX, |settings| settings.report_retention),
        }
    }
}

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
    /// A requested report was kept long enough, or is to be forgotten.
    ExpiryDue(ExpiryDue),
}

/// The commands that the role executes.
pub(crate) enum Command {
    Request(RequestReport),
    Cancel(CancelReport),
    Rendered(RenderedReport),
    Removed(RemovedReport),
    RenderEnded(RenderEnded),
}

/// The queries that the role serves.
pub(crate) enum Query {
    Report(ReadReport),
    List(ListReports),
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
    /// On `report/ID`.
    Report(Box<RequestedReport>),
    /// On `requester/NAME`.
    RequesterReports(RequesterReports),
}

impl Role for Reports {
    type Payload = Fact;
    type Command = Command;
    type Query = Query;
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
            ExpiryDue::TYPE => Fact::ExpiryDue(ExpiryDue::read(event)?),
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
            Fact::ExpiryDue(due) => vec![own, requester_key(&due.requested_by)],
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
            Fact::ExpiryDue(due) => return expiry_due(states, &own, due),
        };
        applied.map_err(|why| HandlerError::Reject(format!("{} {why}", event.subject)))?;
        Ok(effects)
    }

    fn read_command(&self, request: &Request) -> Result<Command, ContractError> {
        let unknown = || ContractError::UnknownType(request.kind.to_string());
        Ok(match request.kind.as_str() {
            RequestReport::TYPE => Command::Request(RequestReport::read(request)?),
            CancelReport::TYPE => Command::Cancel(CancelReport::read(request)?),
            RenderedReport::TYPE => Command::Rendered(RenderedReport::read(request)?),
            RemovedReport::TYPE => Command::Removed(RemovedReport::read(request)?),
            TaskOutcome::TYPE => RenderEnded::read(TaskOutcome::read(request)?)?
                .map(Command::RenderEnded)
                .ok_or_else(unknown)?,
            _ => return Err(unknown()),
        })
    }

    fn command_keys(&self, _request: &Request, command: &Command) -> Vec<EntityKey> {
        match command {
            Command::Request(asked) => requested::keys(&asked.report, &asked.requested_by),
            Command::Cancel(asked) => requested::keys(&asked.report, &asked.requested_by),
            Command::Rendered(result) => {
                let mut keys = requested::keys(&result.report, &result.requested_by);
                let evicted = result.evicted.iter().filter(|id| **id != result.report);
                keys.extend(evicted.map(report_key));
                keys
            }
            Command::Removed(result) => vec![report_key(&result.report)],
            Command::RenderEnded(ended) => ended.keys(),
        }
    }

    fn execute(
        &self,
        states: &mut States<Record>,
        _request: &Request,
        command: &Command,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        match command {
            Command::Request(asked) => requested::request(states, asked, now),
            Command::Cancel(asked) => requested::cancel(states, asked),
            Command::Rendered(result) => requested::rendered(states, result, self.retention, now),
            Command::Removed(_) => requested::removed(),
            Command::RenderEnded(ended) => requested::render_ended(states, ended, now),
        }
    }

    fn read_query(&self, request: &Request) -> Result<Query, ContractError> {
        match request.kind.as_str() {
            ReadReport::TYPE => ReadReport::read(request).map(Query::Report),
            ListReports::TYPE => ListReports::read(request).map(Query::List),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn query_keys(&self, _request: &Request, query: &Query) -> Vec<EntityKey> {
        vec![match query {
            Query::Report(asked) => report_key(&asked.report),
            Query::List(asked) => requester_key(&asked.requested_by),
        }]
    }

    fn query_tasks(&self, _request: &Request, query: &Query) -> Vec<TaskId> {
        match query {
            Query::Report(asked) => requested::render_task(&asked.report).into_iter().collect(),
            Query::List(_) => Vec::new(),
        }
    }

    fn query(
        &self,
        states: &States<Record>,
        _request: &Request,
        query: &Query,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        match query {
            Query::Report(asked) => {
                let name = asked.requested_by.as_ref();
                reply::<ReadReport>(&requested::view(states, &asked.report, name)?)
            }
            Query::List(asked) => reply::<ListReports>(&requested::list(states, asked)),
        }
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
