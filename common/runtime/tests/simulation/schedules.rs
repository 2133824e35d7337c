//! One schedule: its seed decides the moves, crashes and failures; then all faults end, the rest is drained, and
//! everything is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use doorstep_event::EventId;
use doorstep_runtime::{
    Engine, Limits,
    operate::{self, OperateError},
    relay::{self, RelayBatch},
};
use doorstep_store::{DeadLetterFilter, MemoryStore, Store, TaskFilter, TaskState};

use super::{
    actors,
    callers::Callers,
    checker,
    crashing_role::{CrashingRole, lethal},
    executor::{Actor, advance, finish},
    input::Input,
    queue::{Queue, Return},
    seeded_rng::SeededRng,
    shape::Shape,
    task_runner::{MAX_TASK_BACKOFF, TaskRunner},
    world::{Environment, Shared, SimulatedOutlet, now, with},
    yielding_store::{Steps, YieldingStore},
};

/// The maximum of rounds of draining; a correct engine needs a fraction of it.
const ROUNDS: usize = 400;

/// Runs a schedule. Returns the number of occurrences of each situation.
///
/// # Errors
/// The violations, with the trace if the shape asks for one.
pub fn run(shape: &Shape) -> Result<BTreeMap<String, usize>, Vec<String>> {
    lethal(shape.deaths, shape.task_deaths);
    let mut rng = SeededRng::new(shape.seed);
    let world = world(shape, &mut rng);
    Schedule::new(world.clone(), shape.clone(), rng).run();
    let drained = drain(&world);
    with(&world, |world| {
        let mut wrong: Vec<_> = drained.err().into_iter().collect();
        wrong.extend(checker::drained(world));
        if wrong.is_empty() {
            return Ok(std::mem::take(&mut world.history.counts));
        }
        wrong.append(&mut world.trace);
        Err(wrong)
    })
}

fn world(shape: &Shape, rng: &mut SeededRng) -> Shared {
    let clock = "2026-11-23T10:00:00Z".parse().unwrap();
    let source = doorstep_event::Source::new("ledger/simulated").unwrap();
    let prefetch = rng.between(1, 20);
    Arc::new(Mutex::new(Environment {
        clock,
        ahead: Duration::ZERO,
        input: Input::new(&mut rng.fork(), clock, shape.events, shape.tasks),
        callers: Callers::new(&mut rng.fork(), clock, shape),
        rng: rng.fork(),
        shape: shape.clone(),
        faulty: true,
        queue: Queue::new(2, prefetch),
        history: super::history::History::default(),
        published: Vec::new(),
        store: MemoryStore::with_source(source),
        moving: String::new(),
        trace: Vec::new(),
        died: false,
        monotonic: Duration::ZERO,
        base: std::time::Instant::now(),
        processes: 0,
        alive: BTreeSet::new(),
        outside: Vec::new(),
        tokens: BTreeMap::new(),
    }))
}

/// The parties that can move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Owner(usize),
    Relay,
    Operator,
    Housekeeper,
}

struct Schedule {
    world: Shared,
    shape: Shape,
    rng: SeededRng,
    actors: Vec<(Who, Actor)>,
    /// An actor that stands still, and for how many moves.
    suspended: (usize, usize),
}

impl Schedule {
    fn new(world: Shared, shape: Shape, rng: SeededRng) -> Self {
        let mut who = vec![Who::Owner(0), Who::Relay];
        who.extend(shape.second_owner.then_some(Who::Owner(1)));
        who.extend(shape.second_relay.then_some(Who::Relay));
        who.extend(shape.operator.then_some(Who::Operator));
        who.extend(shape.jumps.then_some(Who::Housekeeper));
        let mut schedule = Self {
            world,
            shape,
            rng,
            actors: Vec::new(),
            suspended: (0, 0),
        };
        schedule.actors = who.into_iter().map(|w| (w, schedule.start(w))).collect();
        schedule
    }

    fn start(&self, who: Who) -> Actor {
        let world = self.world.clone();
        let store = store(&world);
        match who {
            Who::Owner(number) => actors::owner(world, store, number, self.shape.settling),
            Who::Relay => actors::relay(world, store),
            Who::Operator => actors::operator(world, store),
            Who::Housekeeper => actors::housekeeper(world, store),
        }
    }

