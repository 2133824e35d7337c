//! An attempt of a task: its code on a Tokio task of its own, and its end.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_messaging::trace::TaskSpan;
use doorstep_store::{LeasedTask, TaskToken};
use futures_util::FutureExt;
use tokio::{sync::oneshot, task::JoinSet};
use tracing::Instrument;

use crate::{
    Limits,
    engine::{panic_text, tasks::AttemptEnd},
    task::{ProgressReport, StopReason, TaskContext, TaskControl, TaskError, TaskOutput, TaskSet},
};

/// The maximum bytes of an error that is kept. Longer ones are cut.
const MAX_ERROR_BYTES: usize = 1024;

/// An attempt whose code runs.
#[derive(Debug)]
pub(super) struct Attempt {
    control: TaskControl,
    began: Instant,
    times_out: Instant,
    stop: Option<RequestedStop>,
    /// Drops the code; `None` once that is done.
    dropper: Option<oneshot::Sender<()>>,
    /// Set once its lease is lost: its end changes nothing.
    is_lost: bool,
}

/// The stop of an attempt.
#[derive(Debug, Clone, Copy)]
struct RequestedStop {
    reason: StopReason,
    /// The time at which the attempt is dropped.
    drop_at: Instant,
}

/// The end of an attempt's code.
#[derive(Debug)]
pub(super) struct CodeEnd {
    pub(super) token: TaskToken,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Result(TaskOutput),
    Error(TaskError),
    Panicked(String),
    Dropped,
}

/// The end of an attempt with a valid lease.
#[derive(Debug)]
pub(super) enum Finish {
    Result(TaskOutput),
    Without(AttemptEnd),
}

impl Attempt {
    /// Starts the code of a task. Its consequences continue the trace of this attempt.
    pub(super) fn start(
        spawner: &mut JoinSet<CodeEnd>,
        set: &Arc<TaskSet>,
        lease: &mut LeasedTask,
        (context, control): (TaskContext, TaskControl),
        timeout: Duration,
        role: &'static str,
    ) -> Self {
        let (dropper, mut dropped) = oneshot::channel();
        let row = &mut lease.row;
        let mut trace = TaskSpan::begin(&row.kind, row.id.as_str(), &mut row.traceparent);
        let span = tracing::info_span!("task", role, kind = %row.kind, id = %row.id);
        let (set, token, row) = (Arc::clone(set), lease.token, lease.row.clone());
        let code = async move {
            match set.get(&row.kind) {
                Some(kind) => kind.run(&row.input, context).await,
                None => Err(TaskError::Retry(format!(
                    "no task of kind {} is known here",
                    row.kind
                ))),
            }
        };
        let droppable = async move {
            tokio::select! {
                biased;
                // A sender that is gone is an executor that is gone.
                _ = &mut dropped => Outcome::Dropped,
                end = code => end.map_or_else(Outcome::Error, Outcome::Result),
            }
        };
        spawner.spawn(
            async move {
                let ended = AssertUnwindSafe(droppable).catch_unwind().await;
                let outcome =
                    ended.unwrap_or_else(|panic| Outcome::Panicked(panic_text(panic.as_ref())));
                if let Some(failure) = outcome.failure() {
                    trace.failed(failure);
                }
                CodeEnd { token, outcome }
            }
            .instrument(span),
        );
        let began = Instant::now();
        Self {
            control,
            began,
            times_out: began + timeout,
            stop: None,
            dropper: Some(dropper),
            is_lost: false,
        }
    }

    /// Asks the code to stop, and drops it at that time. A second stop can only bring the time forward.
    pub(super) fn stop(&mut self, reason: StopReason, drop_at: Instant) {
        match &mut self.stop {
            Some(stop) => stop.drop_at = stop.drop_at.min(drop_at),
            None => {
                self.stop = Some(RequestedStop { reason, drop_at });
                self.control.stop.send_replace(Some(reason));
            }
        }
    }

    /// Stops the code at once, since another process may run the task.
    pub(super) fn lose(&mut self, now: Instant) {
        self.is_lost = true;
        self.stop(StopReason::LeaseLost, now);
        self.control.stop.send_replace(Some(StopReason::LeaseLost));
        self.drop_code();
    }

    fn drop_code(&mut self) {
        if let Some(dropper) = self.dropper.take() {
            let _ = dropper.send(());
        }
    }

    /// Carries out what is due: the timeout, and the drop after a stop.
    pub(super) fn advance(&mut self, now: Instant, limits: &Limits) {
        if now >= self.times_out {
            self.stop(StopReason::TimedOut, now + limits.task_stop_grace);
        }
        if self.stop.is_some_and(|stop| now >= stop.drop_at) {
            self.drop_code();
        }
    }

    /// Returns the time at which [`Attempt::advance`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.dropper.as_ref()?;
        Some(self.stop.map_or(self.times_out, |stop| stop.drop_at))
    }

    /// Returns whether its code may still do something, and its lease counts.
    pub(super) fn is_working(&self) -> bool {
        self.dropper.is_some()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns whether there is progress that no heartbeat has taken.
    pub(super) fn has_progress(&self) -> bool {
        self.control.progress.has_changed().unwrap_or(false)
    }

    /// Takes the progress for a heartbeat.
    pub(super) fn take_progress(&mut self) -> ProgressReport {
        self.control.progress.borrow_and_update().clone()
    }

    /// Returns the meaning of the code's end, by the reason for which it was asked to stop.
    pub(super) fn finish(&self, outcome: Outcome, limits: &Limits) -> Finish {
        let stopped = self.stop.map(|stop| stop.reason);
        Finish::Without(match outcome {
            Outcome::Result(output) => return Finish::Result(output),
            Outcome::Panicked(text) => AttemptEnd::Panicked(cut(text)),
            Outcome::Error(TaskError::Retry(error)) => AttemptEnd::Retry(cut(error)),
            Outcome::Error(TaskError::RetryAfter(least, error)) => {
                AttemptEnd::RetryAfter(least.min(limits.max_task_retry_after), cut(error))
            }
            Outcome::Error(TaskError::Fail(error)) => AttemptEnd::Fail(cut(error)),
            Outcome::Error(TaskError::Unknown(error)) => AttemptEnd::Unknown(cut(error)),
            Outcome::Error(TaskError::Stopped) | Outcome::Dropped => match stopped {
                Some(StopReason::TimedOut) => AttemptEnd::TimedOut,
                // Code that is dropped may have been anywhere.
                Some(StopReason::Cancelled) if matches!(outcome, Outcome::Dropped) => {
                    let text = "it was cancelled and did not stop in time";
                    AttemptEnd::Unknown(text.to_owned())
                }
                Some(StopReason::Cancelled) => AttemptEnd::Stopped { cancelled: true },
                Some(StopReason::Shutdown | StopReason::LeaseLost) => {
                    AttemptEnd::Stopped { cancelled: false }
                }
                // Released, it would run again at once, and perhaps for ever.
                None => AttemptEnd::Retry("it has stopped without being asked to".to_owned()),
            },
        })
    }
}

impl Outcome {
    fn failure(&self) -> Option<&'static str> {
        match self {
            Self::Result(_) => None,
            Self::Panicked(_) => Some("panicked"),
            Self::Dropped | Self::Error(TaskError::Stopped) => Some("stopped"),
            Self::Error(TaskError::Retry(_) | TaskError::RetryAfter(..)) => Some("retried"),
            Self::Error(TaskError::Fail(_)) => Some("failed"),
            Self::Error(TaskError::Unknown(_)) => Some("unknown"),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
    text
}
