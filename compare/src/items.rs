//! The load: seeded checkouts and tracking updates, each with the time at which a user wants it done.
//!
//! Pure: the same seed makes the same items at the same times in either mode.

use std::time::Duration;

use doorstep_contracts::{
    DeliveryId, DeliveryPositionRecorded, InvoiceNo, Label, Money, OrderLine, OrderPlaced,
    Position, Sku,
};
use doorstep_event::{
    ContractError, Event, Request, RequestId, Sequence, Source, Subject, Timestamp,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

use crate::work::{Checkouts, PlaceOrder, Positions, RecordPosition, Workload};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// A customer buys something.
    Checkout,
    /// A courier reports a position.
    Update,
}

impl Operation {
    /// Both, in the order of tables.
    pub(crate) const ALL: [Self; 2] = [Self::Checkout, Self::Update];

    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Checkout => Checkouts::QUEUES.role,
            Self::Update => Positions::QUEUES.role,
        }
    }

    /// The name of the operation in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Checkout => "checkouts",
            Self::Update => "updates",
        }
    }
}

/// The mean number of tracking updates for a checkout. Each takes that much less time, too.
pub(crate) const UPDATES_FOR_A_CHECKOUT: u32 = 4;
/// The number of different products of the shop.
const SKUS: u32 = 40;

/// The amount of work to offer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadPlan {
    /// Checkouts per second; there are [`UPDATES_FOR_A_CHECKOUT`] times as many tracking updates.
    pub(crate) checkouts_a_second: f64,
    /// The duration of the load.
    pub(crate) lasts: Duration,
}

/// An item of work that a user wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkItem {
    /// The time at which it is wanted, from the start of the load.
    pub(crate) at: Duration,
    fact: Fact,
}

#[derive(Debug, Clone, PartialEq)]
enum Fact {
    Checkout(PlaceOrder),
    Update(RecordPosition),
}

/// The error of an item that breaks its contract: a bug in this program.
pub(crate) type Mistake = String;

impl WorkItem {
    /// Draws the items of a load, ordered by time.
    ///
    /// Users arrive independently: the pauses between them are random with the requested mean. Times within the items
    /// are relative to `start`.
    pub(crate) fn draw(seed: u64, load: LoadPlan, start: Timestamp) -> Result<Vec<Self>, Mistake> {
        let mut items = Vec::new();
        for want in Operation::ALL {
            // Each kind has a seed of its own, so that more items of one leave the other unchanged.
            let mut rng = StdRng::seed_from_u64(seed ^ (want as u64) << 32);
            let rate = match want {
                Operation::Checkout => load.checkouts_a_second,
                Operation::Update => load.checkouts_a_second * f64::from(UPDATES_FOR_A_CHECKOUT),
            };
            let mut at = 0.0;
            for number in 1.. {
                let chance: f64 = rng.random_range(0.0..1.0);
                at += -(1.0 - chance).ln() / rate;
                if at >= load.lasts.as_secs_f64() {
                    break;
                }
                let at = Duration::from_secs_f64(at);
                let when = start.checked_add(at).map_err(text)?;
                let fact = match want {
                    Operation::Checkout => checkout(&mut rng, number, when)?,
                    Operation::Update => update(&mut rng, number, when)?,
                };
                items.push(Self { at, fact });
            }
        }
        items.sort_by_key(|item| item.at);
        Ok(items)
    }

    pub(crate) fn want(&self) -> Operation {
        match self.fact {
            Fact::Checkout(..) => Operation::Checkout,
            Fact::Update(..) => Operation::Update,
        }
    }

    /// Returns the item's subject, which is also the name of its entity in the role's store.
    pub(crate) fn subject(&self) -> Subject {
        match &self.fact {
            Fact::Checkout(asked) => asked.order.order_subject(),
            Fact::Update(asked) => asked.delivery.subject(),
        }
    }

