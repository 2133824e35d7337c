//! Events that a process may have died of: which they are, and which of them may be tried together.
//!
//! Before the handler is asked about such an event, a trial of it is counted in the store; the commit of what has come of it forgets
//! the trials. So a count that is found is the number of processes that have ended in between, and nothing rests on how a broker
//! counts. Where nothing is counted yet, events are tried together, so that a restart costs one commit more for each batch. Of those
//! one may be the poison: from then on each is tried alone, until it is done or has used up its trials.

use doorstep_event::{EventId, Source, Timestamp};
use doorstep_store::{CrashCountChange, DeferredEvent, ReadResult, ReadSet};

use super::{
    batch::{Incoming, Past},
    owners::{Verdict, judge},
};
use crate::Limits;

/// An event that a process may have died of.
pub(super) struct Suspect {
    pub(super) matter: Matter,
    past: Past,
    standing: Standing,
    /// The count that this process has written, or is not sure to have written: it has survived that trial.
    begun: Option<u32>,
}

/// Where a suspect comes from.
pub(super) enum Matter {
    Delivery(Incoming),
    Held(DeferredEvent),
}

/// What the store says of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not looked up yet, or no longer sure.
    Unknown,
    /// No handler will be asked: it is applied, held, dead or seen already, and that never ends. With its trials, which are forgotten.
    Settled(u32),
    /// A handler may be asked. With its trials.
    Open(u32),
}

/// How the first of several suspects are to be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    /// So many of them together.
    Together(usize),
    /// The first alone.
    Alone,
    /// The first is a dead letter, without asking the handler: so many processes have ended while it was tried.
    Condemned(u32),
}

impl Suspect {
    pub(super) fn delivery(incoming: Incoming, past: Past) -> Self {
        Self {
            matter: Matter::Delivery(incoming),
            past,
            standing: Standing::Unknown,
            begun: None,
        }
    }

    /// A held event, which this process may have begun to try before.
    pub(super) fn held(row: DeferredEvent, begun: Option<u32>) -> Self {
        Self {
            matter: Matter::Held(row),
            past: Past::Redelivered,
            standing: Standing::Unknown,
            begun,
        }
    }

    /// The count that this process has written, or may have written.
    pub(super) fn begun(&self) -> Option<u32> {
        self.begun
    }

    /// Whether a handler may be asked about it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Open(_))
    }

    fn key(&self) -> Option<(Source, EventId)> {
        let event = match &self.matter {
            Matter::Held(row) => &row.event,
            Matter::Delivery(Incoming::Event { event, .. }) => event,
            Matter::Delivery(Incoming::Unreadable { .. }) => return None,
        };
        Some((event.source.clone(), event.id.clone()))
    }

    /// The trials that others have counted, or this process in a former life.
    fn former_trials(&self) -> u32 {
        match self.standing {
            Standing::Open(count) if self.has_begun() => count - 1,
            Standing::Open(count) | Standing::Settled(count) => count,
            Standing::Unknown => 0,
        }
    }

    fn has_begun(&self) -> bool {
        matches!((self.standing, self.begun), (Standing::Open(count), Some(begun)) if count >= begun)
    }

    /// Counts a trial, unless this process has done so already.
    pub(super) fn begin(&mut self) -> Option<CrashCountChange> {
        let (Standing::Open(before), false) = (self.standing, self.has_begun()) else {
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
        if let (Standing::Open(_), Some(begun)) = (self.standing, self.begun) {
            self.standing = Standing::Open(begun);
        }
    }

    /// It is certain that the count was not written.
    pub(super) fn not_counted(&mut self) {
        if !self.has_begun() {
            self.begun = None;
        }
    }

    /// Forgets the trials, with the commit of what has come of it.
    pub(super) fn end(&self) -> Option<CrashCountChange> {
        let before = match self.standing {
            Standing::Open(count) | Standing::Settled(count) if count > 0 => count,
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
        self.standing = Standing::Unknown;
    }
}

/// How the first of these, which were looked up, are to be met.
pub(super) fn meeting<'a>(suspects: impl IntoIterator<Item = &'a Suspect>, limit: u32) -> Meeting {
    let mut keys = std::collections::HashSet::new();
    let mut together = 0;
    for suspect in suspects {
        let trials = suspect.former_trials();
        if suspect.is_open() {
            let alone = trials > 0 || suspect.past == Past::GivenUp;
            match (together, alone) {
                (0, true) if trials >= limit => return Meeting::Condemned(trials),
                (0, true) => return Meeting::Alone,
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
    Meeting::Together(together)
}

/// Asks for what tells whether a handler may be asked about those that were not looked up, and how often they were tried.
pub(super) fn ask<'a>(suspects: impl IntoIterator<Item = &'a Suspect>) -> ReadSet {
    let mut ask = ReadSet::default();
    let unknown = suspects
        .into_iter()
        .filter(|suspect| suspect.standing == Standing::Unknown);
    for suspect in unknown {
        if let Some(key) = suspect.key() {
            ask.trials.push(key.clone());
            if let Matter::Delivery(Incoming::Event { event, .. }) = &suspect.matter {
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
pub(super) fn look_up<'a>(
    suspects: impl IntoIterator<Item = &'a mut Suspect>,
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
        .filter(|suspect| suspect.standing == Standing::Unknown);
    for suspect in unknown {
        let mut count = || trials.next().unwrap_or_default();
        suspect.standing = match &suspect.matter {
            Matter::Held(_) => Standing::Open(count()),
            Matter::Delivery(Incoming::Unreadable { .. }) => Standing::Settled(0),
            Matter::Delivery(Incoming::Event { event, sender, .. }) => {
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
                    Standing::Settled(0)
                } else if is_settled {
                    Standing::Settled(count)
                } else {
                    Standing::Open(count)
                }
            }
        };
    }
}
