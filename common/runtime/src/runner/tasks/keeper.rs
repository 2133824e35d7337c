//! The keeper of leases: heartbeats with progress and checkpoints.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use doorstep_event::Timestamp;
use doorstep_store::{Beat, Result, Store, TaskHolder, TaskProgress, TaskToken};
use futures_util::future::BoxFuture;

use super::{Called, attempt::Attempt, held::HeldTasks};
use crate::{
    Limits,
    engine::tasks::OwnLeases,
    runner::Liveness,
    task::{SaveCheckpoint, StopReason},
};

/// The delay after a heartbeat that has failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The leases of this process, and the checkpoints that wait for the next heartbeat. One heartbeat at a time is
/// written; the checkpoints that come meanwhile share the next one.
#[derive(Debug)]
pub(super) struct LeaseKeeper {
    pub(super) own: OwnLeases,
    waiting: Vec<SaveCheckpoint>,
    is_beating: bool,
    /// Set once a commit of this process may have cancelled a task: the next heartbeat tells.
    is_hurried: bool,
    /// The beginning of the last heartbeat, successful or not.
    last: Option<Instant>,
    /// Set after a failure: the time of the next attempt.
    retry_at: Option<Instant>,
}

impl LeaseKeeper {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            own: OwnLeases::new(limits.task_lease),
            waiting: Vec::new(),
            is_beating: false,
            is_hurried: false,
            last: None,
            retry_at: None,
        }
    }

    /// Takes a checkpoint for the next heartbeat. It is refused, by dropping it, unless its attempt works.
    pub(super) fn save(&mut self, ask: SaveCheckpoint, held: &mut HeldTasks) {
        let mut attempts = held.attempts();
        if attempts.any(|(lease, attempt)| lease.token == ask.token && attempt.is_working()) {
            self.waiting.push(ask);
        }
    }

    /// Makes the next heartbeat due as soon as one with progress would be.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// Returns the time of the next heartbeat, `None` if there is nothing to keep or one is being written.
    pub(super) fn next(
        &self,
        held: &mut HeldTasks,
        limits: &Limits,
        now: Instant,
    ) -> Option<Instant> {
        let regular = self.own.next_beat()?;
        if self.is_beating || held.len() == 0 {
            return None;
        }
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if !self.waiting.is_empty() {
            return Some(now);
        }
        let has_news = |(_, attempt): (_, &mut Attempt)| self.is_hurried || attempt.has_progress();
        if !held.attempts().any(has_news) {
            return Some(regular);
        }
        let pace = limits.task_progress_interval;
        Some(self.last.map_or(now, |last| regular.min(last + pace)))
    }

    /// Begins a heartbeat.
    pub(super) fn beat<S: Store>(
        &mut self,
        store: &S,
        holder: TaskHolder,
        held: &mut HeldTasks,
        liveness: &Arc<Liveness>,
    ) -> BoxFuture<'static, Called> {
        let saves = std::mem::take(&mut self.waiting);
        let newest = |token: TaskToken| -> Option<Bytes> {
            let mut of_task = saves.iter().rev().filter(|ask| ask.token == token);
            of_task.next().map(|ask| ask.checkpoint.clone())
        };
        let mut progress = Vec::new();
        for (lease, attempt) in held.attempts() {
            if attempt.is_lost() {
                continue;
            }
            let report = attempt.take_progress();
            progress.push(TaskProgress {
                id: lease.row.id.clone(),
                token: lease.token,
                done: report.done,
                total: report.total,
                note: report.note,
                checkpoint: newest(lease.token),
            });
        }
        self.is_beating = true;
        self.is_hurried = false;
        let began = Instant::now();
        self.last = Some(began);
        let (store, liveness) = (store.clone(), Arc::clone(liveness));
        Box::pin(async move {
            let _step = liveness.tasks.step();
            let result = store.beat_tasks(holder, progress, Timestamp::now()).await;
            Called::Beaten {
                began,
                saves,
                result,
            }
        })
    }

    /// Takes in the outcome of a heartbeat.
    pub(super) fn beaten(
        &mut self,
        began: Instant,
        saves: Vec<SaveCheckpoint>,
        result: &Result<Beat>,
        held: &mut HeldTasks,
        limits: &Limits,
    ) {
        self.is_beating = false;
        let now = Instant::now();
        let Ok(beat) = result else {
            // They may be written or not; each is written again.
            self.waiting.splice(0..0, saves);
            self.waiting.retain(|ask| !ask.saved.is_closed());
            self.retry_at = Some(now + RETRY_DELAY.min(self.own.interval()));
            return;
        };
        self.retry_at = None;
        if beat.alive {
            self.own.renew(began);
        } else {
            self.own.lose();
            self.waiting.clear();
        }
        held.lose(now, |lease| {
            !beat.alive || beat.lost.contains(&lease.row.id)
        });
        for (lease, attempt) in held.attempts() {
            if beat.cancelled.contains(&lease.row.id) {
                attempt.stop(StopReason::Cancelled, now + limits.task_stop_grace);
            }
        }
        for ask in saves {
            let mut attempts = held.attempts();
            let is_held =
                attempts.any(|(lease, attempt)| lease.token == ask.token && !attempt.is_lost());
            if is_held {
                // The attempt may have been dropped meanwhile.
                let _ = ask.saved.send(());
            }
        }
    }
}
