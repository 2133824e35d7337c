//! The programs: owners of the queue, relays, and an operator.

use std::time::Duration;

use doorstep_event::Rejection;
use doorstep_runtime::{
    BatchCursor, CommandResult, Commands, DeliveryHistory, Engine, Limits,
    operate::{self, OperateError, TaskDecision},
    relay::{self, RelayBatch},
};
use doorstep_store::{
    DeadLetter, DeadLetterFilter, MemoryStore, Store, StoreError, TaskFilter, TaskState,
};

use super::{
    callers::Given,
    checker,
    crashing_role::{Crashing, CrashingRole},
    executed,
    executor::{Actor, race, step},
    queue::Message,
    shape::{Guard, Settling},
    task_runner::{MAX_TASK_BACKOFF, TaskRunner},
    world::{Environment, Shared, SimulatedOutlet, now, with},
    yielding_store::YieldingStore,
};
use crate::ledger::{LedgerCommand, LedgerWith, Move};

pub type SimulatedStore = YieldingStore<MemoryStore>;

/// Returns bounds so small that each of them is reached.
pub fn limits(world: &Shared) -> Limits {
    with(world, |world| Limits {
        batch_size: world.rng.between(1, 12),
        deferred_per_stream: world.rng.between(1, 4),
        due_events: world.rng.between(1, 6),
        remembered_rows: world.rng.between(1, 8),
        // Both owners may crash at once, each within an attempt of the same event.
        max_crashes: world.rng.between(3, 5) as u32,
        relay_rows: world.rng.between(1, 5),
        max_backoff: Duration::from_secs(5),
        max_wait: Duration::from_secs(30),
        conflicts: 40,
        ..Limits::default()
    })
}

/// An owner of the queue: takes deliveries, processes and acks them, and processes due events.
pub fn owner(world: Shared, store: SimulatedStore, number: usize, settling: Settling) -> Actor {
    Box::pin(async move {
        let limits = limits(&world);
        let mut runner = TaskRunner::new(&world, store.clone(), limits.max_crashes);
        let mut engine = engine(&world, store, limits);
        loop {
            step().await;
            let runs = with(&world, |world| {
                let least = if world.shape.slow_input { 3 } else { 2 };
                world.shape.tasks && world.rng.below(4) < least
            });
            if runs {
                runner.work().await;
                continue;
            }
            let (held_first, most, jitter) = with(&world, |world| {
                let rng = &mut world.rng;
                (rng.one_in(3), rng.between(1, 7), rng.fraction())
            });
            let (taken, asked) = if held_first {
                (None, Vec::new())
            } else {
                with(&world, |world| {
                    let commands = world.rng.below(4);
                    let taken = world.queue.take(number, most);
                    (taken, world.callers.take(number, commands))
                })
            };
            let ends = if held_first {
                Vec::new()
            } else {
                runner.ends.clone()
            };
            if taken.is_none() && asked.is_empty() && ends.is_empty() {
                let worked = engine.process_due(now(&world), jitter).await;
                contended(&world, worked.err());
                continue;
            }
            let messages = taken.as_ref().map_or(&[][..], |(_, _, messages)| messages);
            let settle = || {
                let Some((generation, tag, messages)) = &taken else {
                    return;
                };
                with(&world, |world| {
                    checker::settled(world, messages);
                    world.queue.send_ack(number, *generation, *tag);
                });
            };
            let mut batch = read(&world, &engine, messages);
            let mut commands = read_commands(&world, &engine, &asked).with_ends(ends.clone());
            if settling == Settling::BeforeTheCommit {
                settle();
            }
            while !(batch.is_done() && commands.is_done()) {
                let at = now(&world);
                let worked = engine.process_with_commands(&mut batch, &mut commands, at, jitter);
                contended(&world, worked.await.err());
                step().await;
                for (place, decided) in commands.take_decided() {
                    match asked.get(place) {
                        Some(given) => answer(&world, given, decided),
                        None => runner.decided(place - asked.len(), &ends, &decided),
                    }
                    step().await;
                }
            }
            step().await;
            if settling == Settling::AfterTheCommit {
                settle();
            }
        }
    })
}

