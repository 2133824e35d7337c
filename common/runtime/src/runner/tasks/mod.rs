//! The executor of a role's tasks: claims them, runs their code under leases, and brings their ends to the role's loop.
//!
//! - [`attempt`] runs the code of one task; [`held`] keeps the tasks that are leased to this process.
//! - [`keeper`] keeps the leases, and with them progress and checkpoints.
//! - [`claims`] decides what to claim; [`calls`] begins calls of the store and takes in their results.
//! - [`ends`] is the way to the role's loop and back.
//!
//! The executor is one loop, which never waits for the store: the calls go on beside it, at most one of each kind. So
//! attempts stop in time when their leases end, whatever the store does.

mod attempt;
mod calls;
mod claims;
mod ends;
mod held;
mod keeper;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_event::{Epoch, Timestamp};
use doorstep_messaging::OutageReasons;
use doorstep_store::{Beat, Claimed, Commit, HolderRow, Result, Store, TaskHolder, TaskToken};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, OwnedRwLockReadGuard, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Liveness, shutdown::Shutdown, wall_clock::WallClock};
use crate::{
    HandlerLock, Limits,
    engine::tasks::{LeaseWatch, NextStep, next_step},
    task::{ReadStates, SaveCheckpoint, StopReason, TaskFinish, TaskPolicy, TaskSet},
    telemetry::TaskInstruments,
};
use attempt::{CodeEnd, Finish};
use claims::Claims;
pub(super) use ends::{Decision, QueuedEnd, channel};
use held::{HeldTasks, TaskStage};
use keeper::LeaseKeeper;

/// The resolution of the executor's timers.
const TIMER_STEP: Duration = Duration::from_millis(5);
/// The time before the shutdown timeout is over at which running attempts are dropped.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// The facts of an executor.
pub(super) struct ExecutorSettings {
    pub(super) role: &'static str,
    /// The beginning of every idempotency key, `NAMESPACE.ROLE`.
    pub(super) key_prefix: String,
    /// A description of the process for operators.
    pub(super) process_name: String,
    pub(super) epoch: Epoch,
    pub(super) limits: Limits,
    pub(super) process: HandlerLock,
}

/// The outcome of a call of the store.
enum Called {
    Claimed {
        began: Instant,
        room: usize,
        result: Result<Claimed>,
    },
    Beaten {
        began: Instant,
        saves: Vec<SaveCheckpoint>,
        result: Result<Beat>,
    },
    Returned(Vec<(TaskToken, Result<Commit>)>),
    Watched {
        began: Instant,
        ended: Instant,
        result: Result<Vec<HolderRow>>,
    },
    TookOver(Vec<(TaskHolder, Result<Option<u64>>)>),
}

/// The stop of the executor.
#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// The time at which attempts are dropped.
    drop_at: Instant,
    /// The time from which nothing is waited for any more.
    release_at: Instant,
}

/// The executor of a role's tasks in one process.
pub(super) struct Executor<S: Store> {
    settings: ExecutorSettings,
    store: S,
    set: Arc<TaskSet>,
    holder: TaskHolder,
    states: Arc<dyn ReadStates>,
    meters: TaskInstruments,
    liveness: Arc<Liveness>,
    wall: WallClock,
    held: HeldTasks,
    /// The code of all attempts.
    code: JoinSet<CodeEnd>,
    keeper: LeaseKeeper,
    claims: Claims,
    /// The way to the role's loop, until no further end will come.
    ends: Option<mpsc::Sender<QueuedEnd>>,
    decisions: FuturesUnordered<BoxFuture<'static, (TaskToken, Option<Decision>)>>,
    calls: FuturesUnordered<BoxFuture<'static, Called>>,
    checkpoints: (mpsc::Sender<SaveCheckpoint>, mpsc::Receiver<SaveCheckpoint>),
    is_returning: bool,
    /// The time from which leases are given back, after a failure.
    return_at: Instant,
    watch: LeaseWatch,
    is_watching: bool,
    watch_at: Instant,
    trials: watch::Receiver<usize>,
    /// Set while an event is tried alone in this process, or waits for that.
    trial_since: Option<Instant>,
    /// Keeps trials from beginning.
    running: Option<OwnedRwLockReadGuard<()>>,
    stopping: Option<Stopping>,
    outage: OutageReasons,
}

