//! Poison candidates: events that may have crashed a process, and the rule for which of them may be processed together.
//!
//! Before the handler gets such an event, its crash count in the store is raised; the commit with the event's outcome
//! resets it. So a count that is found is the number of processes that crashed in between, independently of the
//! broker's own counting.
//!
//! As long as no count is found, events are processed together, so that a restart costs one more commit per batch. If
//! that crashes the process, any of them may be the poison: from then on each is tried alone, until it succeeds or
//! reaches its maximum of crashes.

use doorstep_event::{EventId, Source, Timestamp};
use doorstep_store::{CrashCountChange, DeferredEvent, ReadResult, ReadSet};

use super::{
    inbound::{DeliveryHistory, InboundMessage},
    owners::{Verdict, judge},
};
use crate::Limits;

/// An event that may have crashed a process.
pub(super) struct PoisonCandidate {
    pub(super) matter: CandidateSource,
    past: DeliveryHistory,
    standing: CandidateState,
    /// The count that this process has written, or may have written. This process survived that attempt.
    begun: Option<u32>,
}

/// The origin of a poison candidate.
pub(super) enum CandidateSource {
    Delivery(InboundMessage),
    Held(DeferredEvent),
}

/// The store's knowledge of a poison candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// Not looked up yet, or no longer certain.
    Unknown,
    /// No handler will be called, now or later: the event is already applied, deferred, dead-lettered or seen. Carries
    /// its crash count, which is to be reset.
    Done(u32),
    /// A handler may be called. Carries its crash count.
    Pending(u32),
}

/// The next step for the first of several candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrialPlan {
    /// This many of them together.
    Together(usize),
    /// The first alone.
    Alone,
    /// The first becomes a dead letter without a handler call: this many processes have crashed during its attempts.
    Poison(u32),
}

impl PoisonCandidate {
    pub(super) fn delivery(incoming: InboundMessage, past: DeliveryHistory) -> Self {
        Self {
            matter: CandidateSource::Delivery(incoming),
            past,
            standing: CandidateState::Unknown,
            begun: None,
        }
    }

    /// A deferred event, whose attempt this process may already have started.
    pub(super) fn held(row: DeferredEvent, begun: Option<u32>) -> Self {
        Self {
            matter: CandidateSource::Held(row),
            past: DeliveryHistory::Redelivered,
            standing: CandidateState::Unknown,
            begun,
        }
    }

    /// Returns the count that this process has written or may have written.
    pub(super) fn counted_by_us(&self) -> Option<u32> {
        self.begun
    }

    /// Returns whether a handler may be called for it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.standing, CandidateState::Pending(_))
    }

    fn key(&self) -> Option<(Source, EventId)> {
        let event = match &self.matter {
            CandidateSource::Held(row) => &row.event,
            CandidateSource::Delivery(message) => message.decoded.event()?,
        };
        Some((event.source.clone(), event.id.clone()))
    }

    /// Returns the crashes counted by other processes or by an earlier life of this one.
    fn previous_crashes(&self) -> u32 {
        match self.standing {
            CandidateState::Pending(count) if self.is_counted_by_us() => count - 1,
            CandidateState::Pending(count) | CandidateState::Done(count) => count,
            CandidateState::Unknown => 0,
        }
    }

    fn is_counted_by_us(&self) -> bool {
        matches!((self.standing, self.begun), (CandidateState::Pending(count), Some(begun)) if count >= begun)
    }

    /// Raises the crash count, unless this process has done so already.
    pub(super) fn begin(&mut self) -> Option<CrashCountChange> {
        let (CandidateState::Pending(before), false) = (self.standing, self.is_counted_by_us())
        else {
            return None;
        };
        let (source, id) = self.key()?;
        let after = before.saturating_add(1);
        self.begun = Some(after);
        Some(CrashCountChange {
            source,
            id,
            before,
            after,
        })
    }

    /// Notes that the count of [`PoisonCandidate::begin`] is written.
    pub(super) fn counted(&mut self) {
        if let (CandidateState::Pending(_), Some(begun)) = (self.standing, self.begun) {
            self.standing = CandidateState::Pending(begun);
        }
    }

    /// Notes that the count was certainly not written.
    pub(super) fn not_counted(&mut self) {
        if !self.is_counted_by_us() {
            self.begun = None;
        }
    }

    /// Returns the reset of the crash count, to be committed with the event's outcome.
    pub(super) fn end(&self) -> Option<CrashCountChange> {
        let before = match self.standing {
            CandidateState::Pending(count) | CandidateState::Done(count) if count > 0 => count,
            _ => return None,
        };
        let (source, id) = self.key()?;
        Some(CrashCountChange {
            source,
            id,
            before,
            after: 0,
        })
    }

    /// Drops what was looked up, which may have changed.
    pub(super) fn forget(&mut self) {
        self.standing = CandidateState::Unknown;
    }
}

