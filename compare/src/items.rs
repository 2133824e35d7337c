//! What is offered: seeded checkouts and tracking updates, each with the moment at which somebody wants it done. Pure: the same seed
//! makes the same items at the same moments, however they are then done.

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

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// A customer buys.
    Checkout,
    /// A courier is somewhere.
    Update,
}

impl Operation {
    /// Both, in the order of tables.
    pub(crate) const ALL: [Self; 2] = [Self::Checkout, Self::Update];

    /// The role that does it.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::Checkout => Checkouts::QUEUES.role,
            Self::Update => Positions::QUEUES.role,
        }
    }

    /// What it is called in tables.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Checkout => "checkouts",
            Self::Update => "updates",
        }
    }
}

/// How many tracking updates come for a checkout, on the average. Each takes so much less time, too.
pub(crate) const UPDATES_FOR_A_CHECKOUT: u32 = 4;
/// Different things that the shop sells.
const SKUS: u32 = 40;

/// How much is offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadPlan {
    /// Checkouts in a second; of tracking updates there are [`UPDATES_FOR_A_CHECKOUT`] times as many.
    pub(crate) checkouts_a_second: f64,
    /// For how long.
    pub(crate) lasts: Duration,
}

/// Something that somebody wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkItem {
    /// When it is wanted, from the start of the load.
    pub(crate) at: Duration,
    fact: Fact,
}

#[derive(Debug, Clone, PartialEq)]
enum Fact {
    Checkout(InvoiceNo, OrderPlaced),
    Update(DeliveryId, DeliveryPositionRecorded),
}

/// Why items could not be made: a mistake in them, since they keep every contract.
pub(crate) type Mistake = String;

impl WorkItem {
    /// The items of a load, by time. People come when they like, not in step: the pauses between them are drawn at random, and their
    /// mean is what was asked for. Times within the items are counted from `start`.
    pub(crate) fn draw(seed: u64, load: LoadPlan, start: Timestamp) -> Result<Vec<Self>, Mistake> {
        let mut items = Vec::new();
        for want in Operation::ALL {
            // Each kind from a seed of its own, so that more of one changes nothing of the other.
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

    /// What is wanted.
    pub(crate) fn want(&self) -> Operation {
        match self.fact {
            Fact::Checkout(..) => Operation::Checkout,
            Fact::Update(..) => Operation::Update,
        }
    }

    /// What it is about; also the name of its entity in the role's store.
    pub(crate) fn subject(&self) -> Subject {
        match &self.fact {
            Fact::Checkout(order, _) => order.order_subject(),
            Fact::Update(delivery, _) => delivery.subject(),
        }
    }

    /// The event that tells it. Each item is a stream of its own, so that none waits for another one.
    ///
    /// # Errors
    /// A mistake in this program.
    pub(crate) fn event(&self, source: &Source, now: Timestamp) -> Result<Event, ContractError> {
        let subject = &self.subject();
        let first = Sequence::FIRST;
        match &self.fact {
            Fact::Checkout(_, placed) => Event::from_contract(source, subject, first, now, placed),
            Fact::Update(_, fix) => Event::from_contract(source, subject, first, now, fix),
        }
    }

    /// The command that asks for it.
    ///
    /// # Errors
    /// A mistake in this program.
    pub(crate) fn request(
        &self,
        caller: &Source,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Result<Request, ContractError> {
        let id = RequestId::new(self.subject().to_string())?;
        match &self.fact {
            Fact::Checkout(order, placed) => {
                let asked = PlaceOrder {
                    order: order.clone(),
                    placed: placed.clone(),
                };
                Request::from_contract(caller, id, now, deadline, &asked)
            }
            Fact::Update(delivery, fix) => {
                let asked = RecordPosition {
                    delivery: delivery.clone(),
                    fix: fix.clone(),
                };
                Request::from_contract(caller, id, now, deadline, &asked)
            }
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
    Ok(Fact::Checkout(order, placed))
}

fn update(rng: &mut StdRng, number: u64, recorded_at: Timestamp) -> Result<Fact, Mistake> {
    let longitude = -0.1278 + rng.random_range(-0.05..0.05);
    let latitude = 51.5074 + rng.random_range(-0.05..0.05);
    let fix = DeliveryPositionRecorded {
        position: Position::new(longitude, latitude).map_err(text)?,
        recorded_at,
    };
    let delivery = DeliveryId::new(&number.to_string()).map_err(text)?;
    Ok(Fact::Update(delivery, fix))
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
    fn the_same_seed_offers_the_same_at_the_same_moments() {
        assert_eq!(items(7, 20.0), items(7, 20.0));
        assert_ne!(items(7, 20.0), items(8, 20.0));
    }

    #[test]
    fn as_much_is_offered_as_was_asked_for_and_in_order() {
        let items = items(7, 20.0);
        assert!(items.is_sorted_by_key(|item| item.at));
        let count = |want| items.iter().filter(|item| item.want() == want).count();
        assert!((320..480).contains(&count(Operation::Checkout)));
        assert!((1440..1760).contains(&count(Operation::Update)));
    }

    #[test]
    fn every_item_can_be_told_and_asked_for_and_is_about_the_same() {
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
