//! The poison guard: how the engine works events that a process may have died of.

use std::collections::{HashMap, VecDeque};

use doorstep_event::Timestamp;
use doorstep_store::{Commit, CrashCountChange, DeferredId, Store, StoreError, WriteSet};

use super::{
    BatchReport, Engine, Isolation,
    decoded_event::{DecodedEvent, DeferredItem, Interpretation, Origin},
    poison::{self, CandidateSource, PoisonCandidate, TrialPlan},
};
use crate::{
    Role,
    dead_letter::{Cause, reason},
};

/// What was due when the process started, until all of it is worked: a poison among what is held ends a process without any delivery.
#[derive(Debug, Default)]
pub(super) struct StartupDue {
    at: Option<Timestamp>,
    /// The trials that this process has counted, or may have counted, of rows that it has not done with.
    begun: HashMap<DeferredId, u32>,
}

impl StartupDue {
    pub(super) fn at(started: Timestamp) -> Self {
        Self {
            at: Some(started),
            begun: HashMap::new(),
        }
    }
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Works the first of these: together what was never tried before, or one alone. Returns how many.
    pub(super) async fn process_candidates(
        &mut self,
        suspects: &mut VecDeque<PoisonCandidate>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(BatchReport, usize), StoreError> {
        for conflicts in 0..=self.limits.conflicts {
            let suspects = suspects.make_contiguous();
            if let Some((worked, done)) = self.try_candidates(suspects, now, jitter).await? {
                let worked = BatchReport {
                    conflicts,
                    ..worked
                };
                return Ok((worked, done));
            }
            for suspect in suspects {
                suspect.forget();
            }
        }
        Err(self.too_many_conflicts())
    }

    /// Works held events that were due when the process started, as [`Engine::process_candidates`] does. Returns `None` if there are none,
    /// or no more.
    pub(super) async fn process_due_at_start(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<BatchReport>, StoreError> {
        let Some(started) = self.start.at else {
            return Ok(None);
        };
        for conflicts in 0..=self.limits.conflicts {
            // A clock that was set back meanwhile makes nothing due before its time.
            let mut due = self.due(started.min(now)).await?;
            if due.is_empty() {
                self.start = StartupDue::default();
                return Ok(None);
            }
            due.sort_by_key(|held| held.event.sequence);
            let mut suspects: Vec<_> = due
                .into_iter()
                .map(|row| {
                    let begun = self.start.begun.get(&row.id).copied();
                    PoisonCandidate::held(row, begun)
                })
                .collect();
            let tried = self.try_candidates(&mut suspects, now, jitter).await;
            self.start.begun = suspects
                .iter()
                .filter_map(|suspect| match &suspect.matter {
                    CandidateSource::Held(row) => Some((row.id, suspect.counted_by_us()?)),
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

    /// Counts trials, works, and forgets the trials with what has come of them. Returns `None` on a conflict.
    async fn try_candidates(
        &mut self,
        suspects: &mut [PoisonCandidate],
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, usize)>, StoreError> {
        let ask = poison::ask(suspects.iter());
        if !(ask.trials.is_empty() && ask.streams.is_empty() && ask.seen.is_empty()) {
            let loaded = self.store.load(ask).await?;
            poison::apply_lookup(suspects.iter_mut(), loaded, &self.limits, now);
        } else {
            let nothing = doorstep_store::ReadResult::default();
            poison::apply_lookup(suspects.iter_mut(), nothing, &self.limits, now);
        }
        let meeting = poison::plan_trial(suspects.iter(), self.limits.max_crashes);
        let (count, company) = match meeting {
            TrialPlan::Together(count) => (count, Isolation::SharedNoDeferred),
            TrialPlan::Alone | TrialPlan::Poison(_) => (1, Isolation::Exclusive),
        };
        let suspects = &mut suspects[..count];
        // From before the trial is counted until it is forgotten, so that it cannot be another's handler that ends the process.
        let process = self.process.clone();
        let _alone = match meeting {
            TrialPlan::Alone => Some(process.exclusive().await),
            TrialPlan::Together(_) | TrialPlan::Poison(_) => None,
        };
        let counted = match meeting {
            TrialPlan::Poison(_) => Vec::new(),
            TrialPlan::Together(_) | TrialPlan::Alone => {
                let Some(counted) = self.count_crashes(suspects, now).await? else {
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
            let prepared = suspects.iter().map(|s| self.prepare_candidate(s, meeting));
            prepared.collect()
        };
        let ends = suspects.iter().filter_map(PoisonCandidate::end).collect();
        let attempt = self.try_commit(&items, &[], company, ends, now, jitter);
        let worked = attempt.await;
        if matches!(worked, Err(StoreError::Unusable { .. })) {
            // The process ends, and not of an event: a state that cannot be read, for one, is no fault of what touches it.
            self.rollback_counts(counted, now).await;
        }
        Ok(worked?.map(|(worked, _)| (worked, count)))
    }

    /// Takes trials back, as well as it can be.
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

    /// Counts a trial of each that a handler may be asked about. Returns what is written, `None` on a conflict.
    async fn count_crashes(
        &self,
        suspects: &mut [PoisonCandidate],
        now: Timestamp,
    ) -> Result<Option<Vec<CrashCountChange>>, StoreError> {
        let mut changes = WriteSet::at(now);
        changes.crash_counts = suspects
            .iter_mut()
            .filter_map(PoisonCandidate::begin)
            .collect();
        let counted = changes.crash_counts.clone();
        if counted.is_empty() {
            return Ok(Some(counted));
        }
        let commit = self.store.commit(changes).await;
        for suspect in suspects {
            match commit {
                Ok(Commit::Written(_)) => suspect.counted(),
                Ok(Commit::Conflict) => suspect.not_counted(),
                // It may be written all the same: what was begun stays known, and is compared when it is looked up again.
                Err(_) => suspect.forget(),
            }
        }
        Ok(matches!(commit?, Commit::Written(_)).then_some(counted))
    }

    /// Has the role read a suspect, if it is to be asked about it.
    fn prepare_candidate(
        &self,
        suspect: &PoisonCandidate,
        meeting: TrialPlan,
    ) -> DecodedEvent<R::Payload> {
        let unread = match meeting {
            TrialPlan::Poison(trials) => Interpretation::Refused(Cause::new(
                reason::POISON,
                format!("the process ended {trials} times while it was working this event"),
            )),
            TrialPlan::Together(_) | TrialPlan::Alone if suspect.is_open() => {
                return match &suspect.matter {
                    CandidateSource::Delivery(incoming) => self.prepare(incoming.clone()),
                    CandidateSource::Held(row) => self.prepare_deferred(row.clone()),
                };
            }
            TrialPlan::Together(_) | TrialPlan::Alone => Interpretation::Undecoded,
        };
        let (event, defect, origin) = match &suspect.matter {
            CandidateSource::Held(row) => DeferredItem::of(row.clone()),
            CandidateSource::Delivery(super::InboundMessage::Event {
                event,
                defect,
                sender,
            }) => (
                event.clone(),
                defect.clone(),
                Origin::Delivery(sender.clone()),
            ),
            CandidateSource::Delivery(unreadable @ super::InboundMessage::Unreadable { .. }) => {
                return self.prepare(unreadable.clone());
            }
        };
        DecodedEvent::unread(event, defect, origin, unread)
    }
}
