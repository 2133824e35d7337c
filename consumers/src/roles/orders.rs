//! Orders: what was ordered on `order/INVOICE` and what came back on `return/INVOICE`, a summary of each.
//!
//! The lines themselves stay in the events: a state is rewritten whenever it changes, and must stay small.

use doorstep_contracts::{CustomerId, Label, Line, Money, OrderPlaced, ReturnRecorded};
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_runtime::{Effects, NoRequest, Reading, Refusal, Role, States};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::not_handled;

/// The role.
pub(crate) struct Orders;

/// What the role handles.
pub(crate) enum Fact {
    /// An order.
    Placed(OrderPlaced),
    /// A return.
    Returned(ReturnRecorded),
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

/// An order. The order of the fields is the order in exports.
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
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderStatus {
    /// It was placed.
    Placed,
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
    type Query = NoRequest;
    type State = Invoice;

    fn name(&self) -> &'static str {
        "orders"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.kind.as_str() {
            OrderPlaced::TYPE => Fact::Placed(OrderPlaced::read(event)?),
            ReturnRecorded::TYPE => Fact::Returned(ReturnRecorded::read(event)?),
            _ => return not_handled(event),
        };
        Ok(Reading::Fact(fact))
    }

    fn keys(&self, event: &Event, _fact: &Fact) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Invoice>,
        event: &Event,
        fact: &Fact,
        _now: Timestamp,
    ) -> Result<Effects, Refusal> {
        let invoice = states.first_mut();
        // A type belongs to its kind of subject, so an order never meets a return's state.
        match invoice {
            Some(Invoice::Order(order)) => Err(Refusal::Never(format!(
                "{} was already placed at {}",
                event.subject, order.placed_at
            ))),
            Some(Invoice::Return(returned)) => Err(Refusal::Never(format!(
                "{} was already recorded at {}",
                event.subject, returned.recorded_at
            ))),
            None => {
                *invoice = Some(fact.summary());
                Ok(Effects::none())
            }
        }
    }
}

impl Fact {
    fn summary(&self) -> Invoice {
        match self {
            Self::Placed(placed) => Invoice::Order(Order {
                line_count: count(&placed.lines),
                total: placed.total,
                customer: placed.customer.clone(),
                country: placed.country.clone(),
                placed_at: placed.placed_at,
                status: OrderStatus::Placed,
            }),
            Self::Returned(returned) => Invoice::Return(Return {
                line_count: count(&returned.lines),
                total: returned.total,
                customer: returned.customer.clone(),
                country: returned.country.clone(),
                recorded_at: returned.recorded_at,
                status: ReturnStatus::Recorded,
            }),
        }
    }
}

fn count(lines: &[Line]) -> u64 {
    lines.len() as u64
}

#[cfg(test)]
mod tests {
    use doorstep_contracts::Sku;

    use super::*;
    use crate::roles::testing::{applied, event, exported, refused};

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
}