    fn run(&mut self) {
        for _ in 0..self.shape.moves {
            match self.rng.below(60) {
                0..4 if !self.shape.slow_input || self.rng.one_in(4) => self.publish(),
                4..8 => {
                    with(&self.world, |world| world.queue.arrive());
                }
                8..10 => {
                    let milliseconds = match self.rng.below(30) {
                        0 => 20_000,
                        1..8 => self.rng.below(6_000),
                        _ => self.rng.below(300),
                    };
                    with(&self.world, |world| world.advance_clock(milliseconds));
                }
                10 if self.shape.cuts => {
                    let owner = self.rng.below(2);
                    self.cut(owner);
                }
                11 if self.shape.crashes && (!self.shape.slow_input || self.rng.one_in(4)) => {
                    self.crash();
                }
                12 if self.shape.jumps => self.set_clock(),
                13 | 14 if self.shape.slow_holders => self.suspend(),
                _ => self.move_one(),
            }
        }
    }

    fn publish(&mut self) {
        let most = self.rng.between(1, 4);
        with(&self.world, |world| {
            for _ in 0..most {
                if let Some(incoming) = world.input.to_publish.pop() {
                    world.note(|| format!("publish {incoming:?}"));
                    world.queue.publish(incoming);
                }
            }
            let owner = world.rng.below(2);
            world.queue.push(owner);
            if world.rng.one_in(2) {
                let clock = world.clock;
                world.callers.call(&mut world.rng, clock);
            }
        });
    }

    fn move_one(&mut self) {
        let index = self.rng.below(self.actors.len());
        if self.suspended.1 > 0 {
            self.suspended.1 -= 1;
            if self.rng.one_in(20) {
                with(&self.world, |world| world.advance_clock(1_000));
            }
            if self.suspended.0 == index {
                return;
            }
        }
        let (who, actor) = &mut self.actors[index];
        with(&self.world, |world| {
            if world.shape.traced {
                world.moving = format!("{who:?} {index}");
            }
        });
        // None of the actors ever ends by itself.
        assert!(advance(actor).is_none());
        let who = *who;
        if with(&self.world, |world| std::mem::take(&mut world.died)) {
            if let Who::Owner(number) = who {
                self.cut(number);
            }
            self.actors[index].1 = self.start(who);
        }
    }

    /// Suspends an actor, while time passes for the others.
    fn suspend(&mut self) {
        let index = self.rng.below(self.actors.len());
        let running = TaskFilter {
            state: Some(TaskState::Running),
            ..TaskFilter::default()
        };
        let store = with(&self.world, |world| world.store.clone());
        let runs = !finish(store.tasks(running, None, 1)).unwrap().is_empty();
        if runs && self.suspended.1 == 0 && matches!(self.actors[index].0, Who::Owner(_)) {
            self.suspended = (index, self.rng.between(50, 300));
            with(&self.world, |world| {
                world.history.count("suspended");
                world.note(|| format!("suspend {index}"));
            });
        }
    }

    fn cut(&mut self, owner: usize) {
        let to = if self.rng.one_in(2) {
            Return::ToFront
        } else {
            Return::ToBack
        };
        with(&self.world, |world| {
            world.history.count("cut");
            world
                .note(|| format!("cut the channel of owner {owner}, its deliveries return {to:?}"));
            world.queue.cut(owner, to);
            world.callers.cut(owner);
        });
    }

    /// Sets the clock of the role's processes ahead by days, or right.
    fn set_clock(&mut self) {
        let days = self.rng.below(3) * self.rng.between(2, 12);
        with(&self.world, |world| {
            world.history.count("clock set");
            world.note(|| format!("the clock is {days} days ahead"));
            world.ahead = Duration::from_hours(24) * days as u32;
        });
    }

    fn crash(&mut self) {
        let index = self.rng.below(self.actors.len());
        let who = self.actors[index].0;
        with(&self.world, |world| {
            world.history.count("crash");
            world.note(|| format!("crash {who:?} {index}"));
        });
        if let Who::Owner(number) = who {
            self.cut(number);
        }
        self.actors[index].1 = self.start(who);
    }
}

fn store(world: &Shared) -> actors::SimulatedStore {
    let (memory, bug) = with(world, |world| (world.store.clone(), world.shape.bug));
    YieldingStore::new(memory, world.clone(), bug, Steps::Around)
}

