//! Orders, on `order/INVOICE`.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Label, Money, OrderLine, order_line};

/// `order.placed.v1`: an order with all its lines.
///
/// A line may have a negative quantity: the shop writes off broken goods that way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderPlaced {
    pub placed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    pub country: Label,
    /// The lines in the order of the invoice; at least one.
    pub lines: Vec<OrderLine>,
    /// Sum of the lines' amounts.
    pub total: Money,
}

impl Contract for OrderPlaced {
    const TYPE: &'static str = "order.placed.v1";

    fn check(&self) -> Result<(), String> {
        order_line::check_all(&self.lines, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> OrderPlaced {
        serde_json::from_str(include_str!("../golden/order.placed.v1.json")).unwrap()
    }

    #[track_caller]
    fn rejected(change: impl FnOnce(&mut OrderPlaced)) -> String {
        let mut order = order();
        change(&mut order);
        order.check().unwrap_err()
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines() {
        assert_eq!(order().check(), Ok(()));
        let error = rejected(|o| o.total = "1".parse().unwrap());
        assert!(error.contains("total 1.00 is not the sum"), "{error}");
        let error = rejected(|o| o.lines[0].amount = Money::ZERO);
        assert!(error.contains("amount 0.00"), "{error}");
    }

    #[test]
    fn an_order_has_at_least_one_line() {
        let error = rejected(|o| {
            o.lines.clear();
            o.total = Money::ZERO;
        });
        assert_eq!(error, "there is no line");
    }

    #[test]
    fn a_price_may_be_zero_but_not_negative() {
        let with_price = |price: &str| {
            let sku = order().lines[0].sku.clone();
            let line = OrderLine::new(sku, None, 3, price.parse().unwrap()).unwrap();
            OrderPlaced {
                total: line.amount,
                lines: vec![line],
                ..order()
            }
        };
        assert_eq!(with_price("0").check(), Ok(()));
        let error = with_price("-0.01").check().unwrap_err();
        assert!(error.contains("unit price -0.01"), "{error}");
    }
}
