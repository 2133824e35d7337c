//! Orders: what was ordered on `order/INVOICE` and what came back on `return/INVOICE`, a summary of each, and what has happened to an
//! order since, its payment on `payment/INVOICE` included.
//!
//! The lines themselves stay in the events: a state is rewritten whenever it changes, and must stay small. For the same reason only the
//! end of a long history is kept.
//!
//! What becomes of an order comes in its own stream, after `order.placed`; what comes in another order contradicts it, and is refused for
//! good. Payments are another stream, which may be ahead: they wait for the order.

use doorstep_contracts::{
    CustomerId, Label, Line, Money, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderPlaced,
    OrderRefused, PaymentAuthorized, PaymentCaptured, PaymentRefunded, PaymentVoided, RestaurantId,
    ReturnRecorded, ReversalReason,
    requests::{HistoryEntry, HistoryKind, OrderStatus, OrderView, PaymentStatus, ReadOrder},
};
use doorstep_event::{
    Contract, ContractError, Event, Refused, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{Effects, NoRequest, Reading, Refusal, Role, States, reply};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::{not_handled, order_of};

/// The most entries of an order's history that are kept.
const MOST_HISTORY: usize = 50;

/// The role.
pub(crate) struct Orders;

/// What the role handles.
pub(crate) enum Fact {
    /// An order.
    Placed(OrderPlaced),
    /// A return.
    Returned(ReturnRecorded),
    /// What has become of an order.
    Outcome(Outcome),
    /// How far the payment of an order has come.
    Paid(Paid),
}

/// What has become of an order.
pub(crate) enum Outcome {
    Confirmed(OrderConfirmed),
    Refused(OrderRefused),
    Abandoned(OrderAbandoned),
    Cancelled(OrderCancelled),
}

/// How far a payment has come.
pub(crate) struct Paid {
    order: EntityKey,
    status: PaymentStatus,
    what: HistoryKind,
    detail: String,
}

/// An order or a return. They are told apart by their times, which have different names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Invoice {
    /// On `order/INVOICE`.
    Order(Order),
    /// On `return/INVOICE`.
    Return(Return),
}

/// An order. The order of the fields is the order in exports; what an order has that was only placed comes first.
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
    /// Who makes it, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restaurant: Option<RestaurantId>,
    /// When it will be ready, once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised_at: Option<Timestamp>,
    /// How far its payment has come, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentStatus>,
    /// What has happened, the placing included, once there is more than that.
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

/// How far a return has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReturnStatus {
    /// It was recorded.
    Recorded,
}

impl Role for Orders {
    type Fact = Fact;
    type Command = NoRequest;
    type Query = ReadOrder;
    type State = Invoice;

    fn name(&self) -> &'static str {
        "orders"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.kind.as_str() {
            OrderPlaced::TYPE => Fact::Placed(OrderPlaced::read(event)?),
            ReturnRecorded::TYPE => Fact::Returned(ReturnRecorded::read(event)?),
            OrderConfirmed::TYPE => Fact::Outcome(Outcome::Confirmed(OrderConfirmed::read(event)?)),
            OrderRefused::TYPE => Fact::Outcome(Outcome::Refused(OrderRefused::read(event)?)),
            OrderAbandoned::TYPE => Fact::Outcome(Outcome::Abandoned(OrderAbandoned::read(event)?)),
            OrderCancelled::TYPE => Fact::Outcome(Outcome::Cancelled(OrderCancelled::read(event)?)),
            PaymentAuthorized::TYPE
            | PaymentCaptured::TYPE
            | PaymentVoided::TYPE
            | PaymentRefunded::TYPE => Fact::Paid(Paid::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Fact(fact))
    }

