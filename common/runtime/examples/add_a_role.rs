//! A role in full: its contract, its state, its rules, and a test of them. docs/how-to/add-a-role.md shows it piece by piece.
//!
//!     cargo run -p doorstep-runtime --example add_a_role
#![allow(clippy::unwrap_used, reason = "an example fails as a test does")]

// docs: begin contract
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use serde::{Deserialize, Serialize};

/// A parcel was put on a shelf.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParcelStored {
    grams: u32,
}

impl Contract for ParcelStored {
    const TYPE: &'static str = "shelf.parcel_stored.v1";
    const REQUIRES_SEQUENCE: bool = true;

    fn check(&self) -> Result<(), String> {
        match self.grams {
            1..=30_000 => Ok(()),
            grams => Err(format!("a parcel weighs 1 to 30000 g, not {grams} g")),
        }
    }
}
// docs: end contract

// docs: begin role
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;

/// The state of one shelf.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Shelf {
    parcels: u32,
    grams: u32,
}

struct Depot;

impl Role for Depot {
    type Payload = ParcelStored;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = Shelf;

    fn name(&self) -> &'static str {
        "depot"
    }

    fn read(&self, event: &Event) -> Result<Reading<ParcelStored>, ContractError> {
        match event.event_type.as_str() {
            ParcelStored::TYPE => Ok(Reading::Handled(ParcelStored::read(event)?)),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn keys(&self, event: &Event, _fact: &ParcelStored) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Shelf>,
        event: &Event,
        fact: &ParcelStored,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let shelf = states.first_or_default();
        if shelf.grams + fact.grams > 100_000 {
            return Err(HandlerError::reject(format!("{} is full", event.subject)));
        }
        shelf.parcels += 1;
        shelf.grams += fact.grams;
        Ok(Effects::none())
    }
}
// docs: end role

// docs: begin test
use doorstep_event::{Sender, Sequence, Source, Subject};
use doorstep_runtime::{Engine, InboundMessage, Limits};
use doorstep_store::{MemoryStore, Store};

fn stored(sequence: u64, grams: u32) -> Event {
    let source = Source::new("scanner/1").unwrap();
    let subject = Subject::new("shelf/A7").unwrap();
    let sequence = Sequence::new(sequence).unwrap();
    let fact = ParcelStored { grams };
    Event::from_contract(&source, &subject, sequence, Timestamp::now(), &fact).unwrap()
}

/// Delivers two events in the wrong order, and one of them twice.
async fn shelf_after_disorder() -> Shelf {
    let store = MemoryStore::new("depot");
    let mut engine = Engine::new(Depot, store.clone(), Limits::default());
    for event in [stored(2, 500), stored(1, 1_200), stored(2, 500)] {
        let delivery = InboundMessage::event(event, Sender::Anonymous);
        let mut batch = engine.read_batch(vec![delivery]);
        engine
            .process(&mut batch, Timestamp::now(), 0.5)
            .await
            .unwrap();
    }
    // Number 2 was deferred until number 1 had come, and is due now.
    while engine
        .process_due(Timestamp::now(), 0.5)
        .await
        .unwrap()
        .is_some()
    {}
    let shelves = store.entities(None, 10).await.unwrap();
    serde_json::from_slice(shelves[0].state.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn each_parcel_counts_once() {
    let expected = Shelf {
        parcels: 2,
        grams: 1_700,
    };
    assert_eq!(shelf_after_disorder().await, expected);
}
// docs: end test

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{:?}", shelf_after_disorder().await);
}
