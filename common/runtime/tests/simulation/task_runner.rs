//! The tasks of a simulated process: it claims, beats, runs, takes over and stops by the runtime's own rules, in any
//! order, on a clock of its own.

use std::time::{Duration, Instant};

use doorstep_event::{Epoch, RequestContract};
use doorstep_runtime::{
    CommandResult,
    engine::tasks::{
        AttemptEnd, LeaseStatus, LeaseWatch, NextStep, OwnLeases, TaskStep, first_step, next_step,
    },
    task::{FinishedTask, TaskFinish, TaskOutput, TaskPolicy, kind_of},
};
use doorstep_store::{
    Candidates, ClaimTasks, Commit, LeasedTask, Store, TaskChange, TaskDirective, TaskEnd,
    TaskFate, TaskFilter, TaskHolder, TaskId, TaskProgress, WriteSet,
};

use super::{
    actors::SimulatedStore,
    crashing_role::{die_of_task, stop_if_dead},
    executor::{finish, step},
    world::{Environment, Shared, now, with},
};
use crate::ledger::labor::{Labor, LaborDone, Twist};

/// The length of a lease.
const LEASE: Duration = Duration::from_secs(3);

const POLICY: TaskPolicy = TaskPolicy {
    max_running: 3,
    initial_backoff: Duration::from_millis(400),
    max_backoff: Duration::from_secs(2),
    max_attempts: Some(4),
    ..TaskPolicy::DEFAULT
};

/// The longest time by which an attempt puts its task off.
pub const MAX_TASK_BACKOFF: Duration = POLICY.max_backoff;

/// A process's tasks. Dropping it is a crash.
pub struct TaskRunner {
    world: Shared,
    store: SimulatedStore,
    holder: TaskHolder,
    /// The rate of this process's monotonic clock.
    rate: f64,
    own: OwnLeases,
    watch: LeaseWatch,
    max_crashes: u32,
    running: Vec<Attempt>,
    /// The ends that are not decided yet.
    pub ends: Vec<FinishedTask>,
}

struct Attempt {
    lease: LeasedTask,
    labor: Labor,
    /// The steps left.
    left: usize,
    done: u64,
    is_cancelled: bool,
}