/// Creates an engine in a process that starts now.
pub fn engine(
    world: &Shared,
    store: SimulatedStore,
    limits: Limits,
) -> Engine<CrashingRole, SimulatedStore> {
    let engine = Engine::new(LedgerWith(Crashing), store, limits).with_frozen_clock();
    match with(world, |world| world.shape.guard) {
        Guard::Informed => engine.started_at(now(world)),
        Guard::Uninformed => engine,
    }
}

/// Takes deliveries with the delivery history that the queue reports.
pub fn read(
    world: &Shared,
    engine: &Engine<CrashingRole, SimulatedStore>,
    messages: &[Message],
) -> BatchCursor<Move> {
    let guard = with(world, |world| world.shape.guard);
    engine.read_deliveries(messages.iter().map(|message| {
        let past = match (guard, message.redelivered) {
            (Guard::Informed, true) => DeliveryHistory::Redelivered,
            _ => DeliveryHistory::First,
        };
        (message.incoming.clone(), past)
    }))
}

/// Takes commands with their delivery history.
pub fn read_commands(
    world: &Shared,
    engine: &Engine<CrashingRole, SimulatedStore>,
    asked: &[Given],
) -> Commands<LedgerCommand> {
    let guard = with(world, |world| world.shape.guard);
    engine.read_commands(asked.iter().map(|given| {
        let past = match (guard, given.redelivered) {
            (Guard::Informed, true) => DeliveryHistory::Redelivered,
            _ => DeliveryHistory::First,
        };
        (given.request.clone(), past)
    }))
}

/// Replies to the caller with the result of a command.
pub fn answer(world: &Shared, given: &Given, decided: CommandResult) {
    with(world, |world| {
        world.note(|| format!("answers {} with {decided:?}", given.request.id));
        match &decided {
            CommandResult::Expired => world.history.count("expired"),
            CommandResult::Ended | CommandResult::LeaseLost => panic!("it is no task"),
            CommandResult::Answer(Ok(_)) => world.history.count("replied anew"),
            CommandResult::Answer(Err(rejected)) if rejected.code == Rejection::ID_REUSED => {
                world.history.count("id reused");
            }
            CommandResult::Answer(Err(rejected)) if rejected.code == Rejection::TOO_OLD => {
                world.history.count("command too old");
            }
            CommandResult::Answer(Err(_)) => world.history.count("refused"),
        }
        if let CommandResult::Answer(answer) = &decided {
            executed::replied(world, given, answer);
        }
        world.callers.answer(given, decided);
    });
}

/// Two owners conflict now and then, but not forty times in a row: a conflict that never ends is a bug.
fn contended(world: &Shared, error: Option<StoreError>) {
    if let Some(StoreError::Unavailable { detail, .. }) = error
        && detail.contains("in a row")
    {
        with(world, |world| world.history.violations.push(detail));
    }
}

pub fn relay(world: Shared, store: SimulatedStore) -> Actor {
    Box::pin(async move {
        let limits = limits(&world);
        let outlet = SimulatedOutlet {
            honesty: with(&world, |world| world.shape.honesty),
            world: world.clone(),
        };
        let mut rejected = relay::RejectedRows::default();
        loop {
            step().await;
            // A failed store is retried.
            let _ = relay::relay_once(
                &store,
                &outlet,
                RelayBatch::Rows(limits.relay_rows),
                &mut rejected,
                || now(&world),
            )
            .await;
        }
    })
}

/// No backoff of the engine or the relay is longer.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Returns whether an operator replays a dead letter. Excludes one that may have been applied before its id was pruned.
pub fn may_replay(world: &Shared, dead: &DeadLetter) -> bool {
    dead.reason != "too old to tell" || !with(world, |world| world.shape.jumps)
}

/// Prunes by the clock without checking it, and makes rows due that were deferred too far.
pub fn housekeeper(world: Shared, store: SimulatedStore) -> Actor {
    Box::pin(async move {
        let limits = Limits::default();
        loop {
            step().await;
            let at = now(&world);
            let _ = store.prune_seen(limits.oldest_seen(at), 3).await;
            let _ = store.prune_replies(limits.oldest_reply(at), 3).await;
            let beyond = at.checked_add(MAX_BACKOFF).unwrap();
            let _ = store.clamp_due_times(at, beyond).await;
            let soon = at.checked_add(MAX_TASK_BACKOFF).unwrap();
            let _ = store.clamp_task_times(at, soon).await;
        }
    })
}