impl<S: Store> Executor<S> {
    pub(super) fn new(
        settings: ExecutorSettings,
        store: S,
        set: Arc<TaskSet>,
        ends: mpsc::Sender<QueuedEnd>,
        liveness: Arc<Liveness>,
    ) -> Self {
        let now = Instant::now();
        let holder = TaskHolder(settings.epoch);
        let limits = &settings.limits;
        Self {
            holder,
            states: Arc::new(store.clone()),
            meters: TaskInstruments::new(settings.role),
            liveness,
            wall: WallClock::new(Timestamp::now(), now),
            held: HeldTasks::default(),
            code: JoinSet::new(),
            keeper: LeaseKeeper::new(limits),
            claims: Claims::new(now),
            ends: Some(ends),
            decisions: FuturesUnordered::new(),
            calls: FuturesUnordered::new(),
            checkpoints: mpsc::channel(limits.running_tasks.max(1)),
            is_returning: false,
            return_at: now,
            watch: LeaseWatch::new(holder, limits.task_lease),
            is_watching: false,
            watch_at: now,
            trials: settings.process.watch_trials(),
            trial_since: None,
            running: None,
            stopping: None,
            outage: OutageReasons::default(),
            settings,
            store,
            set,
        }
    }

    /// Runs tasks until the role stops or its loop has ended. Then stops them, and gives their leases back. `changed` tells
    /// of commits of this process that have changed tasks.
    pub(super) async fn run(
        mut self,
        changed: Arc<Notify>,
        mut stop: Shutdown,
        mut loop_ended: watch::Receiver<bool>,
    ) {
        loop {
            let now = Instant::now();
            self.advance(now);
            if self.is_done(now) {
                break;
            }
            let wake = self.next_wake(now).max(now + TIMER_STEP);
            let is_working = self.stopping.is_none();
            // Each may be cancelled: calls, decisions and attempts stay in their sets, the others in their channels.
            tokio::select! {
                () = stop.requested(), if is_working => self.stop(&stop),
                _ = loop_ended.wait_for(|ended| *ended), if is_working => self.stop(&stop),
                Some(called) = self.calls.next() => self.called(called),
                Some((token, decision)) = self.decisions.next() => self.decided(token, decision),
                Some(ended) = self.code.join_next() => match ended {
                    Ok(ended) => self.code_ended(ended),
                    // A bug: panics of a task's code are caught.
                    Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
                },
                Some(ask) = self.checkpoints.1.recv() => self.keeper.save(ask, &mut self.held),
                () = changed.notified() => {
                    self.claims.soon();
                    self.keeper.hurry();
                }
                _ = self.trials.changed() => self.trials_changed(),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            // A store in memory never waits, and neither would this loop.
            tokio::task::consume_budget().await;
        }
        self.release(stop.time_remaining()).await;
    }

    /// Begins everything that is due.
    fn advance(&mut self, now: Instant) {
        self.wall.read(Timestamp::now(), now);
        let own = &self.keeper.own;
        let dropped = self.held.follow_leases(own.status(now), own.end(), now);
        if dropped > 0 {
            self.meters.leases_ended(dropped);
        }
        let grace = self.settings.limits.task_stop_grace;
        if let Some(since) = self.trial_since {
            self.held.stop_all(StopReason::Shutdown, since + grace);
        }
        if let Some(stopping) = self.stopping {
            self.held.stop_all(StopReason::Shutdown, stopping.drop_at);
        }
        self.held.advance(now, &self.settings.limits);
        self.send_ends();
        self.begin_calls(now);
        self.claims.release_permit(&self.held);
        // A trial waits no longer for code that blocks its thread, or for a store that fails.
        let is_overdue = self
            .trial_since
            .is_some_and(|since| now >= since + 2 * grace);
        if is_overdue || !(self.claims.is_claiming || self.held.is_busy()) {
            self.running = None;
        }
    }

    fn next_wake(&mut self, now: Instant) -> Instant {
        let limits = &self.settings.limits;
        let poll = now + limits.task_poll_interval;
        let beat = self.keeper.next(&mut self.held, limits, now);
        let own = &self.keeper.own;
        let lease_end = own.end().filter(|end| *end > now);
        let leases_end_soon = lease_end.map(|end| end - own.interval());
        let stop = self.stopping.map(|stopping| stopping.release_at);
        let times = [
            Some(self.claims.at),
            Some(self.watch_at),
            beat,
            self.held.next(),
            lease_end,
            leases_end_soon.filter(|soon| *soon > now),
            stop,
        ];
        // Anything else that is due now waits for an event, which wakes the loop as well.
        let future = times.into_iter().flatten().filter(|time| *time > now);
        future.min().map_or(poll, |time| time.min(poll))
    }

    fn trials_changed(&mut self) {
        if *self.trials.borrow_and_update() == 0 {
            self.trial_since = None;
            self.claims.soon();
        } else {
            self.trial_since.get_or_insert_with(Instant::now);
        }
    }

    /// Hands the ends that the role decides to its loop.
    fn send_ends(&mut self) {
        let Some(ends) = &self.ends else { return };
        for (finished, is_sent) in self.held.unsent_ends() {
            let token = finished.lease.token;
            let (decided, decision) = tokio::sync::oneshot::channel();
            if ends.try_send(QueuedEnd { finished, decided }).is_err() {
                // The loop is gone, or has more ends than there may be.
                return;
            }
            *is_sent = true;
            let waiting = async move { (token, decision.await.ok()) };
            self.decisions.push(Box::pin(waiting));
        }
    }

    /// Takes in the loop's decision on an end, `None` if there is none.
    fn decided(&mut self, token: TaskToken, decision: Option<Decision>) {
        match decision {
            Some(Decision::Ended) => self.ended(token, None),
            Some(Decision::LeaseLost) => self.ended(token, Some("lost")),
            None => self.held.set_sent(token, false),
        }
    }

    /// Forgets a task whose end is decided. `outcome` replaces that of its attempt.
    fn ended(&mut self, token: TaskToken, outcome: Option<&'static str>) {
        let Some(held) = self.held.0.remove(&token) else {
            return;
        };
        if let Some(own) = held.outcome {
            self.meters
                .ended(&held.lease.row.kind, outcome.unwrap_or(own));
        }
        self.claims.soon();
    }

    /// Takes in the end of an attempt's code.
    fn code_ended(&mut self, CodeEnd { token, outcome }: CodeEnd) {
        let Some(held) = self.held.0.get_mut(&token) else {
            return;
        };
        let TaskStage::Running(attempt) = &held.stage else {
            return;
        };
        let row = &held.lease.row;
        self.meters.ran(&row.kind, attempt.took());
        if attempt.is_lost() {
            held.outcome = Some("lost");
            self.ended(token, None);
            return;
        }
        let end = attempt.finish(outcome, &self.settings.limits);
        let (stage, outcome) = match end {
            Finish::Result(output) => (ending(TaskFinish::Result(output)), "done"),
            Finish::Without(end) => {
                let policy = self.set.get(&row.kind).map(|kind| *kind.policy());
                let policy = policy.unwrap_or(TaskPolicy::DEFAULT);
                let (now, is_steady) = (Timestamp::now(), self.wall.is_steady());
                let next = next_step(&policy, row, end, now, is_steady, rand::random());
                if let NextStep::Retry { error, .. } = &next {
                    self.meters.retries(&row.id, &row.kind, error);
                }
                stage_of(next)
            }
        };
        held.stage = stage;
        held.outcome = Some(outcome);
    }

    /// Begins the stop.
    fn stop(&mut self, stop: &Shutdown) {
        let now = Instant::now();
        let left = stop.time_remaining();
        // Short timeouts leave a half for each.
        let release_time = RELEASE_TIME.min(left / 2);
        self.stopping = Some(Stopping {
            drop_at: now + left - release_time,
            release_at: now + left - release_time / 2,
        });
    }

    /// Returns whether nothing is left to wait for before the leases are given back.
    fn is_done(&mut self, now: Instant) -> bool {
        let Some(stopping) = self.stopping else {
            return false;
        };
        let is_over = now >= stopping.release_at;
        let makes_ends = self.claims.is_claiming || self.held.has_code();
        if is_over || !(makes_ends || self.held.has_unsent_end()) {
            // The role's loop ends once it has decided those that it has.
            self.ends = None;
        }
        let loop_is_gone = self.ends.as_ref().is_some_and(mpsc::Sender::is_closed);
        let waits = makes_ends || self.held.is_busy() || !self.decisions.is_empty();
        let has_ends = self.held.has_unsent_end() && !loop_is_gone && self.ends.is_some();
        is_over || !(waits || has_ends)
    }

    /// Gives all leases back. If code still runs that cannot be dropped, the leases are left to be taken over.
    async fn release(mut self, left: Duration) {
        self.ends = None;
        if self.held.has_code() {
            tracing::warn!(
                role = self.settings.role,
                "code of tasks has not stopped in time: another process takes them over once their leases have ended"
            );
            return;
        }
        let ended = timeout(left, self.store.end_holder(self.holder, Timestamp::now())).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.meters.unavailable(&error),
            Err(_) => tracing::warn!(
                role = self.settings.role,
                "the store has not answered in time: leases of tasks are left to be taken over"
            ),
        }
    }
}

fn ending(finish: TaskFinish) -> TaskStage {
    TaskStage::Ending {
        finish,
        is_sent: false,
    }
}

/// Returns the stage of a task after an attempt without a result, with the label of its outcome.
fn stage_of(next: NextStep) -> (TaskStage, &'static str) {
    use doorstep_store::{TaskDirective, TaskFate};

    let returning = |fate| TaskStage::Returning {
        fate,
        is_sent: false,
    };
    match next {
        NextStep::Retry { due, error } => (returning(TaskFate::Retry { due, error }), "retried"),
        NextStep::Release => (returning(TaskFate::Release), "released"),
        NextStep::Cancelled => (
            ending(TaskFinish::Directed(TaskDirective::Cancel)),
            "cancelled",
        ),
        NextStep::Unknown { error } => (ending(TaskFinish::Unknown { error }), "unknown"),
        NextStep::Fail { gave_up, detail } => {
            (ending(TaskFinish::Failed { gave_up, detail }), "failed")
        }
    }
}

#[cfg(test)]
mod tests;
