//! The crash guard: processing of poison candidates with their crash counts.

use std::collections::{HashMap, VecDeque};

use doorstep_event::Timestamp;
use doorstep_store::{Commit, CrashCountChange, DeferredId, Result, Store, StoreError, WriteSet};

use super::{
    BatchReport, Engine, Isolation,
    decoded_event::{DecodedEvent, DeferredItem, Interpretation, Origin},
    poison::{self, CandidateSource, PoisonCandidate, TrialPlan},
};
use crate::{
    Role,
    dead_letter::{Cause, reason},
};

/// The deferred events that were due at the process's start and are not processed yet: a poison message among them
/// crashes a process without any delivery.
#[derive(Debug, Default)]
pub(super) struct StartupDue {
    at: Option<Timestamp>,
    /// The crash counts that this process has raised, or may have raised, of rows not finished yet.
    counted_by_us: HashMap<DeferredId, u32>,
}

impl StartupDue {
    pub(super) fn at(started: Timestamp) -> Self {
        Self {
            at: Some(started),
            counted_by_us: HashMap::new(),
        }
    }
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Processes the first of these: together if they have no crash count, or one alone. Returns their number.
    pub(super) async fn process_candidates(
        &mut self,
        candidates: &mut VecDeque<PoisonCandidate>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(BatchReport, usize)> {
        for conflicts in 0..=self.limits.conflicts {
            let candidates = candidates.make_contiguous();
            if let Some((worked, done)) = self.try_candidates(candidates, now, jitter).await? {
                let worked = BatchReport {
                    conflicts,
                    ..worked
                };
                return Ok((worked, done));
            }
            for candidate in candidates {
                candidate.forget();
            }
        }
        Err(self.too_many_conflicts())
    }

    /// Processes the deferred events that were due at the process's start, as [`Engine::process_candidates`] does.
    /// Returns `None` if none are left.
    pub(super) async fn process_due_at_start(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<BatchReport>> {
        let Some(started) = self.start.at else {
            return Ok(None);
        };
        for conflicts in 0..=self.limits.conflicts {
            // If the clock was set back meanwhile, nothing becomes due early.
            let mut due = self.due(started.min(now)).await?;
            if due.is_empty() {
                self.start = StartupDue::default();
                return Ok(None);
            }
            due.sort_by_key(|deferred| deferred.event.sequence);
            let mut candidates: Vec<_> = due
                .into_iter()
                .map(|row| {
                    let counted_by_us = self.start.counted_by_us.get(&row.id).copied();
                    PoisonCandidate::deferred(row, counted_by_us)
                })
                .collect();
            let tried = self.try_candidates(&mut candidates, now, jitter).await;
            self.start.counted_by_us = candidates
                .iter()
                .filter_map(|candidate| match &candidate.source {
                    CandidateSource::Deferred(row) => Some((row.id, candidate.counted_by_us()?)),
                    CandidateSource::Delivery(_) => None,
                })
                .collect();
            if let Some((worked, _)) = tried? {
                return Ok(Some(BatchReport {
                    conflicts,
                    ..worked
                }));
            }
        }
        Err(self.too_many_conflicts())
    }

    /// Raises crash counts, processes, and resets the counts with the outcomes. Returns `None` on a conflict.
    async fn try_candidates(
        &mut self,
        candidates: &mut [PoisonCandidate],
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, usize)>> {
        let ask = poison::read_set(candidates.iter());
        if !(ask.crash_counts.is_empty() && ask.streams.is_empty() && ask.seen.is_empty()) {
            let loaded = self.store.load(ask).await?;
            poison::apply_lookup(candidates.iter_mut(), loaded, &self.limits, now);
        } else {
            let nothing = doorstep_store::ReadResult::default();
            poison::apply_lookup(candidates.iter_mut(), nothing, &self.limits, now);
        }
        let plan = poison::plan_trial(candidates.iter(), self.limits.max_crashes);
        let (count, company) = match plan {
            TrialPlan::Together(count) => (count, Isolation::SharedNoDeferred),
            TrialPlan::Alone | TrialPlan::Poison(_) => (1, Isolation::Exclusive),
        };
        let candidates = &mut candidates[..count];
        // Locked from before the count is raised until it is reset, so that no other handler can crash the process
        // meanwhile.
        let process = self.process.clone();
        let _alone = match plan {
            TrialPlan::Alone => Some(process.exclusive().await),
            TrialPlan::Together(_) | TrialPlan::Poison(_) => None,
        };
        let counted = match plan {
            TrialPlan::Poison(_) => Vec::new(),
            TrialPlan::Together(_) | TrialPlan::Alone => {
                let Some(counted) = self.count_crashes(candidates, now).await? else {
                    return Ok(None);
                };
                counted
            }
        };
        let items: Vec<_> = {
            let _together = match company {
                Isolation::Shared | Isolation::SharedNoDeferred => Some(process.shared().await),
                Isolation::Exclusive => None,
            };
            let prepared = candidates.iter().map(|s| self.prepare_candidate(s, plan));
            prepared.collect()
        };
        let ends = candidates.iter().filter_map(PoisonCandidate::end).collect();
        let attempt = self.try_commit(&items, &[], company, ends, now, jitter);
        let worked = attempt.await;
        if matches!(worked, Err(StoreError::Unusable { .. })) {
            // The process ends, but not because of an event: an unreadable state, for example, is no fault of the
            // events that touch it.
            self.rollback_counts(counted, now).await;
        }
        Ok(worked?.map(|(worked, _)| (worked, count)))
    }

    /// Takes raised crash counts back, as far as the store allows.
    async fn rollback_counts(&self, counted: Vec<CrashCountChange>, now: Timestamp) {
        let mut changes = WriteSet::at(now);
        changes.crash_counts = counted
            .into_iter()
            .map(|change| CrashCountChange {
                before: change.after,
                after: change.before,
                ..change
            })
            .collect();
        if !changes.crash_counts.is_empty() {
            let _ = self.store.commit(changes).await;
        }
    }

    /// Raises the crash count of each event that a handler may be called for. Returns the written counts, or `None` on
    /// a conflict.
    async fn count_crashes(
        &self,
        candidates: &mut [PoisonCandidate],
        now: Timestamp,
    ) -> Result<Option<Vec<CrashCountChange>>> {
        let mut changes = WriteSet::at(now);
        changes.crash_counts = candidates
            .iter_mut()
            .filter_map(PoisonCandidate::begin)
            .collect();
        let counted = changes.crash_counts.clone();
        if counted.is_empty() {
            return Ok(Some(counted));
        }
        let commit = self.store.commit(changes).await;
        for candidate in candidates {
            match commit {
                Ok(Commit::Written(_)) => candidate.counted(),
                Ok(Commit::Conflict) => candidate.not_counted(),
                // The counts may be written all the same: the raised count stays known and is compared at the next
                // lookup.
                Err(_) => candidate.forget(),
            }
        }
        Ok(matches!(commit?, Commit::Written(_)).then_some(counted))
    }

    /// Has the role decode a candidate, if its handler will be called.
    fn prepare_candidate(
        &self,
        candidate: &PoisonCandidate,
        plan: TrialPlan,
    ) -> DecodedEvent<R::Payload> {
        let unread = match plan {
            TrialPlan::Poison(crashes) => Interpretation::Refused(Cause::new(
                reason::POISON,
                format!("the process ended {crashes} times while it processed this event"),
            )),
            TrialPlan::Together(_) | TrialPlan::Alone if candidate.is_open() => {
                return match &candidate.source {
                    CandidateSource::Delivery(incoming) => self.prepare(incoming.clone()),
                    CandidateSource::Deferred(row) => self.prepare_deferred(row.clone()),
                };
            }
            TrialPlan::Together(_) | TrialPlan::Alone => Interpretation::Undecoded,
        };
        let (decoded, origin) = match &candidate.source {
            CandidateSource::Deferred(row) => DeferredItem::split(row.clone()),
            CandidateSource::Delivery(message) if message.decoded.event().is_none() => {
                return self.prepare(message.clone());
            }
            CandidateSource::Delivery(message) => (
                message.decoded.clone(),
                Origin::Delivery(message.sender.clone()),
            ),
        };
        DecodedEvent::unread(decoded, origin, unread)
    }
}
