//! The decision what to claim: fresh tasks as there is room, and poison candidates one at a time in the process.

use std::time::Instant;

use doorstep_store::Candidates;
use tokio::sync::OwnedMutexGuard;

use super::held::HeldTasks;
use crate::{HandlerLock, Limits};

/// The claims of an executor. One at a time is made.
#[derive(Debug)]
pub(super) struct Claims {
    /// The time of the next claim.
    pub(super) at: Instant,
    pub(super) is_claiming: bool,
    /// The number of poison candidates that the last claim has left.
    candidates_due: u64,
    /// The right to run a candidate.
    permit: Option<OwnedMutexGuard<()>>,
    /// The time since which a candidate has waited for the running tasks, while no fresh ones are claimed.
    waiting_since: Option<Instant>,
}

/// The bounds of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimBounds {
    pub(super) room: usize,
    pub(super) candidates: Candidates,
}

impl Claims {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at: now,
            is_claiming: false,
            candidates_due: 0,
            permit: None,
            waiting_since: None,
        }
    }

    /// Makes the next claim due.
    pub(super) fn soon(&mut self) {
        self.at = Instant::now();
    }

    /// Returns the bounds of the next claim.
    pub(super) fn bounds(
        &mut self,
        held: &HeldTasks,
        process: &HandlerLock,
        limits: &Limits,
        now: Instant,
    ) -> ClaimBounds {
        let room = limits.running_tasks.saturating_sub(held.len());
        let fresh = |room| ClaimBounds {
            room,
            candidates: Candidates::None,
        };
        if held.has_candidate() {
            return fresh(0);
        }
        let is_idle = held.len() == 0;
        if (is_idle || self.candidates_due > 0) && self.permit.is_none() {
            self.permit = process.try_run_candidate();
        }
        if self.permit.is_none() || !(is_idle || self.candidates_due > 0) {
            self.waiting_since = None;
            return fresh(room);
        }
        let since = *self.waiting_since.get_or_insert(now);
        if is_idle || now.saturating_duration_since(since) >= limits.task_alone_wait {
            let candidates = Candidates::One;
            return ClaimBounds { room, candidates };
        }
        fresh(0)
    }

    /// Notes that a claim has begun, and when the next one follows unless something comes that makes it due.
    pub(super) fn begin(&mut self, next: Instant) {
        self.is_claiming = true;
        self.at = next;
    }

    /// Notes that a claim has ended, with the number of candidates that it has left.
    pub(super) fn ended(&mut self, candidates_due: u64) {
        self.is_claiming = false;
        self.candidates_due = candidates_due;
    }

    /// Notes that a claim has failed, and when the next one follows.
    pub(super) fn failed(&mut self, next: Instant) {
        self.is_claiming = false;
        self.at = next;
    }

    /// Gives the right to run a candidate back, unless one runs or waits for the running tasks.
    pub(super) fn release_permit(&mut self, held: &HeldTasks) {
        let waits = self.candidates_due > 0 && held.len() > 0;
        if !self.is_claiming && !held.has_candidate() && !waits {
            self.permit = None;
            self.waiting_since = None;
        }
        if held.has_candidate() {
            self.waiting_since = None;
        }
    }
}
