//! The poison guard: how the engine works events that a process may have died of.

use std::collections::{HashMap, VecDeque};

use doorstep_event::Timestamp;
use doorstep_store::{Commit, CrashCountChange, DeferredId, Store, StoreError, WriteSet};

use super::{
    Company, Engine, Worked,
    prepared::{Held, Origin, Prepared, Understood},
    suspect::{self, Matter, Meeting, Suspect},
};
use crate::{
    Role,
    dead_letter::{Cause, reason},
};

/// What was due when the process started, until all of it is worked: a poison among what is held ends a process without any delivery.
#[derive(Debug, Default)]
pub(super) struct Start {
    at: Option<Timestamp>,
    /// The trials that this process has counted, or may have counted, of rows that it has not done with.
    begun: HashMap<DeferredId, u32>,
}

impl Start {
    pub(super) fn at(started: Timestamp) -> Self {
        Self {
            at: Some(started),
            begun: HashMap::new(),
        }
    }
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Works the first of these: together what was never tried before, or one alone. Returns how many.
    pub(super) async fn work_suspects(
        &mut self,
        suspects: &mut VecDeque<Suspect>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<(Worked, usize), StoreError> {
        for conflicts in 0..=self.limits.conflicts {
            let suspects = suspects.make_contiguous();
            if let Some((worked, done)) = self.try_suspects(suspects, now, jitter).await? {
                let worked = Worked {
                    conflicts,
                    ..worked
                };
                return Ok((worked, done));
            }
            for suspect in suspects {
                suspect.forget();
            }
        }
        Err(self.contended())
    }

    /// Works held events that were due when the process started, as [`Engine::work_suspects`] does. Returns `None` if there are none,
    /// or no more.
    pub(super) async fn work_due_at_start(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<Worked>, StoreError> {
        let Some(started) = self.start.at else {
            return Ok(None);
        };
        for conflicts in 0..=self.limits.conflicts {
            // A clock that was set back meanwhile makes nothing due before its time.
            let mut due = self.due(started.min(now)).await?;
            if due.is_empty() {
                self.start = Start::default();
                return Ok(None);
            }
            due.sort_by_key(|held| held.event.sequence);
            let mut suspects: Vec<_> = due
                .into_iter()
                .map(|row| {
                    let begun = self.start.begun.get(&row.id).copied();
                    Suspect::held(row, begun)
                })
                .collect();
            let tried = self.try_suspects(&mut suspects, now, jitter).await;
            self.start.begun = suspects
                .iter()
                .filter_map(|suspect| match &suspect.matter {
                    Matter::Held(row) => Some((row.id, suspect.begun()?)),
                    Matter::Delivery(_) => None,
                })
                .collect();
            if let Some((worked, _)) = tried? {
                return Ok(Some(Worked {
                    conflicts,
                    ..worked
                }));
            }
        }
        Err(self.contended())
    }

    /// Counts trials, works, and forgets the trials with what has come of them. Returns `None` on a conflict.
    async fn try_suspects(
        &mut self,
        suspects: &mut [Suspect],
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(Worked, usize)>, StoreError> {
        let ask = suspect::ask(suspects.iter());
        if !(ask.trials.is_empty() && ask.streams.is_empty() && ask.seen.is_empty()) {
            let loaded = self.store.load(ask).await?;
            suspect::look_up(suspects.iter_mut(), loaded, &self.limits, now);
        } else {
            let nothing = doorstep_store::ReadResult::default();
            suspect::look_up(suspects.iter_mut(), nothing, &self.limits, now);
        }
        let meeting = suspect::meeting(suspects.iter(), self.limits.trials);
        let (count, company) = match meeting {
            Meeting::Together(count) => (count, Company::Others),
            Meeting::Alone | Meeting::Condemned(_) => (1, Company::Nobody),
        };
        let suspects = &mut suspects[..count];
        // From before the trial is counted until it is forgotten, so that it cannot be another's handler that ends the process.
        let process = self.process.clone();
        let _alone = match meeting {
            Meeting::Alone => Some(process.alone().await),
            Meeting::Together(_) | Meeting::Condemned(_) => None,
        };
        let counted = match meeting {
            Meeting::Condemned(_) => Vec::new(),
            Meeting::Together(_) | Meeting::Alone => {
                let Some(counted) = self.count_trials(suspects, now).await? else {
                    return Ok(None);
                };
                counted
            }
        };
        let items: Vec<_> = {
            let _together = match company {
                Company::Anybody | Company::Others => Some(process.together().await),
                Company::Nobody => None,
            };
            let prepared = suspects.iter().map(|s| self.prepare_suspect(s, meeting));
            prepared.collect()
        };
        let ends = suspects.iter().filter_map(Suspect::end).collect();
        let attempt = self.attempt(&items, &[], company, ends, now, jitter);
        let worked = attempt.await;
        if matches!(worked, Err(StoreError::Unusable { .. })) {
            // The process ends, and not of an event: a state that cannot be read, for one, is no fault of what touches it.
            self.take_back(counted, now).await;
        }
        Ok(worked?.map(|(worked, _)| (worked, count)))
    }

    /// Takes trials back, as well as it can be.
    async fn take_back(&self, counted: Vec<CrashCountChange>, now: Timestamp) {
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
    async fn count_trials(
        &self,
        suspects: &mut [Suspect],
        now: Timestamp,
    ) -> Result<Option<Vec<CrashCountChange>>, StoreError> {
        let mut changes = WriteSet::at(now);
        changes.crash_counts = suspects.iter_mut().filter_map(Suspect::begin).collect();
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
    fn prepare_suspect(&self, suspect: &Suspect, meeting: Meeting) -> Prepared<R::Fact> {
        let unread = match meeting {
            Meeting::Condemned(trials) => Understood::Refused(Cause::new(
                reason::POISON,
                format!("the process ended {trials} times while it was working this event"),
            )),
            Meeting::Together(_) | Meeting::Alone if suspect.is_open() => {
                return match &suspect.matter {
                    Matter::Delivery(incoming) => self.prepare(incoming.clone()),
                    Matter::Held(row) => self.prepare_held(row.clone()),
                };
            }
            Meeting::Together(_) | Meeting::Alone => Understood::Unread,
        };
        let (event, defect, origin) = match &suspect.matter {
            Matter::Held(row) => Held::of(row.clone()),
            Matter::Delivery(super::Incoming::Event {
                event,
                defect,
                sender,
            }) => (
                event.clone(),
                defect.clone(),
                Origin::Delivery(sender.clone()),
            ),
            Matter::Delivery(unreadable @ super::Incoming::Unreadable { .. }) => {
                return self.prepare(unreadable.clone());
            }
        };
        Prepared::unread(event, defect, origin, unread)
    }
}
