//! A line of an order or a return, and the sums that both must keep.

use serde::{Deserialize, Serialize};

use crate::{Money, MoneyError, Sku};

/// One line: so many pieces of one thing at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderLine {
    /// What is sold.
    pub sku: Sku,
    /// What the shop calls it, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How many pieces: negative where they come back or are written off.
    pub quantity: i64,
    /// The price of one piece: zero or more.
    pub unit_price: Money,
    /// Quantity times unit price.
    pub amount: Money,
}

impl OrderLine {
    /// A line with its amount.
    ///
    /// # Errors
    /// The amount is too large to be kept exactly.
    pub fn new(
        sku: Sku,
        description: Option<String>,
        quantity: i64,
        unit_price: Money,
    ) -> Result<Self, MoneyError> {
        Ok(Self {
            sku,
            description,
            quantity,
            unit_price,
            amount: unit_price.checked_mul(quantity)?,
        })
    }

    /// The rules of one line.
    ///
    /// # Errors
    /// The unit price is negative, or the amount is not quantity times unit price.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            sku,
            quantity,
            unit_price,
            amount,
            ..
        } = self;
        if unit_price.is_negative() {
            return Err(format!("unit price {unit_price} of {sku} is negative"));
        }
        let product = unit_price
            .checked_mul(*quantity)
            .map_err(|e| e.to_string())?;
        if product != *amount {
            return Err(format!(
                "amount {amount} of {sku} is not {quantity} x {unit_price}, which is {product}"
            ));
        }
        Ok(())
    }
}

/// The rules of all lines together: there is one at least, each keeps its own rules, and the total is their sum.
pub(crate) fn check_all(lines: &[OrderLine], total: Money) -> Result<(), String> {
    if lines.is_empty() {
        return Err("there is no line".to_owned());
    }
    lines.iter().try_for_each(OrderLine::check)?;
    let sum = Money::sum(lines.iter().map(|line| line.amount)).map_err(|e| e.to_string())?;
    if sum != total {
        return Err(format!(
            "total {total} is not the sum of the lines, which is {sum}"
        ));
    }
    Ok(())
}
