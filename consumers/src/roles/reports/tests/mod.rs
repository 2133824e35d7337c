//! The projection and the forms of a report, with the events that these tests share.

mod folder;
mod forms;
mod projection;
mod rendering;
mod requested;

use std::{fs, path::PathBuf};

use doorstep_contracts::{
    CancelledBy, CourierId, DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, Label, Money,
    OrderCancelled, OrderLine, OrderPlaced, ReportId, ReturnRecorded, Sku, TimeWindow,
};
use doorstep_event::{Event, Sender, Timestamp};
use doorstep_runtime::{Engine, InboundMessage, Limits};
use doorstep_store::{EntityRow, MemoryStore, Store};
use uuid::Uuid;

use super::{
    Reports,
    figures::{DeliveryFigures, DeliveryReport, SalesFigures, SalesReport},
    period::{Period, Scope},
    report::{DayEntity, Report},
};
use crate::roles::testing::{RoleHarness, event, ten};

/// A folder that is removed at the end of its test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("doorstep-reports-{}", Uuid::new_v4())))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(number: u128) -> ReportId {
    ReportId::new(Uuid::from_u128(number))
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn line(sku: &str, quantity: i64, unit_price: &str) -> OrderLine {
    let sku = Sku::new(sku).unwrap();
    OrderLine::new(sku, None, quantity, unit_price.parse().unwrap()).unwrap()
}

fn total(lines: &[OrderLine]) -> Money {
    Money::sum(lines.iter().map(|line| line.amount)).unwrap()
}

fn placed(number: usize, time: &str, country: &str, lines: Vec<OrderLine>) -> Event {
    let fact = OrderPlaced {
        placed_at: at(time),
        customer: None,
        country: Label::new(country).unwrap(),
        total: total(&lines),
        lines,
    };
    event(&format!("order/{number}"), 1, &fact)
}

fn returned(number: usize, time: &str, country: &str, lines: Vec<OrderLine>) -> Event {
    let fact = ReturnRecorded {
        recorded_at: at(time),
        customer: None,
        country: Label::new(country).unwrap(),
        total: total(&lines),
        lines,
    };
    event(&format!("return/C{number}"), 1, &fact)
}

fn cancelled(number: usize, sequence: u64) -> Event {
    let fact = OrderCancelled {
        by: CancelledBy::Customer,
        reason: Label::new("ordered twice").unwrap(),
    };
    event(&format!("order/{number}"), sequence, &fact)
}

fn assigned(number: usize, time: &str, city: Option<&str>, due: Option<&str>) -> Event {
    let fact = DeliveryAssigned {
        courier: CourierId::new("317").unwrap(),
        accepted_at: at(time),
        city: city.map(|city| Label::new(city).unwrap()),
        region: None,
        area: None,
        area_kind: None,
        position: None,
        window: due.map(|due| TimeWindow {
            start: at(time),
            end: at(due),
        }),
    };
    event(&format!("delivery/{number}"), 1, &fact)
}

fn picked_up(number: usize, time: &str) -> Event {
    let fact = DeliveryPickedUp {
        picked_up_at: at(time),
    };
    event(&format!("delivery/{number}"), 2, &fact)
}

fn delivered(number: usize, time: &str) -> Event {
    let fact = DeliveryDelivered {
        delivered_at: at(time),
    };
    event(&format!("delivery/{number}"), 3, &fact)
}

fn period(from: &str, to: &str) -> Period {
    Period::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
}

/// Returns the states after these events, as their entities are stored.
fn rows(events: &[Event]) -> Vec<EntityRow> {
    let mut bench = RoleHarness::new(Reports::new(None));
    for event in events {
        bench.give(event).unwrap();
    }
    bench.run_all_timers();
    bench
        .states()
        .map(|(key, state)| EntityRow {
            key: key.clone(),
            row: None,
            version: 1,
            state: Some(serde_json::to_vec(state).unwrap().into()),
        })
        .collect()
}

/// Applies deliveries in batches, and all that becomes due, as a running role does.
async fn applied(deliveries: &[Event], batch: usize) -> MemoryStore {
    let store = MemoryStore::new("reports");
    let mut engine = Engine::new(Reports::new(None), store.clone(), Limits::default());
    for events in deliveries.chunks(batch) {
        let messages = events.iter().cloned();
        let messages = messages.map(|event| InboundMessage::event(event, Sender::Anonymous));
        let mut batch = engine.read_batch(messages.collect());
        while !batch.is_done() {
            engine.process(&mut batch, ten(), 0.5).await.unwrap();
        }
    }
    while engine.process_due(ten(), 0.5).await.unwrap().is_some() {}
    assert!(store.dead_letter_groups(1).await.unwrap().is_empty());
    store
}

/// Returns the entities of a report, and adds them up.
fn summed<R: Report>(rows: &[EntityRow], period: Period) -> (Vec<DayEntity>, R::Figures) {
    let entities: Vec<DayEntity> = rows
        .iter()
        .filter_map(|row| DayEntity::read(row, R::ENTITIES).unwrap())
        .collect();
    let mut report = R::new(Scope {
        period,
        country: None,
    });
    for entity in &entities {
        report.add(entity).unwrap();
    }
    (entities, report.finish().unwrap())
}

fn sales(events: &[Event], period: Period) -> SalesFigures {
    summed::<SalesReport>(&rows(events), period).1
}

fn deliveries(events: &[Event], period: Period) -> DeliveryFigures {
    summed::<DeliveryReport>(&rows(events), period).1
}