/// Decides the next step for the first of these candidates, which were looked up.
pub(super) fn plan_trial<'a>(
    suspects: impl IntoIterator<Item = &'a PoisonCandidate>,
    limit: u32,
) -> TrialPlan {
    let mut keys = std::collections::HashSet::new();
    let mut together = 0;
    for suspect in suspects {
        let trials = suspect.previous_crashes();
        if suspect.is_open() {
            let alone = trials > 0 || suspect.past == DeliveryHistory::LimitExceeded;
            match (together, alone) {
                (0, true) if trials >= limit => return TrialPlan::Poison(trials),
                (0, true) => return TrialPlan::Alone,
                (_, true) => break,
                (_, false) => {}
            }
        }
        // The same event twice: the second is planned again when the first is finished.
        if suspect.key().is_some_and(|key| !keys.insert(key)) {
            break;
        }
        together += 1;
    }
    TrialPlan::Together(together)
}

/// Asks for the rows that tell whether a handler may be called for the candidates not yet looked up, and for their
/// crash counts.
pub(super) fn read_set<'a>(suspects: impl IntoIterator<Item = &'a PoisonCandidate>) -> ReadSet {
    let mut ask = ReadSet::default();
    let unknown = suspects
        .into_iter()
        .filter(|suspect| suspect.standing == CandidateState::Unknown);
    for suspect in unknown {
        if let Some(key) = suspect.key() {
            ask.trials.push(key.clone());
            if let CandidateSource::Delivery(message) = &suspect.matter
                && let Some(event) = message.decoded.event()
            {
                ask.owners.push(event.source.clone());
                match event.sequence {
                    Some(sequence) => {
                        ask.streams.push(event.stream());
                        ask.held_at.push((event.stream(), sequence));
                    }
                    None => ask.seen.push(key),
                }
            }
        }
    }
    ask
}

/// Takes in the rows that were read for them.
pub(super) fn apply_lookup<'a>(
    suspects: impl IntoIterator<Item = &'a mut PoisonCandidate>,
    loaded: ReadResult,
    limits: &Limits,
    now: Timestamp,
) {
    let mut owners = loaded.owners.into_iter();
    let mut trials = loaded.trials.into_iter();
    let mut streams = loaded.streams.into_iter().zip(loaded.held_at);
    let mut seen = loaded.seen.into_iter();
    let unknown = suspects
        .into_iter()
        .filter(|suspect| suspect.standing == CandidateState::Unknown);
    for suspect in unknown {
        let mut count = || trials.next().unwrap_or_default();
        suspect.standing = match &suspect.matter {
            CandidateSource::Held(_) => CandidateState::Pending(count()),
            CandidateSource::Delivery(message) => {
                let Some(event) = message.decoded.event() else {
                    suspect.standing = CandidateState::Done(0);
                    continue;
                };
                let count = count();
                let owner = owners.next().unwrap_or_default().owner;
                let verdict = judge(
                    owner.as_ref(),
                    &message.sender,
                    now,
                    limits.former_owner_grace,
                );
                let is_settled = match event.sequence {
                    None => seen.next().unwrap_or_default(),
                    Some(sequence) => streams.next().is_some_and(|(stream, held)| {
                        let next = stream.cursor.saturating_add(1);
                        sequence.get() < next
                            || held.is_some()
                            || (stream.blocked.is_some() && sequence.get() == next)
                    }),
                };
                if matches!(verdict, Verdict::Foreign | Verdict::Bypass) {
                    // The crash count belongs to the owner's event of the same id.
                    CandidateState::Done(0)
                } else if is_settled {
                    CandidateState::Done(count)
                } else {
                    CandidateState::Pending(count)
                }
            }
        };
    }
}
