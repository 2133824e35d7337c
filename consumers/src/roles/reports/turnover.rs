//! Sales of a day in a country, by stock code.

use std::collections::BTreeMap;

use doorstep_contracts::{Label, Money, OrderLine, Sku};
use doorstep_event::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The maximum of stock codes in an entity. Further ones are counted together.
const MAX_SKUS: usize = 10_000;

/// Pieces and amounts, of one stock code or of several. The order of the fields is the order in exports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Turnover {
    /// Pieces sold.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) sold: i64,
    /// Pieces given back.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) returned: i64,
    /// Pieces that an order has with a negative quantity: broken, lost or thrown away.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) written_off: i64,
    /// Pieces of orders that were rejected, abandoned or cancelled, less their written-off pieces.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reversed: i64,
    /// The amount of the sold pieces; the following amounts belong to the other pieces in the same order.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) sales: Money,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) returns: Money,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) write_offs: Money,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reversals: Money,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Turnover {
    fn of_order_line(line: &OrderLine) -> Option<Self> {
        Some(if line.quantity < 0 {
            Self {
                written_off: line.quantity.checked_neg()?,
                write_offs: negated(line.amount)?,
                ..Self::default()
            }
        } else {
            Self {
                sold: line.quantity,
                sales: line.amount,
                ..Self::default()
            }
        })
    }

    fn of_returned_line(line: &OrderLine) -> Option<Self> {
        Some(Self {
            returned: line.quantity.checked_neg()?,
            returns: negated(line.amount)?,
            ..Self::default()
        })
    }

    /// Returns the turnover that takes this one back.
    fn reversal(&self) -> Option<Self> {
        Some(Self {
            reversed: self.net_pieces()?,
            reversals: self.net()?,
            ..Self::default()
        })
    }

    /// Adds another turnover; `None` if a sum exceeds its bound, and then the caller drops this one.
    pub(crate) fn add(&mut self, other: &Self) -> Option<()> {
        *self = Self {
            sold: self.sold.checked_add(other.sold)?,
            returned: self.returned.checked_add(other.returned)?,
            written_off: self.written_off.checked_add(other.written_off)?,
            reversed: self.reversed.checked_add(other.reversed)?,
            sales: self.sales.checked_add(other.sales).ok()?,
            returns: self.returns.checked_add(other.returns).ok()?,
            write_offs: self.write_offs.checked_add(other.write_offs).ok()?,
            reversals: self.reversals.checked_add(other.reversals).ok()?,
        };
        Some(())
    }

    /// Returns the pieces that left the shop for good; `None` beyond 64 bits.
    fn net_pieces(&self) -> Option<i64> {
        self.sold
            .checked_sub(self.returned)?
            .checked_sub(self.written_off)?
            .checked_sub(self.reversed)
    }

    /// Returns the amount that remains of the sales; `None` beyond the bound of amounts.
    pub(crate) fn net(&self) -> Option<Money> {
        let less = [self.returns, self.write_offs, self.reversals];
        less.into_iter().try_fold(self.sales, |left, amount| {
            left.checked_add(negated(amount)?).ok()
        })
    }
}

fn negated(amount: Money) -> Option<Money> {
    amount.checked_mul(-1).ok()
}

/// Turnovers by stock code.
pub(super) type Lines = BTreeMap<Sku, Turnover>;

/// On `sales/DAY/COUNTRY`: the sales of a day in a country.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SalesDay {
    pub(super) orders: u64,
    pub(super) returns: u64,
    /// Orders that were rejected, abandoned or cancelled. They count among the orders, too.
    pub(super) reversed_orders: u64,
    pub(super) skus: Lines,
    /// The turnover of the stock codes that came after the first 10,000.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) other: Turnover,
}

impl SalesDay {
    /// Adds the lines of an order; `None` if a sum exceeds its bound, and then the caller drops the state.
    pub(super) fn add_order(&mut self, lines: &Lines) -> Option<()> {
        self.orders += 1;
        lines
            .iter()
            .try_for_each(|(sku, turnover)| self.add(sku, turnover))
    }

    /// Adds the lines of a return, see [`SalesDay::add_order`].
    pub(super) fn add_return(&mut self, lines: &[OrderLine]) -> Option<()> {
        self.returns += 1;
        lines
            .iter()
            .try_for_each(|line| self.add(&line.sku, &Turnover::of_returned_line(line)?))
    }

    /// Takes back the lines of an order, see [`SalesDay::add_order`].
    pub(super) fn reverse_order(&mut self, lines: &Lines) -> Option<()> {
        self.reversed_orders += 1;
        lines
            .iter()
            .try_for_each(|(sku, turnover)| self.add(sku, &turnover.reversal()?))
    }

    /// Returns its turnovers by stock code; under no code that of the codes beyond the bound.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Option<&str>, &Turnover)> {
        let other = Some(&self.other).filter(|other| !is_default(*other));
        let skus = self.skus.iter();
        skus.map(|(sku, turnover)| (Some(sku.as_str()), turnover))
            .chain(other.map(|other| (None, other)))
    }

    fn add(&mut self, sku: &Sku, turnover: &Turnover) -> Option<()> {
        let is_full = self.skus.len() >= MAX_SKUS;
        match self.skus.get_mut(sku) {
            Some(sum) => sum.add(turnover),
            None if is_full => self.other.add(turnover),
            None => {
                self.skus.insert(sku.clone(), *turnover);
                Some(())
            }
        }
    }
}

/// On `order/INVOICE`: the part of an order that its reversal needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum OrderSales {
    /// It counts.
    Placed(SoldLines),
    /// It has ended, and its sales are about to be reversed.
    Ending(SoldLines),
    /// It has ended, and its sales were reversed.
    Reversed,
    /// It has ended, and its placing has not arrived.
    EndedFirst,
}

/// The lines of an order, with the day and the country that count them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SoldLines {
    day: Date,
    country: Label,
    pub(super) lines: Lines,
}

impl SoldLines {
    /// Sums the lines by stock code; `None` if a sum exceeds its bound.
    pub(super) fn new(day: Date, country: &Label, lines: &[OrderLine]) -> Option<Self> {
        let mut sums = Lines::new();
        for line in lines {
            let sum = sums.entry(line.sku.clone()).or_default();
            sum.add(&Turnover::of_order_line(line)?)?;
        }
        Some(Self {
            day,
            country: country.clone(),
            lines: sums,
        })
    }

    /// Returns the key of the entity that counts them.
    pub(super) fn key(&self) -> String {
        sales_key(self.day, &self.country)
    }
}

/// Returns the key of a day's sales in a country.
pub(super) fn sales_key(day: Date, country: &Label) -> String {
    format!("sales/{day}/{country}")
}

/// On `return/INVOICE`: marks a return as counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReturnedInvoice {
    pub(super) recorded_at: Timestamp,
}