/// An operator, who replays, skips, does both at once to the same dead letter, and now and then skips a gap.
pub fn operator(world: Shared, store: SimulatedStore) -> Actor {
    Box::pin(async move {
        loop {
            step().await;
            let (choice, rng) = with(&world, |world| (world.rng.below(16), world.rng.fork()));
            if choice == 0 {
                let _ = step_over_a_gap(&world, &store).await;
                continue;
            }
            let decides = with(&world, |world| world.shape.tasks && world.rng.one_in(4));
            if decides {
                decide_a_task(&world, &store).await;
                continue;
            }
            let Ok(dead) = store.dead_letters(DeadLetterFilter::All, None, 8).await else {
                continue;
            };
            if dead.is_empty() {
                continue;
            }
            let dead = with(&world, |world| world.rng.pick(&dead).clone());
            match choice {
                1..8 if !may_replay(&world, &dead) => {}
                1..8 => drop(operate::replay(&store, &dead.id, now(&world)).await),
                8..11 => drop(operate::skip(&store, &dead.id, now(&world)).await),
                _ if !may_replay(&world, &dead) => {}
                _ => both(&world, &store, &dead, rng).await,
            }
        }
    })
}

/// Decides about any live task.
async fn decide_a_task(world: &Shared, store: &SimulatedStore) {
    let Ok(tasks) = store.tasks(TaskFilter::default(), None, 8).await else {
        return;
    };
    if tasks.is_empty() {
        return;
    }
    let row = with(world, |world| world.rng.pick(&tasks).clone());
    let decision = if row.state == TaskState::Unknown {
        resolution(world)
    } else {
        TaskDecision::Cancel
    };
    let _ = operate::decide_task(store, &row.id, decision, now(world)).await;
}

/// Returns a decision about a task of unknown effect.
pub fn resolution(world: &Shared) -> TaskDecision {
    with(world, |world| match world.rng.below(4) {
        0 => TaskDecision::ResolveAsDone,
        1 => TaskDecision::ResolveAsFailed,
        2 => TaskDecision::Cancel,
        _ => TaskDecision::Retry,
    })
}

async fn step_over_a_gap(world: &Shared, store: &SimulatedStore) -> Result<(), OperateError> {
    let gaps = store.gaps(now(world), now(world), 4).await?;
    let Some(gap) = gaps.first() else {
        return Ok(());
    };
    operate::skip_gap(store, &gap.stream, gap.from, gap.to, now(world)).await
}

/// Replays and skips at once: exactly one wins, and the other learns that the dead letter is already resolved.
async fn both(
    world: &Shared,
    store: &SimulatedStore,
    dead: &DeadLetter,
    rng: super::seeded_rng::SeededRng,
) {
    let at = now(world);
    let replay: Actor<Result<(), OperateError>> = Box::pin({
        let (store, id) = (store.clone(), dead.id.clone());
        async move { operate::replay(&store, &id, at).await }
    });
    let skip: Actor<Result<(), OperateError>> = Box::pin({
        let (store, id) = (store.clone(), dead.id.clone());
        async move { operate::skip(&store, &id, at).await }
    });
    let was_open = dead.status == doorstep_store::DeadLetterStatus::Open;
    let rescheduled = |world: &Environment| world.history.counts.get("replay put off").copied();
    let before = with(world, |world| rescheduled(world));
    let (replay, skip) = race(rng, replay, skip).await;
    with(world, |world| {
        world.history.count("replay against skip");
        let won = usize::from(replay.is_ok()) + usize::from(skip.is_ok());
        let failed = [&replay, &skip]
            .iter()
            .any(|r| matches!(r, Err(OperateError::Store(_))));
        // There is one operator, so no other can have resolved it. Only a failure of the store leaves the winner open.
        // A dead letter that waits for another stream can be skipped, and may be applied by itself meanwhile.
        // So can one that was put off after the replay has won.
        let most = 1 + usize::from(rescheduled(world) != before);
        let expected = usize::from(was_open)..=most;
        if !expected.contains(&won) && !failed {
            let id = &dead.id;
            world.history.violations.push(format!(
                "of replay and skip of {id} {won} have won: {replay:?}, {skip:?}"
            ));
        }
    });
}
