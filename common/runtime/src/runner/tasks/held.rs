//! The tasks that are leased to this process.

use std::{collections::HashMap, time::Instant};

use doorstep_store::{LeasedTask, TaskFate, TaskId, TaskToken};

use super::attempt::Attempt;
use crate::{
    Limits,
    engine::tasks::LeaseStatus,
    task::{FinishedTask, StopReason, TaskFinish},
};

/// A task that is leased to this process, from its claim until its end is decided.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: LeasedTask,
    pub(super) stage: TaskStage,
    /// The label of its attempt's outcome; `None` if no code of it has run.
    pub(super) outcome: Option<&'static str>,
}

#[derive(Debug)]
pub(super) enum TaskStage {
    Running(Attempt),
    /// The role's loop decides.
    Ending {
        finish: TaskFinish,
        /// Set while the loop has it.
        is_sent: bool,
    },
    /// The executor writes it, since the role's code has no part in it.
    Returning {
        fate: TaskFate,
        /// Set while a commit with it goes on.
        is_sent: bool,
    },
}

impl Held {
    pub(super) fn returning(lease: LeasedTask, fate: TaskFate) -> Self {
        Self {
            lease,
            stage: TaskStage::Returning {
                fate,
                is_sent: false,
            },
            outcome: None,
        }
    }

    pub(super) fn ending(lease: LeasedTask, finish: TaskFinish) -> Self {
        Self {
            lease,
            stage: TaskStage::Ending {
                finish,
                is_sent: false,
            },
            outcome: None,
        }
    }
}

/// All tasks that are leased to this process, by their tokens: an id may come again under another token.
#[derive(Debug, Default)]
pub(super) struct HeldTasks(pub(super) HashMap<TaskToken, Held>);

impl HeldTasks {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn ids(&self) -> Vec<TaskId> {
        self.0
            .values()
            .map(|held| held.lease.row.id.clone())
            .collect()
    }

    /// Returns whether one of them may have crashed a process.
    pub(super) fn has_candidate(&self) -> bool {
        self.0.values().any(|held| held.lease.row.crashes > 0)
    }

    pub(super) fn attempts(&mut self) -> impl Iterator<Item = (&LeasedTask, &mut Attempt)> {
        self.0
            .values_mut()
            .filter_map(|held| match &mut held.stage {
                TaskStage::Running(attempt) => Some((&held.lease, attempt)),
                TaskStage::Ending { .. } | TaskStage::Returning { .. } => None,
            })
    }

    /// Returns the number of attempts whose code may still do something under a lease.
    pub(super) fn working(&self) -> usize {
        let is_working = |held: &&Held| matches!(&held.stage, TaskStage::Running(attempt) if attempt.is_working());
        self.0.values().filter(is_working).count()
    }

    /// Returns whether code runs, or has not been dropped yet, or a lease is being given back.
    pub(super) fn is_busy(&self) -> bool {
        let mut all = self.0.values();
        all.any(|held| {
            matches!(
                held.stage,
                TaskStage::Running(_) | TaskStage::Returning { .. }
            )
        })
    }

    pub(super) fn has_code(&self) -> bool {
        let mut all = self.0.values();
        all.any(|held| matches!(held.stage, TaskStage::Running(_)))
    }

    pub(super) fn has_unsent_end(&self) -> bool {
        let mut all = self.0.values();
        all.any(|held| matches!(held.stage, TaskStage::Ending { is_sent: false, .. }))
    }

    /// Asks all attempts to stop, and drops them at that time.
    pub(super) fn stop_all(&mut self, reason: StopReason, drop_at: Instant) {
        for (_, attempt) in self.attempts() {
            attempt.stop(reason, drop_at);
        }
    }

    /// Loses the leases of these attempts.
    pub(super) fn lose(&mut self, now: Instant, is_lost: impl Fn(&LeasedTask) -> bool) {
        for (lease, attempt) in self.attempts() {
            if is_lost(lease) {
                attempt.lose(now);
            }
        }
    }

    /// Stops attempts whose leases end, or have ended at the given time. Returns the number of those that are dropped
    /// for it.
    pub(super) fn follow_leases(
        &mut self,
        status: LeaseStatus,
        end: Option<Instant>,
        now: Instant,
    ) -> usize {
        match status {
            LeaseStatus::Held => 0,
            LeaseStatus::Ending => {
                self.stop_all(StopReason::LeaseLost, end.unwrap_or(now));
                0
            }
            LeaseStatus::Ended => {
                let dropped = self.working();
                self.stop_all(StopReason::LeaseLost, now);
                dropped
            }
        }
    }

    /// Carries out timeouts and drops.
    pub(super) fn advance(&mut self, now: Instant, limits: &Limits) {
        for (_, attempt) in self.attempts() {
            attempt.advance(now, limits);
        }
    }

    /// Returns the next time of a timeout or drop.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.0.values().filter_map(|held| match &held.stage {
            TaskStage::Running(attempt) => attempt.next(),
            TaskStage::Ending { .. } | TaskStage::Returning { .. } => None,
        });
        next.min()
    }

    /// Takes the ends that the role's loop does not have yet.
    pub(super) fn unsent_ends(&mut self) -> impl Iterator<Item = (FinishedTask, &mut bool)> {
        self.0
            .values_mut()
            .filter_map(|held| match &mut held.stage {
                TaskStage::Ending { finish, is_sent } if !*is_sent => {
                    let finished = FinishedTask {
                        lease: held.lease.clone(),
                        finish: finish.clone(),
                    };
                    Some((finished, is_sent))
                }
                TaskStage::Running(_) | TaskStage::Ending { .. } | TaskStage::Returning { .. } => {
                    None
                }
            })
    }

    /// Sets whether the loop, or a commit, has the end of this task.
    pub(super) fn set_sent(&mut self, token: TaskToken, now_sent: bool) {
        if let Some(held) = self.0.get_mut(&token) {
            match &mut held.stage {
                TaskStage::Ending { is_sent, .. } | TaskStage::Returning { is_sent, .. } => {
                    *is_sent = now_sent;
                }
                TaskStage::Running(_) => {}
            }
        }
    }
}
