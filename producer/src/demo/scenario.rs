//! The scenario of the demo: a seeded shop with its couriers, and the faults of networks and people. Pure: a seed in, a
//! list out.

use std::collections::{BTreeSet, HashMap};

use doorstep_contracts::{
    CourierId, DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded,
    Label, Money, OrderConfirmed, OrderLine, OrderPlaced, OrderRefused, Position, RefusedBy,
    RequestServed, RestaurantId, Sku, StockAdjusted, StockReason,
};
use doorstep_event::{Contract, ContractError, Event, Sequence, Source, Subject, Timestamp};
use jiff::{SignedDuration, civil::Date, tz::TimeZone};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

use super::customers::{CUSTOMERS, Customer, MailCauses, Mistake, text};

/// The number of orders per minute.
const ORDERS_A_MINUTE: u32 = 20;
/// The limit of minutes for which deliveries go on after the last order.
const LAST_DELIVERY_MINUTES: i64 = 2;
/// The number of different products of the shop.
const SKUS: u32 = 40;
/// The divisor of customers' orders that the restaurant refuses.
const REFUSED_ONE_IN: u32 = 6;
/// The divisor of events that are published twice.
const DUPLICATE_ONE_IN: u32 = 12;
/// The divisor of events that later ones overtake.
const LATE_ONE_IN: u32 = 10;

/// An event at its time.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The time at which it is published, in seconds from the start.
    pub(super) at: f64,
    pub(super) event: Event,
}

/// The steps of a demo, in the order of publishing.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) steps: Vec<Step>,
    /// The number of different events but those about users, which only `notifications` takes.
    pub(super) events: u64,
    /// The number of different requests among them.
    pub(super) requests: u64,
    pub(super) sales: Sales,
    pub(super) mails: MailCauses,
    /// The number of events but those about users that are published a second time.
    pub(super) duplicates: u64,
    /// The number of events that arrive before their predecessor, and have to wait for it.
    pub(super) early: u64,
}

/// The orders that were not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Sales {
    orders: u64,
    net: Money,
    /// The days of the shop's time on which orders were placed, the first and the last.
    from: Option<Date>,
    to: Option<Date>,
}

impl Scenario {
    /// Creates the scenario; the same seed, source and start make the same one.
    pub(super) fn make(
        seed: u64,
        source: &Source,
        start: Timestamp,
        minutes: u32,
    ) -> Result<Self, Mistake> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut shop = ShopSimulator::new(source, start, minutes);
        let seconds = f64::from(minutes) * 60.0;
        let orders = minutes * ORDERS_A_MINUTE;
        shop.addresses()?;
        for number in 1..=orders {
            let at = rng.random_range(0.0..seconds);
            shop.order(&mut rng, number, at)?;
        }
        let (mails, sales) = (shop.mails, shop.sales()?);
        let mut steps = shop.in_order()?;
        let events = steps.iter().filter(|step| !step.is_of_user()).count() as u64;
        let duplicates = inject_faults(&mut rng, &mut steps);
        steps.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(Self {
            early: count_early(&steps),
            steps,
            events,
            requests: orders.into(),
            sales,
            mails,
            duplicates,
        })
    }
}

/// The shop's facts, which get their numbers at the end, since a stream's numbers follow the time of its facts.
struct ShopSimulator<'a> {
    source: &'a Source,
    start: Timestamp,
    /// The shop's first moment.
    opening: Timestamp,
    facts: Vec<(f64, Subject, MakeEvent)>,
    mails: MailCauses,
    /// The amounts of the orders that were not refused.
    amounts: Vec<Money>,
    days: BTreeSet<Date>,
}

/// Makes the event of a fact once its sequence is known.
type MakeEvent =
    Box<dyn FnOnce(&Source, &Subject, Sequence, Timestamp) -> Result<Event, ContractError>>;

impl<'a> ShopSimulator<'a> {
    fn new(source: &'a Source, start: Timestamp, minutes: u32) -> Self {
        // The shop's clock is faster than real time. All of it is in the past, since a courier cannot be anywhere in
        // the future.
        let length = SignedDuration::from_mins(i64::from(minutes) + LAST_DELIVERY_MINUTES);
        Self {
            source,
            start,
            opening: start.checked_sub(length).unwrap_or(start),
            facts: Vec::new(),
            mails: MailCauses::default(),
            amounts: Vec::new(),
            days: BTreeSet::new(),
        }
    }

    fn time(&self, at: f64) -> Timestamp {
        let millis = SignedDuration::from_millis((at * 1000.0) as i64);
        self.opening.checked_add(millis).unwrap_or(self.opening)
    }

    fn add<C>(&mut self, at: f64, subject: &str, fact: C) -> Result<(), Mistake>
    where
        C: Contract + 'static,
    {
        let make = move |source: &Source, subject: &Subject, sequence, time| {
            Event::from_contract(source, subject, sequence, time, &fact)
        };
        let subject = Subject::new(subject).map_err(text)?;
        self.facts.push((at, subject, Box::new(make)));
        Ok(())
    }

