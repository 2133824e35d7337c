//! The relay on the store in memory: the rows that it publishes together.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Sender, Timestamp};
use doorstep_messaging::PublishOutcome;
use doorstep_runtime::{
    Engine, InboundMessage, Limits,
    relay::{self, OutboxSink, RejectedRows, RelayBatch, RelayReport},
};
use doorstep_store::{MemoryStore, OutboxKind, Store};
use ledger::{Ledger, Move, event};

const REFUSED: &str = "told/account/refused";

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    start + Duration::from_secs(seconds)
}

/// A broker that closes the channel over one kind of message: sent alone, the message is known as the cause; among
/// others, all are unconfirmed.
struct Strict;

impl OutboxSink for Strict {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<PublishOutcome> {
        let is_refused = |row: &OutboxKind| matches!(row, OutboxKind::Event(event) if event.subject.as_str() == REFUSED);
        let outcome = match (rows.iter().any(is_refused), rows.len()) {
            (false, _) => PublishOutcome::Confirmed,
            (true, 1) => PublishOutcome::Unpublishable,
            (true, _) => PublishOutcome::Disconnected,
        };
        vec![outcome; rows.len()]
    }
}

#[tokio::test]
async fn row_that_closed_a_channel_is_published_alone() {
    let store = MemoryStore::new("ledger");
    let mut engine = Engine::new(Ledger, store.clone(), Limits::default());
    let mut rejected = RejectedRows::default();
    let mut tell = async |account: &str, seconds| {
        let incoming =
            InboundMessage::event(event("shop", account, 1, &Move::Tell), Sender::Anonymous);
        let mut batch = engine.read_batch(vec![incoming]);
        engine.process(&mut batch, at(seconds), 0.5).await.unwrap();
    };
    let mut turn = async |rows, seconds| {
        let rows = RelayBatch::Rows(rows);
        let turn = relay::relay_once(&store, &Strict, rows, &mut rejected, || at(seconds));
        turn.await.unwrap()
    };
    tell("account/refused", 0).await;
    let found = turn(1, 0).await;
    assert_eq!(found.first_failure, Some(PublishOutcome::Unpublishable));
    // Due once more, together with another one.
    tell("account/a", 60).await;
    let wanted = RelayReport {
        published: 1,
        postponed: 1,
        first_failure: Some(PublishOutcome::Unpublishable),
        ..RelayReport::default()
    };
    assert_eq!(turn(10, 60).await, wanted);
    let left = store.outbox(Timestamp::MAX, 10).await.unwrap();
    assert_eq!(left.len(), 1);
}
