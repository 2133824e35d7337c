//! A line of an order or a return, and the sum rules of both.

use serde::{Deserialize, Serialize};

use crate::{Money, MoneyError, Sku};

/// A quantity of one item at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderLine {
    pub sku: Sku,
    /// The shop's description of the item, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Number of pieces; negative if they are returned or written off.
    pub quantity: i64,
    /// The price of one piece: zero or more.
    pub unit_price: Money,
    /// Quantity times unit price.
    pub amount: Money,
}

impl OrderLine {
    /// Creates a line and computes its amount.
    ///
    /// # Errors
    /// Fails if the amount is too large to be exact.
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

    /// Checks one line.
    ///
    /// # Errors
    /// Fails if the unit price is negative, or the amount is not quantity times unit price.
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

/// Checks all lines: there is at least one, each is valid, and the total is their sum.
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
