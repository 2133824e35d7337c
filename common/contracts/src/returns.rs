//! Returns, on `return/INVOICE`. The invoice of a return does not name the order that it takes back.

use doorstep_event::{Contract, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{CustomerId, Label, Money, OrderLine, order_line};

/// `return.recorded.v1`: goods that came back, with all lines; quantities and total are zero or negative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnRecorded {
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Who gave back, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// Where the goods came from.
    pub country: Label,
    /// What came back, in the order of the invoice; one line at least.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines' amounts.
    pub total: Money,
}

impl Contract for ReturnRecorded {
    const TYPE: &'static str = "return.recorded.v1";
    const REQUIRES_SEQUENCE: bool = true;

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
    fn nothing_positive_comes_back() {
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
        let said = recorded.check().unwrap_err();
        assert!(said.contains("positive in a return"), "{said}");
    }
}
