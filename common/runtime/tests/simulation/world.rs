//! The environment of the actors: the clock, the queue, the broker behind the outbox sink, faults, and the record of
//! all commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use doorstep_event::Timestamp;
use doorstep_messaging::PublishOutcome;
use doorstep_runtime::relay::OutboxSink;
use doorstep_store::{MemoryStore, OutboxKind, TaskHolder};

use super::{
    callers::Callers, executor::step, history::History, input::Input, queue::Queue,
    seeded_rng::SeededRng, shape::Shape, task_runner::OutsideEffect,
};

/// The environment, as actors share it.
pub type Shared = Arc<Mutex<Environment>>;

pub struct Environment {
    pub clock: Timestamp,
    /// The time by which the clock of the role's processes is ahead; callers and producers have the right time.
    pub ahead: std::time::Duration,
    pub rng: SeededRng,
    pub shape: Shape,
    /// Set while faults strike; off during draining.
    pub faulty: bool,
    pub queue: Queue,
    pub callers: Callers,
    pub history: History,
    /// The messages that the broker got from the outbox, in the order of their arrival.
    pub published: Vec<OutboxKind>,
    /// The store itself, for reading without a step.
    pub store: MemoryStore,
    pub input: Input,
    /// The party that moves now, for the trace.
    pub moving: String,
    pub trace: Vec<String>,
    /// Set if the last move has crashed its process.
    pub died: bool,
    /// The true time that has passed, whatever the wall clocks say.
    pub monotonic: Duration,
    /// The beginning of all monotonic clocks.
    pub base: Instant,
    /// The number of processes started so far.
    pub processes: u64,
    /// The holders of those that are alive.
    pub alive: BTreeSet<TaskHolder>,
    /// The attempts of tasks, as the world outside has seen them.
    pub outside: Vec<OutsideEffect>,
    /// The holder to which each token was given.
    pub tokens: BTreeMap<i64, TaskHolder>,
}

/// A failure without a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The store fails and has done nothing.
    StoreBefore,
    /// The store fails, and yet all was done.
    StoreAfter,
}

/// Accesses the environment. Nothing else runs meanwhile.
pub fn with<T>(world: &Shared, look: impl FnOnce(&mut Environment) -> T) -> T {
    look(&mut world.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the time of the role's processes.
pub fn now(world: &Shared) -> Timestamp {
    with(world, |world| world.clock.checked_add(world.ahead).unwrap())
}

impl Environment {
    pub fn strikes(&mut self, _: Fault) -> bool {
        self.faulty && self.shape.errors && self.rng.one_in(80)
    }

    pub fn advance_clock(&mut self, milliseconds: usize) {
        let by = std::time::Duration::from_millis(milliseconds as u64);
        self.clock = self.clock.checked_add(by).unwrap();
        self.monotonic += by;
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.shape.traced {
            let who = &self.moving;
            self.trace.push(format!("{who}: {}", what()));
        }
    }
}

/// The way to the broker, which may confirm, lose the message or its confirm, nack, block, or find no queue.
pub struct SimulatedOutlet {
    pub world: Shared,
    pub honesty: Honesty,
}

/// The truth of the outcomes given to the relay. If a lost message is reported as confirmed, the relay deletes a
/// message that the broker never got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    Honest,
    SaysConfirmed,
    /// Only timeouts are reported as confirms, as by a relay that confuses the two.
    TimedOutIsConfirmed,
    /// The same with blocked publishes.
    BlockedIsConfirmed,
}

impl OutboxSink for SimulatedOutlet {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<PublishOutcome> {
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            step().await;
            let outcome = with(&self.world, |world| {
                let is_unruly = world.faulty && world.shape.unruly_broker;
                let fate = if is_unruly { world.rng.below(10) } else { 9 };
                // The last three say nothing about the message itself: it has arrived, or it is lost.
                let (arrives, outcome) = match fate {
                    0 => (false, PublishOutcome::Unroutable),
                    1 => (false, PublishOutcome::Rejected),
                    2 => (world.rng.one_in(2), PublishOutcome::TimedOut),
                    3 => (world.rng.one_in(2), PublishOutcome::Blocked),
                    4 => (world.rng.one_in(2), PublishOutcome::Disconnected),
                    _ => (true, PublishOutcome::Confirmed),
                };
                if arrives {
                    world.published.push(row);
                }
                outcome
            });
            outcomes.push(match (self.honesty, outcome) {
                (Honesty::SaysConfirmed, _)
                | (Honesty::TimedOutIsConfirmed, PublishOutcome::TimedOut)
                | (Honesty::BlockedIsConfirmed, PublishOutcome::Blocked) => {
                    PublishOutcome::Confirmed
                }
                _ => outcome,
            });
        }
        step().await;
        outcomes
    }
}
