//! The executor's calls of the store: claims, heartbeats, returned leases, and the watch over other processes.

use std::time::{Duration, Instant};

use doorstep_event::Timestamp;
use doorstep_store::{
    ClaimTasks, Claimed, Commit, HolderRow, LeasedTask, Result, Store, StoreError, TaskChange,
    TaskEnd, TaskFate, TaskHolder, TaskToken, WriteSet,
};

use super::{
    Called, Executor,
    attempt::Attempt,
    ends::max_held,
    held::{Held, TaskStage},
};
use crate::{
    engine::tasks::{LeaseStatus, TaskStep, first_step},
    task::{TaskContext, TaskFinish},
};

/// The delay after a failure to give a lease back.
const RETRY_DELAY: Duration = Duration::from_millis(250);

impl<S: Store> Executor<S> {
    /// Begins the calls that are due.
    pub(super) fn begin_calls(&mut self, now: Instant) {
        let limits = &self.settings.limits;
        if self
            .keeper
            .next(&mut self.held, limits, now)
            .is_some_and(|due| due <= now)
        {
            let beat = self
                .keeper
                .beat(&self.store, self.holder, &mut self.held, &self.liveness);
            self.calls.push(beat);
        }
        self.return_leases(now);
        if self.claims.at <= now && self.may_claim(now) {
            self.claim(now);
        }
        if self.watch_at <= now && !self.is_watching && self.stopping.is_none() {
            self.is_watching = true;
            let store = self.store.clone();
            self.calls.push(Box::pin(async move {
                let began = Instant::now();
                let result = store.task_holders().await;
                Called::Watched {
                    began,
                    ended: Instant::now(),
                    result,
                }
            }));
        }
    }

    /// Takes in the outcome of a call.
    pub(super) fn called(&mut self, called: Called) {
        match called {
            Called::Claimed {
                began,
                room,
                result,
            } => self.claimed(began, room, result),
            Called::Beaten {
                began,
                saves,
                result,
            } => {
                let limits = &self.settings.limits;
                self.keeper
                    .beaten(began, saves, &result, &mut self.held, limits);
                self.note(&result);
            }
            Called::Returned(results) => self.returned(results),
            Called::Watched {
                began,
                ended,
                result,
            } => self.watched(began, ended, result),
            Called::TookOver(results) => self.took_over(results),
        }
    }

    /// Logs the reasons of a store outage once each.
    fn note<T>(&mut self, result: &Result<T>) {
        match result {
            Ok(_) => self.outage.clear(),
            Err(error) => self.note_failure(error),
        }
    }

    fn note_failure(&mut self, error: &StoreError) {
        if self.outage.is_new(&error.to_string()) {
            self.meters.unavailable(error);
        }
    }

    /// Returns whether tasks may be claimed. A claim renews all leases, so it must not come after their end while code
    /// runs under them.
    fn may_claim(&self, now: Instant) -> bool {
        let holds = self.keeper.own.status(now) == LeaseStatus::Held;
        !self.claims.is_claiming
            && self.stopping.is_none()
            && self.trial_since.is_none()
            && self.held.len() <= max_held(&self.settings.limits)
            && (holds || self.held.working() == 0)
    }

    fn claim(&mut self, now: Instant) {
        let limits = &self.settings.limits;
        if self.running.is_none() {
            self.running = self.settings.process.try_run_tasks();
        }
        if self.running.is_none() {
            self.claims.at = now + limits.task_poll_interval;
            return;
        }
        let process = &self.settings.process;
        let bounds = self.claims.bounds(&self.held, process, limits, now);
        let room = bounds.room;
        let kinds = self.set.iter();
        let ask = ClaimTasks {
            holder: self.holder,
            process: self.settings.process_name.clone(),
            now: Timestamp::now(),
            kinds: kinds
                .map(|(kind, task)| (kind.clone(), task.policy().max_running))
                .collect(),
            room,
            candidates: bounds.candidates,
            held: self.held.ids(),
        };
        self.claims.begin(now + limits.task_poll_interval);
        let store = self.store.clone();
        self.calls.push(Box::pin(async move {
            let began = Instant::now();
            let result = store.claim_tasks(ask).await;
            Called::Claimed {
                began,
                room,
                result,
            }
        }));
    }