    /// Adds the addresses of the customers, which are there before their first order.
    fn addresses(&mut self) -> Result<(), Mistake> {
        for customer in CUSTOMERS {
            let subject = customer.id().map_err(text)?.user_subject();
            let (set, confirmed) = customer.address(self.start)?;
            self.add(0.0, subject.as_str(), set)?;
            self.mails.add_address();
            if let Some(confirmed) = confirmed {
                self.add(0.0, subject.as_str(), confirmed)?;
            }
        }
        Ok(())
    }

    fn sales(&self) -> Result<Sales, Mistake> {
        Ok(Sales {
            orders: self.amounts.len() as u64,
            net: Money::sum(self.amounts.iter().copied()).map_err(text)?,
            from: self.days.first().copied(),
            to: self.days.last().copied(),
        })
    }

    /// Adds the outcome of a customer's order. Returns whether it was confirmed.
    fn outcome(
        &mut self,
        rng: &mut StdRng,
        customer: Customer,
        order: &str,
        at: f64,
    ) -> Result<bool, Mistake> {
        self.mails.add(Some(customer));
        if rng.random_ratio(1, REFUSED_ONE_IN) {
            let refused = OrderRefused {
                by: RefusedBy::Restaurant,
                reason: "at_capacity".parse().map_err(label)?,
            };
            self.add(at, order, refused)?;
            return Ok(false);
        }
        let confirmed = OrderConfirmed {
            restaurant: RestaurantId::new("demo-kitchen").map_err(text)?,
            promised_at: self.time(at + 20.0),
        };
        self.add(at, order, confirmed)?;
        Ok(true)
    }

    /// Adds an order, its request, its outcome if it names a customer, its effect on the stock, and its delivery.
    fn order(&mut self, rng: &mut StdRng, number: u32, at: f64) -> Result<(), Mistake> {
        // Named after the start, so that a second run brings new orders instead of old ones again.
        let name = format!("{:X}-{number:04}", self.start.as_second());
        let order = format!("order/{name}");
        let mut lines = Vec::new();
        for _ in 0..rng.random_range(1..=4) {
            let sku = format!("SKU-{:02}", rng.random_range(0..SKUS));
            let quantity = rng.random_range(1..=6);
            let price = format!(
                "{}.{:02}",
                rng.random_range(0..50),
                rng.random_range(1..100)
            )
            .parse::<Money>()
            .map_err(text)?;
            lines.push(
                OrderLine::new(Sku::new(&sku).map_err(text)?, None, quantity, price)
                    .map_err(text)?,
            );
        }
        let customer = Customer::draw(rng);
        let placed = OrderPlaced {
            placed_at: self.time(at),
            customer: customer.map(Customer::id).transpose().map_err(text)?,
            country: "United Kingdom".parse().map_err(label)?,
            total: Money::sum(lines.iter().map(|line| line.amount)).map_err(text)?,
            lines,
        };
        let (total, lines) = (placed.total, placed.lines.clone());
        self.days
            .insert(TimeZone::UTC.to_datetime(self.time(at)).date());
        self.add(at, &order, placed)?;
        let request = RequestServed {
            served_at: self.time(at),
            method: Some("POST".to_owned()),
            route: "/v1/orders".to_owned(),
            path: None,
            status: 201,
            bytes: None,
            duration_us: Some(rng.random_range(1_000..20_000)),
            client: None,
            referrer: None,
            user_agent: None,
        };
        self.add(at, "request/demo", request)?;
        let is_sold = match customer {
            Some(customer) => self.outcome(rng, customer, &order, at + 1.0)?,
            None => true,
        };
        if !is_sold {
            return Ok(());
        }
        self.amounts.push(total);
        for line in lines {
            let adjusted = StockAdjusted {
                delta: -line.quantity,
                reason: StockReason::Sale,
                reference: Subject::new(order.as_str()).map_err(text)?,
            };
            self.add(at + 0.2, line.sku.subject().as_str(), adjusted)?;
        }
        self.mails.add(customer);
        self.delivery(rng, &format!("delivery/{name}"), at + 20.0)
    }