    /// Returns the item as an event. Each item is a stream of its own, so that none waits for another.
    ///
    /// # Errors
    /// A bug in this program.
    pub(crate) fn event(&self, source: &Source, now: Timestamp) -> Result<Event, ContractError> {
        let subject = &self.subject();
        let first = Sequence::FIRST;
        match &self.fact {
            Fact::Checkout(asked) => {
                Event::from_contract(source, subject, first, now, &asked.placed)
            }
            Fact::Update(asked) => Event::from_contract(source, subject, first, now, &asked.fix),
        }
    }

    /// Returns the item as a command.
    ///
    /// # Errors
    /// A bug in this program.
    pub(crate) fn request(
        &self,
        caller: &Source,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Result<Request, ContractError> {
        let id = RequestId::new(self.subject().to_string())?;
        match &self.fact {
            Fact::Checkout(asked) => Request::from_contract(caller, id, now, deadline, asked),
            Fact::Update(asked) => Request::from_contract(caller, id, now, deadline, asked),
        }
    }
}

fn checkout(rng: &mut StdRng, number: u64, placed_at: Timestamp) -> Result<Fact, Mistake> {
    let mut lines = Vec::new();
    for _ in 0..rng.random_range(1..=4) {
        let sku = Sku::new(&format!("SKU-{:02}", rng.random_range(0..SKUS))).map_err(text)?;
        let price = format!(
            "{}.{:02}",
            rng.random_range(0..50),
            rng.random_range(1..100)
        );
        let price = price.parse::<Money>().map_err(text)?;
        lines.push(OrderLine::new(sku, None, rng.random_range(1..=6), price).map_err(text)?);
    }
    let placed = OrderPlaced {
        placed_at,
        customer: None,
        country: Label::new("United Kingdom").map_err(text)?,
        total: Money::sum(lines.iter().map(|line| line.amount)).map_err(text)?,
        lines,
    };
    let order = InvoiceNo::new(&number.to_string()).map_err(text)?;
    Ok(Fact::Checkout(PlaceOrder { order, placed }))
}

fn update(rng: &mut StdRng, number: u64, recorded_at: Timestamp) -> Result<Fact, Mistake> {
    let longitude = -0.1278 + rng.random_range(-0.05..0.05);
    let latitude = 51.5074 + rng.random_range(-0.05..0.05);
    let fix = DeliveryPositionRecorded {
        position: Position::new(longitude, latitude).map_err(text)?,
        recorded_at,
    };
    let delivery = DeliveryId::new(&number.to_string()).map_err(text)?;
    Ok(Fact::Update(RecordPosition { delivery, fix }))
}

fn text<E: std::fmt::Display>(error: E) -> Mistake {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(seed: u64, checkouts_a_second: f64) -> Vec<WorkItem> {
        let load = LoadPlan {
            checkouts_a_second,
            lasts: Duration::from_secs(20),
        };
        WorkItem::draw(seed, load, "2026-11-23T12:00:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn equal_seeds_give_equal_loads() {
        assert_eq!(items(7, 20.0), items(7, 20.0));
        assert_ne!(items(7, 20.0), items(8, 20.0));
    }

    #[test]
    fn requested_load_is_offered_in_order() {
        let items = items(7, 20.0);
        assert!(items.is_sorted_by_key(|item| item.at));
        let count = |want| items.iter().filter(|item| item.want() == want).count();
        assert!((320..480).contains(&count(Operation::Checkout)));
        assert!((1440..1760).contains(&count(Operation::Update)));
    }

    #[test]
    fn items_are_equal_as_event_and_command() {
        let source = Source::new("compare/test").unwrap();
        let now = Timestamp::now();
        for item in items(7, 5.0) {
            let event = item.event(&source, now).unwrap();
            doorstep_contracts::registry::check(&event).unwrap();
            let request = item.request(&source, now, now).unwrap();
            assert_eq!(request.role(), item.want().role());
            assert_eq!(request.id.as_str(), item.subject().as_str());
        }
    }
}
