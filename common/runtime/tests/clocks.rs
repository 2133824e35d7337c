//! The engine, the relay and pruning under a clock that was wrong and is then set right.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use std::time::Duration;

use doorstep_event::{Event, Rejection, Timestamp};
use doorstep_messaging::PublishOutcome;
use doorstep_runtime::{
    CommandResult, DeliveryHistory, Engine, InboundMessage, Limits,
    relay::{self, OutboxSink, RelayBatch},
};
use doorstep_store::{DeadLetterFilter, MemoryStore, OutboxKind, Store};
use ledger::{Bid, Ledger, Move, event, order};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn later(by: Duration) -> Timestamp {
    now().checked_add(by).unwrap()
}

struct TestEnv {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
}

impl TestEnv {
    fn new() -> Self {
        let store = MemoryStore::new("ledger");
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
        }
    }

    async fn deliver(&mut self, event: Event, at: Timestamp) {
        let incoming = InboundMessage::event(event, doorstep_event::Sender::Anonymous);
        let mut batch = self.engine.read_batch(vec![incoming]);
        self.engine.process(&mut batch, at, 0.5).await.unwrap();
    }

    /// Executes a command. Returns the code of its rejection, if there is one.
    async fn execute(&mut self, id: &str, time: Timestamp, at: Timestamp) -> Result<(), String> {
        let request = order(id, time, "account/a", Bid::Deposit(5));
        let mut commands = self
            .engine
            .read_commands([(request, DeliveryHistory::First)]);
        self.engine.execute(&mut commands, at, 0.5).await.unwrap();
        match commands.take_decided().pop() {
            Some((_, CommandResult::Answer(answer))) => {
                answer.map(drop).map_err(|rejected| rejected.code)
            }
            other => Err(format!("{other:?}")),
        }
    }

    /// Prunes once, as the role does it.
    async fn prune(&self, at: Timestamp) {
        let limits = Limits::default();
        let seen = self.store.prune_seen(limits.oldest_seen(at), 1_000);
        seen.await.unwrap();
        let replies = self.store.prune_replies(limits.oldest_reply(at), 1_000);
        replies.await.unwrap();
    }

    async fn entries(&self) -> usize {
        ledger::entries(&self.store, "account/a").await.len()
    }

    /// Returns the reasons of the dead letters.
    async fn dead(&self) -> Vec<String> {
        let dead = self
            .store
            .dead_letters(DeadLetterFilter::All, None, 100)
            .await
            .unwrap();
        dead.into_iter().map(|row| row.reason).collect()
    }
}

/// Returns an event without a sequence.
fn loose(number: u64, time: Timestamp) -> Event {
    let mut event = event("shop", "account/a", number, &Move::Add(1));
    event.sequence = None;
    event.time = Some(time);
    event
}

/// A broker with the same outcome for every publish.
struct Says(PublishOutcome);

impl OutboxSink for Says {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<PublishOutcome> {
        rows.iter().map(|_| self.0).collect()
    }
}

#[tokio::test]
async fn rows_deferred_by_a_fast_clock_go_out() {
    let mut env = TestEnv::new();
    let tells = event("shop", "account/a", 1, &Move::Tell);
    env.deliver(tells, now()).await;
    let rows = RelayBatch::Rows(10);
    let mut known = relay::RejectedRows::default();
    let rejected = relay::relay_once(
        &env.store,
        &Says(PublishOutcome::Rejected),
        rows,
        &mut known,
        || later(365 * DAY),
    );
    assert_eq!(rejected.await.unwrap().postponed, 1);
    let right = later(60 * SECOND);
    let beyond = right.checked_add(60 * SECOND).unwrap();
    env.store.clamp_due_times(right, beyond).await.unwrap();
    let confirmed = relay::relay_once(
        &env.store,
        &Says(PublishOutcome::Confirmed),
        rows,
        &mut known,
        || right,
    );
    assert_eq!(confirmed.await.unwrap().published, 1);
}

#[tokio::test]
async fn wrongly_pruned_id_lets_no_event_reapply() {
    let mut env = TestEnv::new();
    env.deliver(loose(1, now()), now()).await;
    env.prune(later(10 * DAY)).await;
    assert_eq!(env.store.usage().await.unwrap().seen.rows, 0);
    let right = later(60 * SECOND);
    env.deliver(loose(1, now()), right).await;
    assert_eq!(env.entries().await, 1);
    // An applied event cannot be told from one that was not, so another one of that time is rejected, too, and an
    // operator decides.
    env.deliver(loose(2, now()), right).await;
    assert_eq!(env.entries().await, 1);
    assert_eq!(env.dead().await, ["too old to tell", "too old to tell"]);
    // Later events are younger than the pruned times, however far ahead the clock was.
    env.deliver(loose(3, later(SECOND)), right).await;
    assert_eq!(env.entries().await, 2);
}

#[tokio::test]
async fn wrongly_pruned_reply_lets_no_command_reexecute() {
    let mut env = TestEnv::new();
    assert_eq!(env.execute("1", now(), now()).await, Ok(()));
    env.prune(later(2 * DAY)).await;
    let right = later(SECOND);
    let too_old = Err(Rejection::TOO_OLD.to_owned());
    assert_eq!(env.execute("1", now(), right).await, too_old);
    assert_eq!(env.entries().await, 1);
    assert_eq!(env.execute("2", right, right).await, Ok(()));
    assert_eq!(env.entries().await, 2);
}

#[tokio::test]
async fn id_of_a_future_event_outlives_it() {
    let mut env = TestEnv::new();
    for days in [0, 10, 36] {
        env.prune(later(DAY * days)).await;
        env.deliver(loose(1, later(30 * DAY)), later(DAY * days))
            .await;
    }
    assert_eq!((env.entries().await, env.dead().await.len()), (1, 0));
    env.prune(later(40 * DAY)).await;
    assert_eq!(env.store.usage().await.unwrap().seen.rows, 0);
}

#[tokio::test]
async fn untrusted_clock_expires_no_waiting_event() {
    let mut env = TestEnv::new();
    env.deliver(event("shop", "account/a", 1, &Move::AfterOpen), now())
        .await;
    let ahead = later(2 * DAY);
    env.engine.trust_clock(false);
    env.engine.process_due(ahead, 0.5).await.unwrap().unwrap();
    assert_eq!(env.dead().await, [""; 0]);
    env.engine.trust_clock(true);
    let ahead = ahead.checked_add(60 * SECOND).unwrap();
    env.engine.process_due(ahead, 0.5).await.unwrap().unwrap();
    assert_eq!(env.dead().await.len(), 1);
}

#[tokio::test]
async fn deferral_by_a_fast_clock_extends_no_wait() {
    let mut env = TestEnv::new();
    let ahead = later(365 * DAY);
    env.deliver(event("shop", "account/a", 1, &Move::AfterOpen), ahead)
        .await;
    assert_eq!(env.store.summary(now()).await.unwrap().dated_ahead, 1);
    let beyond = later(60 * SECOND);
    assert_eq!(env.store.clamp_due_times(now(), beyond).await.unwrap(), 1);
    env.engine.process_due(now(), 0.5).await.unwrap().unwrap();
    assert_eq!(env.store.summary(now()).await.unwrap().dated_ahead, 0);
    let limit = later(Limits::default().max_wait + SECOND);
    env.engine.process_due(limit, 0.5).await.unwrap().unwrap();
    assert_eq!(env.dead().await.len(), 1);
}