    fn keys(&self, event: &Event, fact: &Fact) -> Vec<EntityKey> {
        match fact {
            Fact::Paid(paid) => vec![paid.order.clone()],
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
    ) -> Result<Effects, Refusal> {
        let invoice = states.first_mut();
        let subject = &event.subject;
        let at = event.time.unwrap_or(now);
        match (fact, invoice) {
            (Fact::Placed(placed), invoice @ None) => *invoice = Some(Order::placed(placed)),
            (Fact::Returned(returned), invoice @ None) => {
                *invoice = Some(Return::recorded(returned));
            }
            (Fact::Outcome(_), None) => {
                return Err(Refusal::Never(format!(
                    "{subject} was not placed yet, which has to come before {}",
                    event.kind
                )));
            }
            (Fact::Paid(paid), None) => return Err(Refusal::NotYet(paid.order.clone())),
            (Fact::Outcome(outcome), Some(Invoice::Order(order))) => order
                .go_on(outcome, at)
                .map_err(|why| Refusal::Never(format!("{subject} {why}")))?,
            (Fact::Paid(paid), Some(Invoice::Order(order))) => {
                order.payment = Some(paid.status);
                order.note(paid.what, at, Some(paid.detail.clone()));
            }
            (Fact::Placed(_) | Fact::Returned(_), Some(Invoice::Order(order))) => {
                let at = order.placed_at;
                return Err(Refusal::Never(format!(
                    "{subject} was already placed at {at}"
                )));
            }
            // A type belongs to its kind of subject, so nothing that an order meets comes to a return.
            (_, Some(Invoice::Return(returned))) => {
                let at = returned.recorded_at;
                return Err(Refusal::Never(format!(
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

    fn answer(
        &self,
        states: &States<Invoice>,
        _request: &Request,
        query: &ReadOrder,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Refused> {
        let ReadOrder { order: number } = query;
        let Some(Invoice::Order(order)) = states
            .get(&EntityKey::from(&number.order_subject()))
            .cloned()
        else {
            let detail = format!("order {number} is not known, or not known yet");
            return Err(Refused::new("unknown_order", detail));
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

impl Paid {
    fn read(event: &Event) -> Result<Self, ContractError> {
        let (status, what, detail) = match event.kind.as_str() {
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

    /// Takes what has become of the order, or says why it contradicts what is known.
    fn go_on(&mut self, outcome: &Outcome, at: Timestamp) -> Result<(), String> {
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
                word(self.status),
                word(status)
            ));
        }
        if let Outcome::Confirmed(fact) = outcome {
            self.restaurant = Some(fact.restaurant.clone());
            self.promised_at = Some(fact.promised_at);
        }
        self.status = status;
        self.note(what, at, Some(detail));
        Ok(())
    }

    /// The first entry of every history.
    fn placing(&self) -> HistoryEntry {
        HistoryEntry {
            number: 1,
            at: self.placed_at,
            what: HistoryKind::Placed,
            detail: None,
        }
    }

    /// Writes the history on.
    fn note(&mut self, what: HistoryKind, at: Timestamp, detail: Option<String>) {
        if self.history.is_empty() {
            self.history.push(self.placing());
        }
        let number = self.history.last().map_or(1, |last| last.number + 1);
        if self.history.len() >= MOST_HISTORY {
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

fn count(lines: &[Line]) -> u64 {
    lines.len() as u64
}

fn word(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Placed => "placed",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Refused => "refused",
        OrderStatus::Abandoned => "abandoned",
        OrderStatus::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use doorstep_contracts::{CancelledBy, InvoiceNo, RefusedBy, Sku};
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::roles::testing::{Bench, applied, event, exported, refused};

    fn line(quantity: i64, unit_price: &str) -> Line {
        let sku = Sku::new("85123A").unwrap();
        Line::new(sku, None, quantity, unit_price.parse().unwrap()).unwrap()
    }

    fn total(lines: &[Line]) -> Money {
        Money::sum(lines.iter().map(|line| line.amount)).unwrap()
    }

    fn placed(lines: Vec<Line>) -> OrderPlaced {
        OrderPlaced {
            placed_at: "2010-12-01T08:26:00Z".parse().unwrap(),
            customer: Some(CustomerId::new("17850").unwrap()),
            country: Label::new("United Kingdom").unwrap(),
            total: total(&lines),
            lines,
        }
    }

    fn recorded(lines: Vec<Line>) -> ReturnRecorded {
        ReturnRecorded {
            recorded_at: "2010-12-01T09:41:00Z".parse().unwrap(),
            customer: None,
            country: Label::new("France").unwrap(),
            total: total(&lines),
            lines,
        }
    }

    #[test]
    fn an_order_is_summed_up_exactly() {
        let fact = placed(vec![line(6, "2.55"), line(5, "0.001"), line(-1, "0")]);
        let order = applied(&Orders, None, &event("order/536365", 1, &fact));
        let json = r#"{"line_count":3,"total":"15.305","customer":"17850","country":"United Kingdom","placed_at":"2010-12-01T08:26:00Z","status":"placed"}"#;
        assert_eq!(exported(&order), json);
        assert_eq!(serde_json::from_str::<Invoice>(json).unwrap(), order);
    }

    #[test]
    fn a_return_is_summed_up_with_a_negative_total_and_maybe_without_a_customer() {
        let fact = recorded(vec![line(-1, "27.50")]);
        let returned = applied(&Orders, None, &event("return/C536379", 1, &fact));
        let json = r#"{"line_count":1,"total":"-27.50","country":"France","recorded_at":"2010-12-01T09:41:00Z","status":"recorded"}"#;
        assert_eq!(exported(&returned), json);
        assert_eq!(serde_json::from_str::<Invoice>(json).unwrap(), returned);
    }

    #[test]
    fn an_order_is_placed_once_and_a_return_recorded_once() {
        let fact = placed(vec![line(6, "2.55")]);
        let order = applied(&Orders, None, &event("order/536365", 1, &fact));
        let said = refused(&Orders, Some(order), &event("order/536365", 2, &fact));
        assert_eq!(
            said,
            "order/536365 was already placed at 2010-12-01T08:26:00Z"
        );
        let fact = recorded(vec![line(-1, "27.50")]);
        let returned = applied(&Orders, None, &event("return/C536379", 1, &fact));
        let said = refused(&Orders, Some(returned), &event("return/C536379", 2, &fact));
        assert_eq!(
            said,
            "return/C536379 was already recorded at 2010-12-01T09:41:00Z"
        );
    }

    const KEY: &str = "order/536365";

    fn confirmed() -> OrderConfirmed {
        OrderConfirmed {
            restaurant: RestaurantId::new("trattoria").unwrap(),
            promised_at: "2026-11-23T09:30:00Z".parse().unwrap(),
        }
    }

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn order_events() -> [Event; 3] {
        let cancelled = OrderCancelled {
            by: CancelledBy::Customer,
            reason: label("ordered twice"),
        };
        [
            event(KEY, 1, &placed(vec![line(6, "2.55")])),
            event(KEY, 2, &confirmed()),
            event(KEY, 3, &cancelled),
        ]
    }

    fn payment_events() -> [Event; 3] {
        let key = "payment/536365";
        let amount = "15.30".parse().unwrap();
        let authorized = PaymentAuthorized {
            customer: CustomerId::new("17850").unwrap(),
            amount,
            authorized_until: "2026-11-30T09:00:00Z".parse().unwrap(),
        };
        let refunded = PaymentRefunded {
            amount,
            reason: ReversalReason::OrderCancelled,
            detail: None,
        };
        [
            event(key, 1, &authorized),
            event(key, 2, &PaymentCaptured { amount }),
            event(key, 3, &refunded),
        ]
    }

    fn view(bench: &Bench<Orders>) -> OrderView {
        let order = InvoiceNo::new("536365").unwrap();
        bench.ask(&ReadOrder { order }).unwrap()
    }

    #[test]
    fn the_history_of_an_order_is_told_from_its_placing() {
        let mut bench = Bench::new(Orders);
        let order = InvoiceNo::new("536365").unwrap();
        let unknown = bench.ask(&ReadOrder { order }).unwrap_err();
        assert_eq!(unknown.code, "unknown_order");
        let [placed, confirmed, cancelled] = order_events();
        let [authorized, captured, refunded] = payment_events();
        bench.give(&placed).unwrap();
        // What was only placed has a history of one, which its state need not hold.
        assert!(!exported(bench.state(KEY).unwrap()).contains("history"));
        assert_eq!(view(&bench).history.len(), 1);
        for event in [authorized, confirmed, captured, cancelled, refunded] {
            bench.give(&event).unwrap();
        }
        let view = view(&bench);
        assert_eq!(view.status, OrderStatus::Cancelled);
        assert_eq!(view.payment, Some(PaymentStatus::Refunded));
        assert_eq!(view.restaurant.unwrap().as_str(), "trattoria");
        let told: Vec<String> = view.history.iter().map(exported).collect();
        assert_eq!(
            told,
            [
                r#"{"number":1,"at":"2010-12-01T08:26:00Z","what":"placed"}"#,
                r#"{"number":2,"at":"2026-11-23T09:00:01Z","what":"payment_authorized","detail":"15.30"}"#,
                r#"{"number":3,"at":"2026-11-23T09:00:02Z","what":"confirmed","detail":"trattoria"}"#,
                r#"{"number":4,"at":"2026-11-23T09:00:02Z","what":"payment_captured","detail":"15.30"}"#,
                r#"{"number":5,"at":"2026-11-23T09:00:03Z","what":"cancelled","detail":"customer: ordered twice"}"#,
                r#"{"number":6,"at":"2026-11-23T09:00:03Z","what":"payment_refunded","detail":"15.30, order_cancelled"}"#,
            ]
        );
    }

    #[test]
    fn a_payment_waits_for_its_order() {
        let mut bench = Bench::new(Orders);
        let [authorized, ..] = payment_events();
        assert_eq!(
            bench.give(&authorized),
            Err(Refusal::NotYet(EntityKey::new(KEY)))
        );
    }

    #[test]
    fn what_contradicts_the_life_of_an_order_is_refused() {
        let [placed, confirmed, cancelled] = order_events();
        let refused_order = OrderRefused {
            by: RefusedBy::Restaurant,
            reason: label("closed"),
        };
        let refused_order = event(KEY, 2, &refused_order);
        let abandoned = OrderAbandoned {
            reason: label("payments timed out"),
        };
        let abandoned = event(KEY, 2, &abandoned);
        let said = refused(&Orders, None, &confirmed);
        assert_eq!(
            said,
            "order/536365 was not placed yet, which has to come before order.confirmed.v1"
        );
        let at = |event: &Event| applied(&Orders, Some(applied(&Orders, None, &placed)), event);
        let is_placed = applied(&Orders, None, &placed);
        for (before, event, says) in [
            (
                is_placed,
                &cancelled,
                "is placed, and cannot become cancelled",
            ),
            (
                at(&confirmed),
                &confirmed,
                "is confirmed, and cannot become confirmed",
            ),
            (
                at(&confirmed),
                &refused_order,
                "is confirmed, and cannot become refused",
            ),
            (
                at(&refused_order),
                &cancelled,
                "is refused, and cannot become cancelled",
            ),
            (
                at(&abandoned),
                &confirmed,
                "is abandoned, and cannot become confirmed",
            ),
            (
                at(&refused_order),
                &abandoned,
                "is refused, and cannot become abandoned",
            ),
        ] {
            let said = refused(&Orders, Some(before), event);
            assert!(said.ends_with(says), "{said}");
        }
        let Invoice::Order(order) = at(&refused_order) else {
            panic!("an order is no return");
        };
        let last = order.history.last().unwrap();
        assert_eq!(last.detail.as_deref(), Some("restaurant: closed"));
    }

    #[test]
    fn only_the_end_of_a_long_history_is_kept_and_its_numbers_go_on() {
        let mut bench = Bench::new(Orders);
        let [placed, ..] = order_events();
        bench.give(&placed).unwrap();
        let [_, captured, _] = payment_events();
        for _ in 0..MOST_HISTORY + 7 {
            bench.give(&captured).unwrap();
        }
        let history = view(&bench).history;
        let numbers: Vec<u64> = history.iter().map(|entry| entry.number).collect();
        let most = MOST_HISTORY as u64;
        assert_eq!(numbers, (9..=most + 8).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn an_order_and_its_payment_end_alike_in_any_order_of_their_streams(
            turns in vec(any::<Index>(), 40),
        ) {
            let mut bench = Bench::new(Orders);
            let mut streams = [order_events().to_vec(), payment_events().to_vec()];
            let mut turns = turns.iter().cycle();
            while streams.iter().any(|stream| !stream.is_empty()) {
                let turn = turns.next().unwrap().index(2);
                // The other one, where this one waits or is done: one of both can always go on.
                for stream in [turn, 1 - turn] {
                    let Some(event) = streams[stream].first().cloned() else { continue };
                    match bench.give(&event) {
                        Ok(()) => {
                            streams[stream].remove(0);
                            break;
                        }
                        Err(refusal) => prop_assert_eq!(refusal, Refusal::NotYet(EntityKey::new(KEY))),
                    }
                }
            }
            let view = view(&bench);
            prop_assert_eq!(view.status, OrderStatus::Cancelled);
            prop_assert_eq!(view.payment, Some(PaymentStatus::Refunded));
            let numbers: Vec<u64> = view.history.iter().map(|entry| entry.number).collect();
            prop_assert_eq!(numbers, vec![1, 2, 3, 4, 5, 6]);
        }
    }
}