/// Ends all faults, and lets one owner, one relay and one operator finish the rest. No sweep runs.
fn drain(world: &Shared) -> Result<(), String> {
    with(world, |world| {
        world.faulty = false;
        world.ahead = Duration::ZERO;
        world.moving = "drain".into();
        world.queue.cut(0, Return::ToFront);
        world.queue.cut(1, Return::ToFront);
        world.callers.cut(0);
        world.callers.cut(1);
        // Callers without a final result call once more.
        world.callers.begin_anew();
        // Acks that are still on their way arrive too late.
        while world.queue.arrive() {}
        while let Some(incoming) = world.input.to_publish.pop() {
            world.queue.publish(incoming);
        }
    });
    let store = store(world);
    let right = now(world);
    let beyond = right.checked_add(actors::MAX_BACKOFF).unwrap();
    finish(store.clamp_due_times(right, beyond)).map_err(|e| e.to_string())?;
    let soon = right.checked_add(MAX_TASK_BACKOFF).unwrap();
    finish(store.clamp_task_times(right, soon)).map_err(|e| e.to_string())?;
    let engine = actors::engine(world, store.clone(), actors::limits(world));
    let limits = actors::limits(world);
    let mut drain = Drain {
        engine,
        runner: TaskRunner::new(world, store.clone(), limits.max_crashes),
        limits,
        outlet: SimulatedOutlet {
            honesty: with(world, |world| world.shape.honesty),
            world: world.clone(),
        },
        world: world.clone(),
        replayed: BTreeSet::new(),
        store,
    };
    for _ in 0..ROUNDS {
        if drain.round().map_err(|e| format!("draining failed: {e}"))? {
            return Ok(());
        }
    }
    Err("it cannot be drained".into())
}

struct Drain {
    world: Shared,
    store: actors::SimulatedStore,
    engine: Engine<CrashingRole, actors::SimulatedStore>,
    runner: TaskRunner,
    limits: Limits,
    outlet: SimulatedOutlet,
    /// The ids of replayed events.
    replayed: BTreeSet<EventId>,
}

impl Drain {
    /// Does everything that is possible now. Returns whether nothing is left.
    fn round(&mut self) -> Result<bool, OperateError> {
        while let Some((generation, tag, messages)) =
            with(&self.world, |world| world.queue.take(0, 7))
        {
            let mut batch = actors::read(&self.world, &self.engine, &messages);
            while !batch.is_done() {
                let at = now(&self.world);
                let Some(worked) = survive(&self.world, self.engine.process(&mut batch, at, 0.5))
                else {
                    self.start_again();
                    return Ok(false);
                };
                worked?;
            }
            with(&self.world, |world| {
                checker::settled(world, &messages);
                world.queue.send_ack(0, generation, tag);
                while world.queue.arrive() {}
            });
        }
        if !self.execute()? {
            return Ok(false);
        }
        for _ in 0..ROUNDS {
            let at = now(&self.world);
            let Some(worked) = survive(&self.world, self.engine.process_due(at, 0.5)) else {
                self.start_again();
                return Ok(false);
            };
            if worked?.is_none() {
                break;
            }
        }
        for _ in 0..ROUNDS {
            let relayed = finish(relay::relay_once(
                &self.store,
                &self.outlet,
                RelayBatch::Rows(self.limits.relay_rows),
                &mut relay::RejectedRows::default(),
                || now(&self.world),
            ))?;
            if relayed.published == 0 {
                break;
            }
        }
        if !self.work_tasks()? {
            return Ok(false);
        }
        self.settle_the_dead()?;
        let memory = with(&self.world, |world| world.store.clone());
        let summary = finish(memory.summary(now(&self.world)))?;
        let usage = summary.usage;
        let left = usage.deferred.rows
            + usage.dead_letters.rows
            + usage.outbox.rows
            + usage.timers.rows
            + usage.tasks.rows;
        if left == 0 {
            return Ok(with(&self.world, |world| {
                world.callers.call_the_rest(world.clock)
            }));
        }
        let next_due = finish(memory.next_due())?;
        with(&self.world, |world| match next_due {
            Some(due) if summary.usage.outbox.rows == 0 && usage.tasks.rows == 0 => {
                world.clock = world.clock.max(due);
            }
            _ => world.advance_clock(1_000),
        });
        Ok(false)
    }

    /// Executes waiting commands. Returns whether the process is still alive.
    fn execute(&mut self) -> Result<bool, OperateError> {
        loop {
            let asked = with(&self.world, |world| world.callers.take(0, 5));
            if asked.is_empty() {
                return Ok(true);
            }
            let mut commands = actors::read_commands(&self.world, &self.engine, &asked);
            while !commands.is_done() {
                let at = now(&self.world);
                let worked = survive(&self.world, self.engine.execute(&mut commands, at, 0.5));
                let Some(worked) = worked else {
                    self.start_again();
                    return Ok(false);
                };
                worked?;
                for (place, decided) in commands.take_decided() {
                    actors::answer(&self.world, &asked[place], decided);
                }
            }
        }
    }