    fn delivery(&mut self, rng: &mut StdRng, subject: &str, at: f64) -> Result<(), Mistake> {
        let courier =
            CourierId::new(&format!("courier-{}", rng.random_range(1..=12))).map_err(text)?;
        let (mut longitude, mut latitude) = (
            -0.1278 + rng.random_range(-0.05..0.05),
            51.5074 + rng.random_range(-0.05..0.05),
        );
        let assigned = DeliveryAssigned {
            courier,
            accepted_at: self.time(at),
            city: None,
            region: None,
            area: None,
            area_kind: None,
            position: Some(Position::new(longitude, latitude).map_err(text)?),
            window: None,
        };
        self.add(at, subject, assigned)?;
        let mut now = at;
        for fix in 0..6 {
            now += rng.random_range(4.0..9.0);
            longitude += rng.random_range(-0.002..0.002);
            latitude += rng.random_range(-0.002..0.002);
            let recorded = DeliveryPositionRecorded {
                position: Position::new(longitude, latitude).map_err(text)?,
                recorded_at: self.time(now),
            };
            self.add(now, subject, recorded)?;
            if fix == 2 {
                now += 1.0;
                let picked_up_at = self.time(now);
                self.add(now, subject, DeliveryPickedUp { picked_up_at })?;
            }
        }
        let delivered_at = self.time(now + 2.0);
        self.add(now + 2.0, subject, DeliveryDelivered { delivered_at })
    }

    /// Converts all facts to events, numbered in the order of their times.
    fn in_order(mut self) -> Result<Vec<Step>, Mistake> {
        self.facts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut last: HashMap<Subject, u64> = HashMap::new();
        let facts = std::mem::take(&mut self.facts);
        facts
            .into_iter()
            .map(|(at, subject, make)| {
                let number = last.entry(subject.clone()).or_default();
                *number += 1;
                let sequence = Sequence::new(*number).ok_or("a sequence is above its bound")?;
                let event = make(self.source, &subject, sequence, self.time(at)).map_err(text)?;
                Ok(Step { at, event })
            })
            .collect()
    }
}

impl Step {
    /// Returns whether the event is about a user. Such events come in time: whether an address is there decides on a
    /// mail.
    fn is_of_user(&self) -> bool {
        self.event.subject.as_str().starts_with("user/")
    }
}

/// Duplicates some events and lets others be overtaken. Returns the number of duplicates.
fn inject_faults(rng: &mut StdRng, steps: &mut Vec<Step>) -> u64 {
    let mut again = Vec::new();
    for step in steps.iter_mut().filter(|step| !step.is_of_user()) {
        if rng.random_ratio(1, LATE_ONE_IN) {
            step.at += rng.random_range(5.0..30.0);
        }
        if rng.random_ratio(1, DUPLICATE_ONE_IN) {
            again.push(Step {
                at: step.at + rng.random_range(0.0..40.0),
                event: step.event.clone(),
            });
        }
    }
    let duplicates = again.len() as u64;
    steps.append(&mut again);
    duplicates
}

/// Returns the number of events that first arrive before all their predecessors in the stream.
fn count_early(steps: &[Step]) -> u64 {
    let mut arrived: HashMap<&Subject, Vec<u64>> = HashMap::new();
    let mut early = 0;
    for step in steps {
        let Some(sequence) = step.event.sequence.map(Sequence::get) else {
            continue;
        };
        let before = arrived.entry(&step.event.subject).or_default();
        if before.contains(&sequence) {
            continue;
        }
        let missing = (1..sequence).any(|n| !before.contains(&n));
        early += u64::from(missing);
        before.push(sequence);
    }
    early
}

fn label(error: <Label as std::str::FromStr>::Err) -> Mistake {
    text(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(seed: u64) -> Scenario {
        let source = Source::new("demo/test").unwrap();
        Scenario::make(seed, &source, "2026-11-23T12:00:00Z".parse().unwrap(), 3).unwrap()
    }

    #[test]
    fn the_same_seed_plays_the_same() {
        let ids = |play: Scenario| {
            play.steps
                .into_iter()
                .map(|s| (s.event.id, s.event.data))
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(play(7)), ids(play(7)));
        assert_ne!(ids(play(7)), ids(play(8)));
    }

    #[test]
    fn streams_have_no_gaps_and_valid_events() {
        let play = play(7);
        let mut streams: HashMap<Subject, Vec<u64>> = HashMap::new();
        for step in &play.steps {
            doorstep_contracts::registry::check(&step.event).unwrap();
            let numbers = streams.entry(step.event.subject.clone()).or_default();
            numbers.push(step.event.sequence.unwrap().get());
        }
        let users = streams.extract_if(|subject, _| subject.as_str().starts_with("user/"));
        let addresses: Vec<usize> = users.map(|(_, numbers)| numbers.len()).collect();
        assert_eq!(addresses.iter().sum::<usize>(), 7);
        let mut different = 0;
        for mut numbers in streams.into_values() {
            numbers.sort_unstable();
            numbers.dedup();
            different += numbers.len() as u64;
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        }
        assert_eq!(different, play.events);
        assert_eq!(play.steps.len() as u64, play.events + play.duplicates + 7);
    }

    #[test]
    fn there_is_disorder_and_there_are_duplicates() {
        let play = play(7);
        assert!(play.early > 20, "{}", play.early);
        assert!(play.duplicates > 20, "{}", play.duplicates);
    }
}
