//! Events that a process may have died of: which they are, and which of them may be tried together.
//!
//! Before the handler is asked about such an event, a trial of it is counted in the store; the commit of what has come of it forgets
//! the trials. So a count that is found is the number of processes that have ended in between, and nothing rests on how a broker
//! counts. Where nothing is counted yet, events are tried together, so that a restart costs one commit more for each batch. Of those
//! one may be the poison: from then on each is tried alone, until it is done or has used up its trials.

use doorstep_event::{EventId, Source, Timestamp};
use doorstep_store::{CrashCountChange, DeferredEvent, ReadResult, ReadSet};

use super::{
    inbound::{DeliveryHistory, InboundMessage},
    owners::{Verdict, judge},
};
use crate::Limits;

/// An event that a process may have died of.
pub(super) struct PoisonCandidate {
    pub(super) matter: CandidateSource,
    past: DeliveryHistory,
    standing: CandidateState,
    /// The count that this process has written, or is not sure to have written: it has survived that trial.
    begun: Option<u32>,
}

/// Where a suspect comes from.
pub(super) enum CandidateSource {
    Delivery(InboundMessage),
    Held(DeferredEvent),
}

/// What the store says of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// Not looked up yet, or no longer sure.
    Unknown,
    /// No handler will be asked: it is applied, held, dead or seen already, and that never ends. With its trials, which are forgotten.
    Done(u32),
    /// A handler may be asked. With its trials.
    Pending(u32),
}

/// How the first of several suspects are to be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrialPlan {
    /// So many of them together.
    Together(usize),
    /// The first alone.
    Alone,
    /// The first is a dead letter, without asking the handler: so many processes have ended while it was tried.
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

    /// A held event, which this process may have begun to try before.
    pub(super) fn held(row: DeferredEvent, begun: Option<u32>) -> Self {
        Self {
            matter: CandidateSource::Held(row),
            past: DeliveryHistory::Redelivered,
            standing: CandidateState::Unknown,
            begun,
        }
    }

    /// The count that this process has written, or may have written.
    pub(super) fn counted_by_us(&self) -> Option<u32> {
        self.begun
    }

    /// Whether a handler may be asked about it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.standing, CandidateState::Pending(_))
    }

    fn key(&self) -> Option<(Source, EventId)> {
        let event = match &self.matter {
            CandidateSource::Held(row) => &row.event,
            CandidateSource::Delivery(InboundMessage::Event { event, .. }) => event,
            CandidateSource::Delivery(InboundMessage::Unreadable { .. }) => return None,
        };
        Some((event.source.clone(), event.id.clone()))
    }

    /// The trials that others have counted, or this process in a former life.
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

    /// Counts a trial, unless this process has done so already.
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

    /// The count that [`Suspect::begin`] asked for is written.
    pub(super) fn counted(&mut self) {
        if let (CandidateState::Pending(_), Some(begun)) = (self.standing, self.begun) {
            self.standing = CandidateState::Pending(begun);
        }
    }

    /// It is certain that the count was not written.
    pub(super) fn not_counted(&mut self) {
        if !self.is_counted_by_us() {
            self.begun = None;
        }
    }

    /// Forgets the trials, with the commit of what has come of it.
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

    /// What was looked up may have changed.
    pub(super) fn forget(&mut self) {
        self.standing = CandidateState::Unknown;
    }
}

/// How the first of these, which were looked up, are to be met.
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
        // The same event twice: the second is looked at again when the first is done.
        if suspect.key().is_some_and(|key| !keys.insert(key)) {
            break;
        }
        together += 1;
    }
    TrialPlan::Together(together)
}

/// Asks for what tells whether a handler may be asked about those that were not looked up, and how often they were tried.
pub(super) fn ask<'a>(suspects: impl IntoIterator<Item = &'a PoisonCandidate>) -> ReadSet {
    let mut ask = ReadSet::default();
    let unknown = suspects
        .into_iter()
        .filter(|suspect| suspect.standing == CandidateState::Unknown);
    for suspect in unknown {
        if let Some(key) = suspect.key() {
            ask.trials.push(key.clone());
            if let CandidateSource::Delivery(InboundMessage::Event { event, .. }) = &suspect.matter
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

/// Takes in what was read for them.
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
            CandidateSource::Delivery(InboundMessage::Unreadable { .. }) => CandidateState::Done(0),
            CandidateSource::Delivery(InboundMessage::Event { event, sender, .. }) => {
                let count = count();
                let owner = owners.next().unwrap_or_default().owner;
                let verdict = judge(owner.as_ref(), sender, now, limits.former_owner_grace);
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
                    // The trials are those of the owner's event of the same id.
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
