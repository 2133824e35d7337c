//! Orders: orders on `order/INVOICE` and returns on `return/INVOICE`. Keeps a summary of each and the history of an
//! order, with its payment from `payment/INVOICE`.
//!
//! The lines themselves stay in the events: a state is rewritten with every change and must stay small. For the same
//! reason only the end of a long history is kept.
//!
//! The events of an order come in its own stream, after `order.placed`; any other order of events is a contradiction
//! and is rejected. Payments are another stream, which may be ahead: they wait for the order.

use doorstep_contracts::{
    CustomerId, Label, Money, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderLine,
    OrderPlaced, OrderRefused, PaymentAuthorized, PaymentCaptured, PaymentRefunded, PaymentVoided,
    RestaurantId, ReturnRecorded, ReversalReason,
    requests::{HistoryEntry, HistoryKind, OrderStatus, OrderView, PaymentStatus, ReadOrder},
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported, reply};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::{not_handled, order_of};

/// The maximum of history entries that are kept.
const MAX_HISTORY: usize = 50;

pub(crate) struct Orders;

/// The events that the role handles.
pub(crate) enum Fact {
    Placed(OrderPlaced),
    Returned(ReturnRecorded),
    /// A change of an order's status.
    Outcome(Outcome),
    /// A change of an order's payment.
    Payment(PaymentSummary),
}

/// A change of an order's status.
pub(crate) enum Outcome {
    Confirmed(OrderConfirmed),
    Refused(OrderRefused),
    Abandoned(OrderAbandoned),
    Cancelled(OrderCancelled),
}

/// A change of an order's payment.
pub(crate) struct PaymentSummary {
    order: EntityKey,
    status: PaymentStatus,
    what: HistoryKind,
    detail: String,
}

/// An order or a return. Deserialization tells them apart by their times, which have different names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Invoice {
    /// On `order/INVOICE`.
    Order(Order),
    /// On `return/INVOICE`.
    Return(Return),
}

/// An order. The order of the fields is the order in exports; the fields of an order that was only placed come first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    line_count: u64,
    /// The exact sum of the lines' amounts.
    total: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<CustomerId>,
    country: Label,
    placed_at: Timestamp,
    status: OrderStatus,
    /// The restaurant that makes it, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restaurant: Option<RestaurantId>,
    /// The time at which it will be ready, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised_at: Option<Timestamp>,
    /// The status of its payment, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentStatus>,
    /// Its events, beginning with the placing, once there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<HistoryEntry>,
}

/// A return. The order of the fields is the order in exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Return {
    line_count: u64,
    /// The exact sum of the lines' amounts: zero or negative.
    total: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<CustomerId>,
    country: Label,
    recorded_at: Timestamp,
    status: ReturnStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReturnStatus {
    Recorded,
}

impl Role for Orders {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = ReadOrder;
    type State = Invoice;

    fn name(&self) -> &'static str {
        "orders"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            OrderPlaced::TYPE => Fact::Placed(OrderPlaced::read(event)?),
            ReturnRecorded::TYPE => Fact::Returned(ReturnRecorded::read(event)?),
            OrderConfirmed::TYPE => Fact::Outcome(Outcome::Confirmed(OrderConfirmed::read(event)?)),
            OrderRefused::TYPE => Fact::Outcome(Outcome::Refused(OrderRefused::read(event)?)),
            OrderAbandoned::TYPE => Fact::Outcome(Outcome::Abandoned(OrderAbandoned::read(event)?)),
            OrderCancelled::TYPE => Fact::Outcome(Outcome::Cancelled(OrderCancelled::read(event)?)),
            PaymentAuthorized::TYPE
            | PaymentCaptured::TYPE
            | PaymentVoided::TYPE
            | PaymentRefunded::TYPE => Fact::Payment(PaymentSummary::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, event: &Event, fact: &Fact) -> Vec<EntityKey> {
        match fact {
            Fact::Payment(paid) => vec![paid.order.clone()],
            Fact::Placed(_) | Fact::Returned(_) | Fact::Outcome(_) => {
                vec![EntityKey::from(&event.subject)]
            }
        }
    }