    fn claimed(&mut self, began: Instant, room: usize, result: Result<Claimed>) {
        self.note(&result);
        let Ok(claimed) = result else {
            let poll = self.settings.limits.task_poll_interval;
            self.claims.failed(Instant::now() + poll);
            return;
        };
        self.claims.ended(claimed.candidates_due);
        if claimed.tasks.is_empty() {
            return;
        }
        self.keeper.own.renew(began);
        if room > 0 {
            self.claims.soon();
        }
        for lease in claimed.tasks {
            self.take(lease);
        }
    }

    /// Begins the step with a claimed task.
    fn take(&mut self, mut lease: LeasedTask) {
        let (token, limits) = (lease.token, &self.settings.limits);
        if self.held.0.contains_key(&token) {
            return;
        }
        let is_held = self.keeper.own.status(Instant::now()) == LeaseStatus::Held;
        let may_run = is_held && self.stopping.is_none() && self.trial_since.is_none();
        let policy = self.set.get(&lease.row.kind).map(|kind| *kind.policy());
        let held = match (first_step(&lease.row, limits.max_crashes), policy) {
            (TaskStep::Direct(directive), _) => {
                Held::ending(lease, TaskFinish::Directed(directive))
            }
            (TaskStep::Poison, _) => Held::ending(lease, TaskFinish::Poison { tell: true }),
            (TaskStep::PoisonUntold, _) => Held::ending(lease, TaskFinish::Poison { tell: false }),
            (TaskStep::Run, Some(policy)) if may_run => {
                let key = format!("{}/{}", self.settings.key_prefix, lease.row.id);
                let checkpoints = self.checkpoints.0.clone();
                let states = self.states.clone();
                let context = TaskContext::new(lease.clone(), key, checkpoints, states);
                let attempt = Attempt::start(
                    &mut self.code,
                    &self.set,
                    &mut lease,
                    context,
                    policy.timeout,
                    self.settings.role,
                );
                Held {
                    lease,
                    stage: TaskStage::Running(attempt),
                    outcome: None,
                }
            }
            (TaskStep::Run, _) => Held::returning(lease, TaskFate::Release),
        };
        self.held.0.insert(token, held);
    }

    /// Commits retries and releases, one after another.
    fn return_leases(&mut self, now: Instant) {
        if self.is_returning || now < self.return_at {
            return;
        }
        let mut ends = Vec::new();
        for (token, held) in &mut self.held.0 {
            if let TaskStage::Returning { fate, is_sent } = &mut held.stage {
                *is_sent = true;
                ends.push(TaskEnd {
                    id: held.lease.row.id.clone(),
                    token: *token,
                    fate: fate.clone(),
                });
            }
        }
        if ends.is_empty() {
            return;
        }
        self.is_returning = true;
        let store = self.store.clone();
        self.calls.push(Box::pin(async move {
            let mut results = Vec::with_capacity(ends.len());
            for end in ends {
                let token = end.token;
                let mut changes = WriteSet::at(Timestamp::now());
                changes.tasks.push(TaskChange::End(end));
                results.push((token, store.commit(changes).await));
            }
            Called::Returned(results)
        }));
    }

    fn returned(&mut self, results: Vec<(TaskToken, Result<Commit>)>) {
        self.is_returning = false;
        for (token, result) in results {
            match result {
                Ok(Commit::Written(_)) => self.ended(token, None),
                // Another process has it, or an earlier commit without an answer was written.
                Ok(Commit::Conflict) => self.ended(token, Some("lost")),
                Err(error) => {
                    self.note_failure(&error);
                    self.held.set_sent(token, false);
                    self.return_at = Instant::now() + RETRY_DELAY;
                }
            }
        }
    }

    fn watched(&mut self, began: Instant, ended: Instant, result: Result<Vec<HolderRow>>) {
        self.is_watching = false;
        self.watch_at = began + self.keeper.own.interval();
        self.note(&result);
        let Ok(holders) = result else { return };
        let silent = self.watch.read(&holders, began, ended);
        if silent.is_empty() || self.stopping.is_some() {
            return;
        }
        let store = self.store.clone();
        self.calls.push(Box::pin(async move {
            let mut results = Vec::with_capacity(silent.len());
            for (holder, beat) in silent {
                let taken = store.take_over_tasks(holder, beat, Timestamp::now()).await;
                results.push((holder, taken));
            }
            Called::TookOver(results)
        }));
    }

    fn took_over(&mut self, results: Vec<(TaskHolder, Result<Option<u64>>)>) {
        for (holder, result) in results {
            self.note(&result);
            if let Ok(Some(tasks @ 1..)) = result {
                self.meters.taken_over(holder, tasks);
                self.claims.soon();
            }
        }
    }
}
