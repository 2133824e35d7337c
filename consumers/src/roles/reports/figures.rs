//! The figures of a report, summed from the entities of its days.
//!
//! Sums, page, CSV and JSON come from one reading of the entities, so they agree with each other. Amounts are exact.

use std::{cmp::Reverse, collections::BTreeMap};

use doorstep_contracts::{Label, Money};
use jiff::civil::Date;
use serde::{Serialize, Serializer};

use super::{
    delivery_counts::{DURATION_BOUNDS, DeliveryCounts, DeliveryDay},
    period::{Period, Scope},
    turnover::{SalesDay, Turnover},
};

/// The maximum of names that are told apart in a report. Further ones are summed together.
const MAX_NAMES: usize = 100_000;

/// A sum beyond the bound of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sum of the period exceeds what can be counted: ask for a shorter one")]
pub(crate) struct Uncountable;

/// Figures that can be summed.
pub(crate) trait Summable: Clone + Default {
    /// Adds other figures; `None` if a sum exceeds its bound.
    fn add(&mut self, other: &Self) -> Option<()>;
}

/// The sales of a period, a day, a country or a stock code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SalesSums {
    pub(crate) orders: u64,
    pub(crate) returns: u64,
    /// Orders that were rejected, abandoned or cancelled. They count among the orders, too.
    pub(crate) reversed_orders: u64,
    pub(crate) turnover: Turnover,
}

impl Summable for SalesSums {
    fn add(&mut self, other: &Self) -> Option<()> {
        self.orders += other.orders;
        self.returns += other.returns;
        self.reversed_orders += other.reversed_orders;
        self.turnover.add(&other.turnover)?;
        // A sum whose net amount is too large is useless, too.
        self.turnover.net().map(drop)
    }
}

impl Summable for DeliveryCounts {
    fn add(&mut self, other: &Self) -> Option<()> {
        DeliveryCounts::add(self, other);
        Some(())
    }
}

/// A line of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Named<T> {
    /// A day, a month, a country, a city or a stock code; `None` for the names beyond those that are told apart.
    pub(crate) name: Option<String>,
    #[serde(flatten)]
    pub(crate) sums: T,
}

/// Sums by name. The number of names is bounded.
#[derive(Debug, Clone, Default)]
struct NamedSums<T> {
    names: BTreeMap<String, T>,
    other: Option<T>,
}

impl<T: Summable> NamedSums<T> {
    fn add(&mut self, name: Option<&str>, sums: &T) -> Option<()> {
        let is_full = self.names.len() >= MAX_NAMES;
        match name {
            Some(name) if !is_full || self.names.contains_key(name) => {
                self.names.entry(name.to_owned()).or_default().add(sums)
            }
            _ => self.other.get_or_insert_default().add(sums),
        }
    }

    /// Returns the lines with the highest rank first, and the other names last.
    fn ranked<K: Ord>(self, rank: impl Fn(&T) -> K) -> Vec<Named<T>> {
        let named = |(name, sums)| Named {
            name: Some(name),
            sums,
        };
        let mut lines: Vec<_> = self.names.into_iter().map(named).collect();
        lines.sort_by_key(|line| Reverse(rank(&line.sums)));
        lines.extend(self.other.map(|sums| Named { name: None, sums }));
        lines
    }
}

/// Sums by day of a period.
#[derive(Debug, Clone)]
struct DailySums<T> {
    period: Period,
    days: BTreeMap<Date, T>,
}

impl<T: Summable> DailySums<T> {
    fn new(period: Period) -> Self {
        Self {
            period,
            days: BTreeMap::new(),
        }
    }

    /// Returns each day of the period and each of its months; zero where nothing was counted.
    fn days_and_months(&self) -> Result<[Vec<Named<T>>; 2], Uncountable> {
        let mut days = Vec::new();
        let mut months: Vec<Named<T>> = Vec::new();
        for day in self.period.days() {
            let sums = self.days.get(&day).cloned().unwrap_or_default();
            let month = format!("{:04}-{:02}", day.year(), day.month());
            if months.last().and_then(|last| last.name.as_ref()) != Some(&month) {
                months.push(Named {
                    name: Some(month),
                    sums: T::default(),
                });
            }
            if let Some(last) = months.last_mut() {
                last.sums.add(&sums).ok_or(Uncountable)?;
            }
            days.push(Named {
                name: Some(day.to_string()),
                sums,
            });
        }
        Ok([days, months])
    }
}

/// The figures of sales in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SalesFigures {
    #[serde(flatten)]
    pub(crate) period: Period,
    /// The only country that counts; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country: Option<Label>,
    pub(crate) total: SalesSums,
    pub(crate) months: Vec<Named<SalesSums>>,
    /// By net amount, the highest first.
    pub(crate) countries: Vec<Named<SalesSums>>,
    /// By net amount, the highest first.
    pub(crate) skus: Vec<Named<SkuSums>>,
    pub(crate) days: Vec<Named<SalesSums>>,
}

/// The sums of one stock code: orders are not counted by stock code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SkuSums(pub(crate) Turnover);

impl Summable for SkuSums {
    fn add(&mut self, other: &Self) -> Option<()> {
        self.0.add(&other.0)?;
        self.0.net().map(drop)
    }
}