    fn handle(
        &self,
        states: &mut States<Invoice>,
        event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let invoice = states.first_mut();
        let subject = &event.subject;
        let at = event.time.unwrap_or(now);
        match (fact, invoice) {
            (Fact::Placed(placed), invoice @ None) => *invoice = Some(Order::placed(placed)),
            (Fact::Returned(returned), invoice @ None) => {
                *invoice = Some(Return::recorded(returned));
            }
            (Fact::Outcome(_), None) => {
                return Err(HandlerError::Reject(format!(
                    "{subject} was not placed yet, which has to come before {}",
                    event.event_type
                )));
            }
            (Fact::Payment(paid), None) => return Err(HandlerError::Retry(paid.order.clone())),
            (Fact::Outcome(outcome), Some(Invoice::Order(order))) => order
                .apply_status(outcome, at)
                .map_err(|why| HandlerError::Reject(format!("{subject} {why}")))?,
            (Fact::Payment(paid), Some(Invoice::Order(order))) => order.take_payment(paid, at),
            (Fact::Placed(_) | Fact::Returned(_), Some(Invoice::Order(order))) => {
                let at = order.placed_at;
                return Err(HandlerError::Reject(format!(
                    "{subject} was already placed at {at}"
                )));
            }
            // A type belongs to its kind of subject, so no order event reaches a return.
            (_, Some(Invoice::Return(returned))) => {
                let at = returned.recorded_at;
                return Err(HandlerError::Reject(format!(
                    "{subject} was already recorded at {at}"
                )));
            }
        }
        Ok(Effects::none())
    }

