//! Poison candidates: events that may have crashed a process, and the rule for which of them may be processed together.
//!
//! Before the handler gets such an event, its crash count in the store is raised; the commit with the event's outcome
//! resets it. So a count that is found is the number of processes that crashed in between, independently of the
//! broker's own counting.
//!
//! As long as no count is found, events are processed together, so that a restart costs one more commit per batch. If
//! that crashes the process, any of them may be the poison: from then on each is tried alone, until it succeeds or
//! reaches its maximum of crashes.

use doorstep_event::{Event, EventId, Source, Timestamp, headers::Decoded};
use doorstep_store::{CrashCountChange, DeferredEvent, ReadResult, ReadSet};

use super::{
    inbound::{DeliveryHistory, InboundMessage},
    source_owners::{Verdict, judge},
};
use crate::Limits;

/// An event that may have crashed a process.
pub(super) struct PoisonCandidate {
    pub(super) source: CandidateSource,
    past: DeliveryHistory,
    state: CandidateState,
    /// The count that this process has written, or may have written. This process survived that attempt.
    counted_by_us: Option<u32>,
}

/// The origin of a poison candidate.
pub(super) enum CandidateSource {
    Delivery(InboundMessage),
    Deferred(DeferredEvent),
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

/// Returns the event of a delivery that could be decoded.
pub(super) fn valid(decoded: &Decoded) -> Option<&Event> {
    match decoded {
        Decoded::Valid(event) => Some(event),
        Decoded::Invalid(..) | Decoded::Undecodable { .. } => None,
    }
}

impl PoisonCandidate {
    /// Returns the event, if it is a delivery and could be decoded.
    pub(super) fn delivered_event(&self) -> Option<&Event> {
        match &self.source {
            CandidateSource::Delivery(incoming) => valid(&incoming.decoded),
            CandidateSource::Deferred(_) => None,
        }
    }

    pub(super) fn delivery(incoming: InboundMessage, past: DeliveryHistory) -> Self {
        Self {
            source: CandidateSource::Delivery(incoming),
            past,
            state: CandidateState::Unknown,
            counted_by_us: None,
        }
    }

    /// A deferred event, whose attempt this process may already have started.
    pub(super) fn deferred(row: DeferredEvent, counted_by_us: Option<u32>) -> Self {
        Self {
            source: CandidateSource::Deferred(row),
            past: DeliveryHistory::Redelivered,
            state: CandidateState::Unknown,
            counted_by_us,
        }
    }

    /// Returns the count that this process has written or may have written.
    pub(super) fn counted_by_us(&self) -> Option<u32> {
        self.counted_by_us
    }

    /// Returns whether a handler may be called for it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, CandidateState::Pending(_))
    }

    fn key(&self) -> Option<(Source, EventId)> {
        let event = match &self.source {
            CandidateSource::Deferred(row) => &row.event,
            CandidateSource::Delivery(message) => message.decoded.event()?,
        };
        Some((event.source.clone(), event.id.clone()))
    }

    /// Returns the crashes counted by other processes or by an earlier life of this one.
    fn previous_crashes(&self) -> u32 {
        match self.state {
            CandidateState::Pending(count) if self.is_counted_by_us() => count - 1,
            CandidateState::Pending(count) | CandidateState::Done(count) => count,
            CandidateState::Unknown => 0,
        }
    }

    fn is_counted_by_us(&self) -> bool {
        matches!((self.state, self.counted_by_us), (CandidateState::Pending(count), Some(counted_by_us)) if count >= counted_by_us)
    }

    /// Raises the crash count, unless this process has done so already.
    pub(super) fn begin(&mut self) -> Option<CrashCountChange> {
        let (CandidateState::Pending(before), false) = (self.state, self.is_counted_by_us()) else {
            return None;
        };
        let (source, id) = self.key()?;
        let after = before.saturating_add(1);
        self.counted_by_us = Some(after);
        Some(CrashCountChange {
            source,
            id,
            before,
            after,
        })
    }

    /// Notes that the count of [`PoisonCandidate::begin`] is written.
    pub(super) fn counted(&mut self) {
        if let (CandidateState::Pending(_), Some(counted_by_us)) = (self.state, self.counted_by_us)
        {
            self.state = CandidateState::Pending(counted_by_us);
        }
    }

    /// Notes that the count was certainly not written.
    pub(super) fn not_counted(&mut self) {
        if !self.is_counted_by_us() {
            self.counted_by_us = None;
        }
    }

    /// Returns the reset of the crash count, to be committed with the event's outcome.
    pub(super) fn end(&self) -> Option<CrashCountChange> {
        let before = match self.state {
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
        self.state = CandidateState::Unknown;
    }
}

/// Decides the next step for the first of these candidates, which were looked up.
pub(super) fn plan_trial<'a>(
    candidates: impl IntoIterator<Item = &'a PoisonCandidate>,
    limit: u32,
) -> TrialPlan {
    let mut keys = std::collections::HashSet::new();
    let mut together = 0;
    for candidate in candidates {
        let crashes = candidate.previous_crashes();
        if candidate.is_open() {
            let alone = crashes > 0 || candidate.past == DeliveryHistory::LimitExceeded;
            match (together, alone) {
                (0, true) if crashes >= limit => return TrialPlan::Poison(crashes),
                (0, true) => return TrialPlan::Alone,
                (_, true) => break,
                (_, false) => {}
            }
        }
        // The same event twice: the second is planned again when the first is finished.
        if candidate.key().is_some_and(|key| !keys.insert(key)) {
            break;
        }
        together += 1;
    }
    TrialPlan::Together(together)
}

/// Asks for the rows that tell whether a handler may be called for the candidates not yet looked up, and for their
/// crash counts.
pub(super) fn read_set<'a>(candidates: impl IntoIterator<Item = &'a PoisonCandidate>) -> ReadSet {
    let mut ask = ReadSet::default();
    let unknown = candidates
        .into_iter()
        .filter(|candidate| candidate.state == CandidateState::Unknown);
    for candidate in unknown {
        if let Some(key) = candidate.key() {
            ask.crash_counts.push(key.clone());
            if let CandidateSource::Delivery(message) = &candidate.source
                && let Some(event) = message.decoded.event()
            {
                ask.owners.push(event.source.clone());
                match event.sequence {
                    Some(sequence) => {
                        ask.streams.push(event.stream());
                        ask.deferred_at.push((event.stream(), sequence));
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
    candidates: impl IntoIterator<Item = &'a mut PoisonCandidate>,
    loaded: ReadResult,
    limits: &Limits,
    now: Timestamp,
) {
    let mut owners = loaded.owners.into_iter();
    let mut crash_counts = loaded.crash_counts.into_iter();
    let mut streams = loaded.streams.into_iter().zip(loaded.deferred_at);
    let mut seen = loaded.seen.into_iter();
    let unknown = candidates
        .into_iter()
        .filter(|candidate| candidate.state == CandidateState::Unknown);
    for candidate in unknown {
        let mut count = || crash_counts.next().unwrap_or_default();
        candidate.state = match &candidate.source {
            CandidateSource::Deferred(_) => CandidateState::Pending(count()),
            CandidateSource::Delivery(message) => {
                let Some(event) = message.decoded.event() else {
                    candidate.state = CandidateState::Done(0);
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
                    Some(sequence) => streams.next().is_some_and(|(stream, deferred)| {
                        let next = stream.cursor.saturating_add(1);
                        sequence.get() < next
                            || deferred.is_some()
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