impl TaskRunner {
    pub fn new(world: &Shared, store: SimulatedStore, max_crashes: u32) -> Self {
        let (holder, rate) = with(world, |world| (world.new_holder(), world.clock_rate()));
        Self {
            world: world.clone(),
            store,
            holder,
            rate,
            own: OwnLeases::new(LEASE),
            watch: LeaseWatch::new(holder, LEASE),
            max_crashes,
            running: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Takes any step.
    pub async fn work(&mut self) {
        let choice = with(&self.world, |world| world.rng.below(24));
        self.drop_ended();
        match choice {
            0..5 => self.claim().await,
            5..9 => self.beat().await,
            9..15 => self.read_holders().await,
            15 => self.stop().await,
            _ => self.run().await,
        }
    }

    /// Does everything that is possible now, but for the ends.
    pub async fn work_off(&mut self) {
        self.drop_ended();
        self.read_holders().await;
        for _ in 0..20 {
            self.beat().await;
            self.claim().await;
            while !self.running.is_empty() {
                self.run().await;
            }
        }
    }

    /// Takes in the decision on an end.
    pub fn decided(&mut self, index: usize, ends: &[FinishedTask], decided: &CommandResult) {
        let token = ends[index].lease.token;
        self.ends.retain(|end| end.lease.token != token);
        match decided {
            CommandResult::Ended => {}
            CommandResult::LeaseLost => self.count("lease lost"),
            other => panic!("{other:?} ends no task"),
        }
    }

    fn count(&self, what: &str) {
        with(&self.world, |world| world.history.count(what));
    }

    /// Returns the time by this process's monotonic clock.
    fn instant(&self) -> Instant {
        with(&self.world, |world| {
            world.base + world.monotonic.mul_f64(self.rate)
        })
    }

    fn status(&self) -> LeaseStatus {
        self.own.status(self.instant())
    }

    /// Drops attempts whose leases have ended. Code that blocks goes on all the same.
    fn drop_ended(&mut self) {
        if self.running.is_empty() || self.status() != LeaseStatus::Ended {
            return;
        }
        for attempt in std::mem::take(&mut self.running) {
            let goes_on = with(&self.world, |world| {
                world.shape.blocking_tasks && world.rng.one_in(2)
            });
            if goes_on {
                act(&self.world, &attempt.lease, Held::No);
                self.ends.push(attempt.result());
                self.count("blocked beyond its lease");
            }
        }
    }

    async fn claim(&mut self) {
        let room = 2_usize.saturating_sub(self.running.len());
        let beside_a_candidate = self.running.iter().any(|a| a.lease.row.crashes > 0);
        let is_idle = self.running.is_empty() && self.ends.is_empty();
        if room == 0 || beside_a_candidate || !(is_idle || self.status() == LeaseStatus::Held) {
            return;
        }
        let began = self.instant();
        let running = self.running.iter().map(|attempt| &attempt.lease);
        let held = running.chain(self.ends.iter().map(|end| &end.lease));
        let ask = ClaimTasks {
            holder: self.holder,
            process: "simulated".to_owned(),
            now: now(&self.world),
            kinds: vec![(kind_of::<Labor>(), POLICY.max_running)],
            room,
            candidates: if is_idle {
                Candidates::One
            } else {
                Candidates::None
            },
            held: held.map(|lease| lease.row.id.clone()).collect(),
        };
        let Ok(claimed) = self.store.claim_tasks(ask).await else {
            return;
        };
        if claimed.tasks.is_empty() {
            return;
        }
        self.own.renew(began);
        for lease in claimed.tasks {
            self.count("claimed");
            with(&self.world, |world| world.given(self.holder, &lease));
            let finish = match first_step(&lease.row, self.max_crashes) {
                TaskStep::Run => {
                    let left = with(&self.world, |world| world.rng.between(1, 8));
                    self.running.push(Attempt {
                        labor: serde_json::from_slice(&lease.row.input).unwrap(),
                        lease,
                        left,
                        done: 0,
                        is_cancelled: false,
                    });
                    continue;
                }
                TaskStep::Direct(directive) => TaskFinish::Directed(directive),
                TaskStep::Poison => TaskFinish::Poison { tell: true },
                TaskStep::PoisonUntold => {
                    with(&self.world, |world| world.untold(&lease));
                    TaskFinish::Poison { tell: false }
                }
            };
            self.ends.push(FinishedTask { lease, finish });
        }
    }

    async fn beat(&mut self) {
        if self.running.is_empty() && self.ends.is_empty() {
            return;
        }
        let began = self.instant();
        let progress = self.running.iter().map(|attempt| TaskProgress {
            id: attempt.lease.row.id.clone(),
            token: attempt.lease.token,
            done: attempt.done,
            total: 4,
            note: None,
            checkpoint: None,
        });
        let progress = progress.collect();
        let at = now(&self.world);
        let Ok(beat) = self.store.beat_tasks(self.holder, progress, at).await else {
            return;
        };
        if !beat.alive {
            self.count("found itself gone");
            self.own.lose();
            self.drop_ended();
            return;
        }
        self.own.renew(began);
        for _ in &beat.lost {
            self.count("lease lost");
        }
        let is_one_of = |ids: &[TaskId], attempt: &Attempt| ids.contains(&attempt.lease.row.id);
        self.running
            .retain(|attempt| !is_one_of(&beat.lost, attempt));
        for attempt in &mut self.running {
            attempt.is_cancelled |= is_one_of(&beat.cancelled, attempt);
        }
    }

    /// Reads the heartbeats of other processes, and takes over from those that have stopped.
    async fn read_holders(&mut self) {
        let began = self.instant();
        let Ok(holders) = self.store.task_holders().await else {
            return;
        };
        let silent = self.watch.read(&holders, began, self.instant());
        for (holder, beat) in silent {
            let taken = self.store.take_over_tasks(holder, beat, now(&self.world));
            with(&self.world, |world| world.suspected(holder));
            if matches!(taken.await, Ok(Some(1..))) {
                self.count("taken over");
            }
        }
    }

    /// Stops as a process does that is asked to, and starts as another one.
    async fn stop(&mut self) {
        if !self.ends.is_empty() {
            return;
        }
        for attempt in std::mem::take(&mut self.running) {
            self.commit_end(&attempt.lease, TaskFate::Release).await;
        }
        while self
            .store
            .end_holder(self.holder, now(&self.world))
            .await
            .is_err()
        {
            step().await;
        }
        let store = self.store.clone();
        *self = Self::new(&self.world.clone(), store, self.max_crashes);
    }

    /// Takes a step of one attempt.
    async fn run(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let index = with(&self.world, |world| world.rng.below(self.running.len()));
        let is_held = self.status() == LeaseStatus::Held;
        let attempt = &mut self.running[index];
        let obeys = !is_held || attempt.is_cancelled && with(&self.world, |w| w.rng.one_in(2));
        if obeys {
            let attempt = self.running.swap_remove(index);
            let cancelled = attempt.is_cancelled;
            self.after(attempt.lease, AttemptEnd::Stopped { cancelled })
                .await;
            return;
        }
        act(&self.world, &attempt.lease, Held::Yes);
        attempt.done += 1;
        attempt.left -= 1;
        if attempt.left > 0 {
            return;
        }
        let attempt = self.running.swap_remove(index);
        match attempt.end(&self.world) {
            None => {
                stop_if_dead(&self.world).await;
                self.ends.push(attempt.result());
            }
            Some(end) => self.after(attempt.lease, end).await,
        }
    }

    /// Takes the step after an attempt without a result.
    async fn after(&mut self, lease: LeasedTask, end: AttemptEnd) {
        let (jitter, is_steady) = with(&self.world, |world| {
            (world.rng.fraction(), !world.shape.jumps)
        });
        let at = now(&self.world);
        let finish = match next_step(&POLICY, &lease.row, end, at, is_steady, jitter) {
            NextStep::Retry { due, error } => {
                let fate = TaskFate::Retry { due, error };
                return self.commit_end(&lease, fate).await;
            }
            NextStep::Release => return self.commit_end(&lease, TaskFate::Release).await,
            NextStep::Cancelled => TaskFinish::Directed(TaskDirective::Cancel),
            NextStep::Unknown { error } => TaskFinish::Unknown { error },
            NextStep::Fail { gave_up, detail } => TaskFinish::Failed { gave_up, detail },
        };
        self.ends.push(FinishedTask { lease, finish });
    }

    /// Ends a lease without the role, under its token.
    async fn commit_end(&self, lease: &LeasedTask, fate: TaskFate) {
        let end = TaskChange::End(TaskEnd {
            id: lease.row.id.clone(),
            token: lease.token,
            fate,
        });
        loop {
            let changes = WriteSet {
                tasks: vec![end.clone()],
                ..WriteSet::at(now(&self.world))
            };
            match self.store.commit(changes).await {
                Ok(Commit::Written(_)) => return,
                Ok(Commit::Conflict) => return self.count("lease lost"),
                Err(_) => step().await,
            }
        }
    }
}

impl Attempt {
    /// Returns the end of the attempt, `None` for its result.
    fn end(&self, world: &Shared) -> Option<AttemptEnd> {
        let attempts = self.lease.row.attempts;
        let error = || "an error".to_owned();
        match self.labor.twist {
            Twist::Kills if die_of_task() => None,
            Twist::Kills => Some(AttemptEnd::Fail("it would kill".to_owned())),
            _ if attempts < self.labor.errors => Some(AttemptEnd::Retry(error())),
            Twist::Fails => Some(AttemptEnd::Fail(error())),
            Twist::Unknown if attempts == self.labor.errors => {
                with(world, |world| world.history.count("unknown effect"));
                Some(AttemptEnd::Unknown(error()))
            }
            _ => None,
        }
    }

    fn result(&self) -> FinishedTask {
        let row = &self.lease.row;
        let done = LaborDone {
            account: row.subject.to_string(),
            task: row.id.to_string(),
            by: format!("#{}", self.lease.token.0),
            twist: self.labor.twist,
        };
        FinishedTask {
            lease: self.lease.clone(),
            finish: TaskFinish::Result(TaskOutput {
                kind: LaborDone::request_type(),
                data: serde_json::to_vec(&done).unwrap().into(),
            }),
        }
    }
}

impl Drop for TaskRunner {
    fn drop(&mut self) {
        with(&self.world, |world| world.alive.remove(&self.holder));
    }
}

/// The knowledge of an attempt that acts on the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Its lease holds by its own clock.
    Yes,
    /// Its lease has ended, and nothing could stop it.
    No,
}

/// An attempt, as the world outside sees it.
#[derive(Debug)]
pub struct OutsideEffect {
    /// The task's number.
    pub number: u64,
    pub token: i64,
    /// The order of its first action among all actions.
    pub begin: usize,
    /// That of its last action under a lease that held.
    pub end: usize,
}

fn act(world: &Shared, lease: &LeasedTask, held: Held) {
    with(world, |world| {
        let outside = &mut world.outside;
        let at = outside.iter().map(|act| act.end.max(act.begin)).max();
        let at = at.unwrap_or_default() + 1;
        let (number, token) = (lease.row.number, lease.token.0);
        let is_it = |act: &&mut OutsideEffect| (act.number, act.token) == (number, token);
        match (outside.iter_mut().find(is_it), held) {
            (Some(act), Held::Yes) => act.end = at,
            (Some(_), Held::No) => {}
            (None, _) => outside.push(OutsideEffect {
                number,
                token,
                begin: at,
                end: if held == Held::Yes { at } else { 0 },
            }),
        }
        world.note(|| format!("acts for {} under {token}, held: {held:?}", lease.row.id));
    });
}

impl Environment {
    /// Returns the holder of a new process.
    fn new_holder(&mut self) -> TaskHolder {
        self.processes += 1;
        let holder = TaskHolder(Epoch::new(self.processes, 0).unwrap());
        self.alive.insert(holder);
        holder
    }