    /// Runs tasks, decides their ends, and settles those of unknown effect. Returns whether the process is still alive.
    fn work_tasks(&mut self) -> Result<bool, OperateError> {
        if !with(&self.world, |world| world.shape.tasks) {
            return Ok(true);
        }
        if survive(&self.world, self.runner.work_off()).is_none() {
            self.start_again();
            return Ok(false);
        }
        let ends = self.runner.ends.clone();
        let mut commands = self.engine.read_commands([]).with_ends(ends.clone());
        while !commands.is_done() {
            let at = now(&self.world);
            let worked = survive(&self.world, self.engine.execute(&mut commands, at, 0.5));
            let Some(worked) = worked else {
                self.start_again();
                return Ok(false);
            };
            worked?;
            for (place, decided) in commands.take_decided() {
                self.runner.decided(place, &ends, &decided);
            }
        }
        let filter = TaskFilter {
            state: Some(TaskState::Unknown),
            ..TaskFilter::default()
        };
        for row in finish(self.store.tasks(filter, None, 100))? {
            let decision = actors::resolution(&self.world);
            let decided = operate::decide_task(&self.store, &row.id, decision, now(&self.world));
            finish(decided).map_err(|e| OperateError::Busy(e.to_string()))?;
        }
        Ok(true)
    }

    /// Restarts after a crash: its deliveries come back to another process.
    fn start_again(&mut self) {
        with(&self.world, |world| {
            world.queue.cut(0, Return::ToFront);
            world.callers.cut(0);
        });
        let limits = self.limits.clone();
        self.runner = TaskRunner::new(&self.world, self.store.clone(), limits.max_crashes);
        self.engine = actors::engine(&self.world, self.store.clone(), limits);
    }

    /// Replays each dead letter once, now that everything has come, and skips those that are rejected again.
    fn settle_the_dead(&mut self) -> Result<(), OperateError> {
        for dead in finish(self.store.dead_letters(DeadLetterFilter::All, None, 1_000))? {
            if dead.status != doorstep_store::DeadLetterStatus::Open {
                continue;
            }
            let event = dead.event.as_ref();
            let again = event
                .filter(|_| actors::may_replay(&self.world, &dead))
                .is_some_and(|event| self.replayed.insert(event.id.clone()));
            let now = now(&self.world);
            if again {
                match finish(operate::replay(&self.store, &dead.id, now)) {
                    Err(OperateError::NotReplayable { .. }) => {}
                    other => {
                        other?;
                        continue;
                    }
                }
            }
            finish(operate::skip(&self.store, &dead.id, now))?;
        }
        Ok(())
    }
}

/// Lets an actor move until it has ended, or was crashed by an event.
fn survive<T>(world: &Shared, actor: impl Future<Output = T>) -> Option<T> {
    let mut actor = std::pin::pin!(actor);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = actor.as_mut().poll(&mut context) {
            return Some(result);
        }
        if with(world, |world| std::mem::take(&mut world.died)) {
            return None;
        }
    }
}

/// Runs schedules from a shape for each of these seeds. Panics at the first failure, having simplified it as far as
/// possible.
#[track_caller]
pub fn run_all(
    seeds: std::ops::Range<u64>,
    shape: impl Fn(u64) -> Shape,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let only = std::env::var(SEED).ok().map(|text| {
        text.parse::<u64>()
            .unwrap_or_else(|e| panic!("{SEED}={text} is not a seed: {e}"))
    });
    for seed in only.map_or(seeds, |seed| seed..seed + 1) {
        match run(&shape(seed)) {
            Ok(seen) => {
                for (what, times) in seen {
                    *counts.entry(what).or_default() += times;
                }
            }
            Err(_) => fail(shape(seed)),
        }
    }
    counts
}

/// The variable that makes every test here run one seed alone.
pub const SEED: &str = "DOORSTEP_SIMULATION_SEED";

#[track_caller]
fn fail(shape: Shape) -> ! {
    let seed = shape.seed;
    let mut simplest = shape;
    while let Some(simpler) = simplest.simpler().into_iter().find(|s| run(s).is_err()) {
        simplest = simpler;
    }
    let traced = Shape {
        traced: true,
        ..simplest
    };
    let wrong = run(&traced).err().unwrap_or_default().join("\n  ");
    panic!(
        "seed {seed} fails (run it alone with {SEED}={seed}); the simplest shape that fails is {traced}:\n  {wrong}"
    );
}

/// Returns the first of these seeds whose schedule fails, with its first violation.
pub fn first_failure(
    seeds: std::ops::Range<u64>,
    shape: impl Fn(u64) -> Shape,
) -> Option<(u64, String)> {
    for seed in seeds {
        if let Err(wrong) = run(&shape(seed)) {
            return Some((seed, wrong.into_iter().next().unwrap_or_default()));
        }
    }
    None
}
