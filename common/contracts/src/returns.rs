//! Returns, on `return/INVOICE`. A return's invoice does not name the original order.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Label, Money, OrderLine, order_line};

/// `return.recorded.v1`: returned goods with all lines; quantities and total are zero or negative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRecorded {
    pub recorded_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    pub country: Label,
    /// The lines in the order of the invoice; at least one.
    pub lines: Vec<OrderLine>,
    /// Sum of the lines' amounts.
    pub total: Money,
}

impl Contract for ReturnRecorded {
    const TYPE: &'static str = "return.recorded.v1";

    fn check(&self) -> Result<(), String> {
        order_line::check_all(&self.lines, self.total)?;
        // With prices of zero or more, this makes the total zero or negative, too.
        match self.lines.iter().find(|line| line.quantity > 0) {
            Some(line) => Err(format!(
                "quantity {} of {} is positive in a return",
                line.quantity, line.sku
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positive_quantities_are_rejected() {
        let mut recorded: ReturnRecorded =
            serde_json::from_str(include_str!("../golden/return.recorded.v1.json")).unwrap();
        assert_eq!(recorded.check(), Ok(()));
        assert!(recorded.total.is_negative());
        let sold = OrderLine::new(
            recorded.lines[0].sku.clone(),
            None,
            1,
            "0.01".parse().unwrap(),
        );
        recorded.lines.push(sold.unwrap());
        recorded.total = recorded.total.checked_add("0.01".parse().unwrap()).unwrap();
        let error = recorded.check().unwrap_err();
        assert!(error.contains("positive in a return"), "{error}");
    }
}