    /// Notes that the heartbeat of a process has stopped. If the process lives, its tasks are not to blame.
    fn suspected(&mut self, holder: TaskHolder) {
        if self.alive.contains(&holder) {
            let tasks = finish(self.store.tasks(TaskFilter::default(), None, 100)).unwrap();
            let running = tasks
                .into_iter()
                .filter(|row| row.lease.is_some_and(|lease| lease.holder == holder));
            let blameless = running.map(|row| row.id.to_string());
            self.history.tasks.blameless.extend(blameless);
        }
    }

    /// Notes that a task ends as poison without the role.
    fn untold(&mut self, lease: &LeasedTask) {
        let tasks = &mut self.history.tasks;
        tasks.untold.insert(lease.token.0);
        // It has run no code since, and is claimed beside any others: each of these may have crashed its process.
        if lease.row.directive.is_some() {
            tasks.blameless.insert(lease.row.id.to_string());
        }
    }

    fn clock_rate(&mut self) -> f64 {
        0.9 + 0.2 * self.rng.fraction()
    }

    /// Notes that a lease was given to a process.
    fn given(&mut self, holder: TaskHolder, lease: &LeasedTask) {
        self.note(|| format!("has {} under {}", lease.row.id, lease.token.0));
        let first = *self.tokens.entry(lease.token.0).or_insert(holder);
        if first != holder {
            let violation = format!("token {} was given twice: {lease:?}", lease.token.0);
            self.history.violations.push(violation);
        }
    }
}