    fn read_query(&self, request: &Request) -> Result<ReadOrder, ContractError> {
        match request.kind.as_str() {
            ReadOrder::TYPE => ReadOrder::read(request),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn query_keys(&self, _request: &Request, query: &ReadOrder) -> Vec<EntityKey> {
        vec![EntityKey::from(&query.order.order_subject())]
    }

    fn query(
        &self,
        states: &States<Invoice>,
        _request: &Request,
        query: &ReadOrder,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let ReadOrder { order: number } = query;
        let Some(Invoice::Order(order)) = states
            .get(&EntityKey::from(&number.order_subject()))
            .cloned()
        else {
            let detail = format!("order {number} is not known, or not known yet");
            return Err(Rejection::new("unknown_order", detail));
        };
        let history = match order.history.is_empty() {
            true => vec![order.placing()],
            false => order.history,
        };
        reply::<ReadOrder>(&OrderView {
            order: number.clone(),
            status: order.status,
            customer: order.customer,
            country: order.country,
            line_count: order.line_count,
            total: order.total,
            placed_at: order.placed_at,
            restaurant: order.restaurant,
            promised_at: order.promised_at,
            payment: order.payment,
            history,
        })
    }
}

impl PaymentSummary {
    fn read(event: &Event) -> Result<Self, ContractError> {
        let (status, what, detail) = match event.event_type.as_str() {
            PaymentAuthorized::TYPE => {
                let amount = PaymentAuthorized::read(event)?.amount.to_string();
                let what = HistoryKind::PaymentAuthorized;
                (PaymentStatus::Authorized, what, amount)
            }
            PaymentCaptured::TYPE => {
                let amount = PaymentCaptured::read(event)?.amount.to_string();
                let what = HistoryKind::PaymentCaptured;
                (PaymentStatus::Captured, what, amount)
            }
            PaymentVoided::TYPE => {
                let fact = PaymentVoided::read(event)?;
                let why = reversed(fact.amount, fact.reason, fact.detail.as_ref());
                (PaymentStatus::Voided, HistoryKind::PaymentVoided, why)
            }
            _ => {
                let fact = PaymentRefunded::read(event)?;
                let why = reversed(fact.amount, fact.reason, fact.detail.as_ref());
                (PaymentStatus::Refunded, HistoryKind::PaymentRefunded, why)
            }
        };
        Ok(Self {
            order: EntityKey::from(&order_of(event)?.order_subject()),
            status,
            what,
            detail,
        })
    }
}

fn reversed(amount: Money, reason: ReversalReason, words: Option<&Label>) -> String {
    let reason = reason.as_str();
    match words {
        Some(words) => format!("{amount}, {reason}: {words}"),
        None => format!("{amount}, {reason}"),
    }
}

impl Order {
    fn placed(placed: &OrderPlaced) -> Invoice {
        Invoice::Order(Self {
            line_count: count(&placed.lines),
            total: placed.total,
            customer: placed.customer.clone(),
            country: placed.country.clone(),
            placed_at: placed.placed_at,
            status: OrderStatus::Placed,
            restaurant: None,
            promised_at: None,
            payment: None,
            history: Vec::new(),
        })
    }

    /// Applies a change of the order's status, or returns its contradiction to the state.
    fn apply_status(&mut self, outcome: &Outcome, at: Timestamp) -> Result<(), String> {
        let (status, what, detail) = match outcome {
            Outcome::Confirmed(fact) => {
                let maker = fact.restaurant.to_string();
                (OrderStatus::Confirmed, HistoryKind::Confirmed, maker)
            }
            Outcome::Refused(fact) => {
                let why = format!("{}: {}", fact.by.as_str(), fact.reason);
                (OrderStatus::Refused, HistoryKind::Refused, why)
            }
            Outcome::Abandoned(fact) => {
                let why = fact.reason.to_string();
                (OrderStatus::Abandoned, HistoryKind::Abandoned, why)
            }
            Outcome::Cancelled(fact) => {
                let why = format!("{}: {}", fact.by.as_str(), fact.reason);
                (OrderStatus::Cancelled, HistoryKind::Cancelled, why)
            }
        };
        let before = match status {
            OrderStatus::Cancelled => OrderStatus::Confirmed,
            _ => OrderStatus::Placed,
        };
        if self.status != before {
            return Err(format!(
                "is {}, and cannot become {}",
                label(self.status),
                label(status)
            ));
        }
        if let Outcome::Confirmed(fact) = outcome {
            self.restaurant = Some(fact.restaurant.clone());
            self.promised_at = Some(fact.promised_at);
        }
        self.status = status;
        self.record_history(what, at, Some(detail));
        Ok(())
    }

    /// Applies a change of the payment. A repetition, by any stream, changes nothing: an order is paid for once.
    fn take_payment(&mut self, paid: &PaymentSummary, at: Timestamp) {
        let is_same = |entry: &HistoryEntry| {
            entry.what == paid.what && entry.detail.as_ref() == Some(&paid.detail)
        };
        if self.history.iter().any(is_same) {
            return;
        }
        self.payment = Some(paid.status);
        self.record_history(paid.what, at, Some(paid.detail.clone()));
    }

    /// Returns the first entry of every history.
    fn placing(&self) -> HistoryEntry {
        HistoryEntry {
            number: 1,
            at: self.placed_at,
            what: HistoryKind::Placed,
            detail: None,
        }
    }

    /// Appends to the history.
    fn record_history(&mut self, what: HistoryKind, at: Timestamp, detail: Option<String>) {
        if self.history.is_empty() {
            self.history.push(self.placing());
        }
        let number = self.history.last().map_or(1, |last| last.number + 1);
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push(HistoryEntry {
            number,
            at,
            what,
            detail,
        });
    }
}

impl Return {
    fn recorded(returned: &ReturnRecorded) -> Invoice {
        Invoice::Return(Self {
            line_count: count(&returned.lines),
            total: returned.total,
            customer: returned.customer.clone(),
            country: returned.country.clone(),
            recorded_at: returned.recorded_at,
            status: ReturnStatus::Recorded,
        })
    }
}

fn count(lines: &[OrderLine]) -> u64 {
    lines.len() as u64
}

fn label(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Placed => "placed",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Refused => "refused",
        OrderStatus::Abandoned => "abandoned",
        OrderStatus::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests;