/// The sum of sales, as far as it has been read.
#[derive(Debug, Clone)]
pub(crate) struct SalesReport {
    country: Option<Label>,
    days: DailySums<SalesSums>,
    countries: NamedSums<SalesSums>,
    skus: NamedSums<SkuSums>,
    total: SalesSums,
}

impl SalesReport {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            country: scope.country,
            days: DailySums::new(scope.period),
            countries: NamedSums::default(),
            skus: NamedSums::default(),
            total: SalesSums::default(),
        }
    }

    /// Adds the sales of a day in a country; `None` if a sum exceeds its bound.
    pub(super) fn add(&mut self, day: Date, country: &str, sales: &SalesDay) -> Option<()> {
        let mut sums = SalesSums {
            orders: sales.orders,
            returns: sales.returns,
            reversed_orders: sales.reversed_orders,
            turnover: Turnover::default(),
        };
        for (sku, turnover) in sales.lines() {
            sums.turnover.add(turnover)?;
            self.skus.add(sku, &SkuSums(*turnover))?;
        }
        self.countries.add(Some(country), &sums)?;
        self.days.days.entry(day).or_default().add(&sums)?;
        self.total.add(&sums)
    }

    /// Returns the figures.
    ///
    /// # Errors
    /// A sum exceeds its bound.
    pub(super) fn finish(self) -> Result<SalesFigures, Uncountable> {
        let [days, months] = self.days.days_and_months()?;
        Ok(SalesFigures {
            period: self.days.period,
            country: self.country,
            total: self.total,
            months,
            countries: self.countries.ranked(|sums| sums.turnover.net()),
            skus: self.skus.ranked(|sums| sums.0.net()),
            days,
        })
    }
}

/// The figures of deliveries in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeliveryFigures {
    #[serde(flatten)]
    pub(crate) period: Period,
    /// The upper bounds of the classes of durations; the last class has none.
    duration_bounds_minutes: [u16; DURATION_BOUNDS.len()],
    pub(crate) total: DeliveryCounts,
    pub(crate) months: Vec<Named<DeliveryCounts>>,
    /// By deliveries, the most first. The deliveries without a city have an empty name.
    pub(crate) cities: Vec<Named<DeliveryCounts>>,
    pub(crate) days: Vec<Named<DeliveryCounts>>,
}

/// The sum of deliveries, as far as it has been read.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryReport {
    days: DailySums<DeliveryCounts>,
    cities: NamedSums<DeliveryCounts>,
    total: DeliveryCounts,
}

impl DeliveryReport {
    pub(super) fn new(period: Period) -> Self {
        Self {
            days: DailySums::new(period),
            cities: NamedSums::default(),
            total: DeliveryCounts::default(),
        }
    }

    /// Adds the deliveries of a day; `None` if a sum exceeds its bound.
    pub(super) fn add(&mut self, day: Date, deliveries: &DeliveryDay) -> Option<()> {
        for (city, counts) in deliveries.lines() {
            self.cities.add(city, counts)?;
            self.days.days.entry(day).or_default().add(counts);
            self.total.add(counts);
        }
        Some(())
    }

    /// Returns the figures.
    ///
    /// # Errors
    /// A sum exceeds its bound.
    pub(super) fn finish(self) -> Result<DeliveryFigures, Uncountable> {
        let [days, months] = self.days.days_and_months()?;
        Ok(DeliveryFigures {
            period: self.days.period,
            duration_bounds_minutes: DURATION_BOUNDS,
            total: self.total,
            months,
            cities: self
                .cities
                .ranked(|counts| (counts.delivered, counts.picked_up, counts.assigned)),
            days,
        })
    }
}

/// The JSON form of a turnover: every member is there, in groups.
#[derive(Serialize)]
struct TurnoverGroups {
    pieces: Pieces,
    amounts: Amounts,
}

#[derive(Serialize)]
struct Pieces {
    sold: i64,
    returned: i64,
    written_off: i64,
    reversed: i64,
}

#[derive(Serialize)]
struct Amounts {
    sales: Money,
    returns: Money,
    write_offs: Money,
    reversals: Money,
    net: Money,
}

impl From<&Turnover> for TurnoverGroups {
    fn from(turnover: &Turnover) -> Self {
        Self {
            pieces: Pieces {
                sold: turnover.sold,
                returned: turnover.returned,
                written_off: turnover.written_off,
                reversed: turnover.reversed,
            },
            amounts: Amounts {
                sales: turnover.sales,
                returns: turnover.returns,
                write_offs: turnover.write_offs,
                reversals: turnover.reversals,
                net: turnover.net().unwrap_or_default(),
            },
        }
    }
}

impl Serialize for SalesSums {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Groups {
            orders: u64,
            returns: u64,
            reversed_orders: u64,
            #[serde(flatten)]
            turnover: TurnoverGroups,
        }
        Groups {
            orders: self.orders,
            returns: self.returns,
            reversed_orders: self.reversed_orders,
            turnover: (&self.turnover).into(),
        }
        .serialize(serializer)
    }
}

impl Serialize for SkuSums {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TurnoverGroups::from(&self.0).serialize(serializer)
    }
}
