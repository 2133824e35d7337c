//! Orders, on `order/INVOICE`.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Label, Money, OrderLine, order_line};

/// `order.placed.v1`: an order with all its lines.
///
/// A line of an order may have a negative quantity: the shop writes off broken goods that way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderPlaced {
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Who ordered, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// Where the order came from.
    pub country: Label,
    /// What was ordered, in the order of the invoice; one line at least.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines' amounts.
    pub total: Money,
}

impl Contract for OrderPlaced {
    const TYPE: &'static str = "order.placed.v1";
    const REQUIRES_SEQUENCE: bool = true;

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
    fn refused(spoil: impl FnOnce(&mut OrderPlaced)) -> String {
        let mut order = order();
        spoil(&mut order);
        order.check().unwrap_err()
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines() {
        assert_eq!(order().check(), Ok(()));
        let said = refused(|o| o.total = "1".parse().unwrap());
        assert!(said.contains("total 1.00 is not the sum"), "{said}");
        let said = refused(|o| o.lines[0].amount = Money::ZERO);
        assert!(said.contains("amount 0.00"), "{said}");
    }

    #[test]
    fn an_order_has_a_line_at_least() {
        let said = refused(|o| {
            o.lines.clear();
            o.total = Money::ZERO;
        });
        assert_eq!(said, "there is no line");
    }

    #[test]
    fn a_zero_price_is_fine_and_a_negative_one_is_not() {
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
        let said = with_price("-0.01").check().unwrap_err();
        assert!(said.contains("unit price -0.01"), "{said}");
    }
}
