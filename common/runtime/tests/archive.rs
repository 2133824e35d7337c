//! Copies outside the store: a role archives each valid delivery at least once, after its commit.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::sync::{Arc, Mutex};

use doorstep_event::{ContractError, Event, Sender, Timestamp};
use doorstep_runtime::{
    DeliveryHistory, Effects, Engine, HandlerError, InboundMessage, Limits, Reading, Role, States,
    Unsupported,
};
use doorstep_store::{EntityKey, MemoryStore};
use ledger::{Ledger, Move, event};

type Payload = <Ledger as Role>::Payload;
type State = <Ledger as Role>::State;

/// A ledger that archives ids.
#[derive(Clone, Default)]
struct ArchivingLedger(Arc<Mutex<Vec<String>>>);

impl Role for ArchivingLedger {
    type Payload = Payload;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = State;

    fn name(&self) -> &'static str {
        "ledger"
    }

    fn read(&self, event: &Event) -> Result<Reading<Payload>, ContractError> {
        Ledger.read(event)
    }

    fn keys(&self, event: &Event, fact: &Payload) -> Vec<EntityKey> {
        Ledger.keys(event, fact)
    }

    fn handle(
        &self,
        states: &mut States<State>,
        event: &Event,
        fact: &Payload,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        assert!(!self.0.lock().unwrap().contains(&event.id.to_string()));
        Ledger.handle(states, event, fact, now)
    }

    fn archive(&self, events: &mut dyn Iterator<Item = &Event>) {
        let ids = events.map(|event| event.id.to_string());
        self.0.lock().unwrap().extend(ids);
    }
}

#[tokio::test]
async fn every_delivery_is_archived_after_its_commit() {
    let role = ArchivingLedger::default();
    let store = MemoryStore::new("ledger");
    let mut engine = Engine::new(role.clone(), store, Limits::default());
    let applied = event("shop", "account/a", 1, &Move::Add(1));
    let deferred = event("shop", "account/a", 3, &Move::Add(1));
    let rejected = event("shop", "account/b", 1, &Move::Poison);
    let now = "2026-11-23T10:00:00Z".parse().unwrap();
    // A process that was killed before it archived gets its deliveries again.
    for past in [DeliveryHistory::First, DeliveryHistory::Redelivered] {
        let all = [&applied, &deferred, &rejected].map(|event| {
            let message = InboundMessage::event(event.clone(), Sender::Anonymous);
            (message, past)
        });
        let mut batch = engine.read_deliveries(all);
        while !batch.is_done() {
            engine.process(&mut batch, now, 0.5).await.unwrap();
        }
        let mut archived = std::mem::take(&mut *role.0.lock().unwrap());
        archived.sort();
        let mut expected = [&applied, &deferred, &rejected].map(|event| event.id.to_string());
        expected.sort();
        assert_eq!(archived, expected);
    }
}
