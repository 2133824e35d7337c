//! Works batches: reads what they touch, decides every event in order, and commits all of it or nothing.
//!
//! What the engine guarantees, whatever runs beside it and wherever it is stopped:
//! - an event is applied once: its cursor and its effects are one commit;
//! - the events of a stream are applied in their order: what comes early is held;
//! - after [`Engine::work`] has returned `Ok`, every event of the batch is applied, held, dead or dropped, durably, so the batch
//!   may be settled; before that, nothing may be.
//!
//! What it does not do: it does not settle, does not publish, and never waits for anything but its store.

mod memory;
mod plan;
mod prepared;
mod rehearse;
mod slots;

pub use rehearse::Rehearsal;

use bytes::Bytes;
use doorstep_event::{Event, Timestamp};
use doorstep_store::{Ask, Commit, HeldRow, Store, StoreError, Tally, Usage};

use crate::{Limits, Role};
use memory::Memory;
use plan::Plan;
use prepared::{Held, Origin, Prepared};
use slots::Slots;

/// A delivery, read as far as it could be.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// An event. With a defect, it will be refused when it is next in its stream.
    Event {
        /// The event.
        event: Event,
        /// What is wrong with its message, if anything is.
        defect: Option<String>,
    },
    /// A message that has no place in any stream.
    Unreadable {
        /// Its body.
        body: Bytes,
        /// What could be read of its headers, as JSON.
        headers: String,
        /// What is wrong with it.
        defect: String,
    },
}

/// What a batch has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worked {
    /// What became of its events.
    pub tally: Tally,
    /// How full the store's bounded tables are now.
    pub usage: Usage,
    /// Outbox rows that the commit has added, or a few less.
    pub owed: usize,
    /// How often it had to be worked again because somebody else had changed what it had read.
    pub conflicts: usize,
}

/// Deliveries as a role has read them.
pub struct ReadBatch<R: Role>(Vec<Prepared<R::Fact>>);

/// A role's engine. One task works it; several engines may share a store.
pub struct Engine<R: Role, S: Store> {
    role: R,
    store: S,
    limits: Limits,
    memory: Memory<R::State>,
}

impl<R: Role, S: Store> Engine<R, S> {
    /// An engine for a role on its store.
    pub fn new(role: R, store: S, limits: Limits) -> Self {
        Self {
            memory: Memory::new(limits.remembered_rows),
            role,
            store,
            limits,
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The role.
    pub fn role(&self) -> &R {
        &self.role
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads deliveries as this role reads them. Done once, however often the batch has to be worked.
    pub fn read_batch(&self, batch: Vec<Incoming>) -> ReadBatch<R> {
        ReadBatch(
            batch
                .into_iter()
                .map(|incoming| match incoming {
                    Incoming::Event { event, defect } => {
                        Prepared::event(&self.role, event, defect, Origin::Delivery)
                    }
                    Incoming::Unreadable {
                        body,
                        headers,
                        defect,
                    } => Prepared::unreadable(body, headers, defect),
                })
                .collect(),
        )
    }

    /// Works deliveries, in their order. `jitter`, from 0 to 1, spreads the next tries of what is put off.
    ///
    /// May be cancelled: the batch is then written whole or not at all, and must not be settled.
    ///
    /// # Errors
    /// The store could not be used; the same batch may be worked again.
    pub async fn work(
        &mut self,
        batch: &ReadBatch<R>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Worked, StoreError> {
        for conflicts in 0..=self.limits.conflicts {
            if let Some(worked) = self.attempt(&batch.0, now, jitter).await? {
                return Ok(Worked {
                    conflicts,
                    ..worked
                });
            }
        }
        Err(self.contended())
    }

    /// Works held events that are due: those whose time has come, whose awaited entity has changed, whose predecessor was applied,
    /// and dead letters to be replayed. Returns `None` if none is due.
    ///
    /// # Errors
    /// The store could not be used.
    pub async fn work_due(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<Worked>, StoreError> {
        for conflicts in 0..=self.limits.conflicts {
            // Asked for anew after a conflict: somebody else may have worked the very same rows.
            let mut due = self.store.due(now, self.limits.due_events).await?;
            if due.is_empty() {
                return Ok(None);
            }
            // In the order of each stream; the order between streams does not matter.
            due.sort_by_key(|held| held.event.sequence);
            let items: Vec<_> = due
                .into_iter()
                .map(|held| self.prepare_held(held))
                .collect();
            if let Some(worked) = self.attempt(&items, now, jitter).await? {
                return Ok(Some(Worked {
                    conflicts,
                    ..worked
                }));
            }
        }
        Err(self.contended())
    }

    fn prepare_held(&self, held: HeldRow) -> Prepared<R::Fact> {
        let origin = Origin::Held(Box::new(Held {
            id: held.id,
            reason: held.reason,
            since: held.since,
            attempts: held.attempts,
        }));
        Prepared::event(&self.role, held.event, held.defect, origin)
    }

    /// Reads, decides and commits once. Returns `None` on a conflict: nothing was written.
    async fn attempt(
        &mut self,
        items: &[Prepared<R::Fact>],
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<Worked>, StoreError> {
        let slots = self.read(items).await?;
        // Pure from here to the commit: the same items over other rows give another plan, and nothing was done in between.
        let plan = Plan::make(&self.role, &self.limits, slots, items, now, jitter);
        let (changes, slots) = self.number(plan).await?;
        let mut tally = changes.tally;
        let owed = changes.outbox.len();
        let perhaps_known = changes.dead_if_absent.len() as u64;
        match self.store.commit(changes).await? {
            Commit::Written(written) => {
                slots.remember(&written, &mut self.memory);
                tally.dead += written.buried;
                tally.duplicates += perhaps_known.saturating_sub(written.buried);
                Ok(Some(Worked {
                    tally,
                    usage: written.usage,
                    owed,
                    conflicts: 0,
                }))
            }
            // Everything that was remembered of this batch went into its slots and is dropped with them, so the next attempt
            // reads all of it afresh.
            Commit::Conflict => Ok(None),
        }
    }

    fn contended(&self) -> StoreError {
        StoreError::Unavailable {
            store: self.role.name().to_owned(),
            detail: format!(
                "{} commits in a row met changes made by others",
                self.limits.conflicts
            ),
        }
    }

    /// Reads every row that the batch touches and that is not remembered.
    async fn read(&mut self, items: &[Prepared<R::Fact>]) -> Result<Slots<R>, StoreError> {
        let mut ask = Ask::default();
        let mut slots = Slots::claim(items, &mut self.memory, &mut ask);
        // What is held comes along within the batch's bound: little of each where there are many streams.
        let share = self.limits.batch_events / ask.streams.len().max(1);
        ask.held_per_stream = share.max(1).min(self.limits.held_per_stream);
        if !slots::is_empty(&ask) {
            let loaded = self.store.load(ask.clone()).await?;
            slots.fill(&ask, loaded, &self.memory)?;
        }
        // What is held next came along with the streams; the entities that it touches are known only now. Reading them a moment
        // later than their streams does no harm: the commit checks every version.
        let mut ask = Ask::default();
        let held: Vec<_> = slots
            .take_loaded_held()
            .into_iter()
            .map(|row| {
                let held = self.prepare_held(row);
                let claim = slots.claim_held(&held, &mut self.memory, &mut ask);
                (held, claim)
            })
            .collect();
        slots.ask_places(items, &mut ask);
        if !slots::is_empty(&ask) {
            let loaded = self.store.load(ask.clone()).await?;
            slots.fill(&ask, loaded, &self.memory)?;
        }
        slots.queue_held(held);
        Ok(slots)
    }

    /// Gives what the handlers emit its sequences, which needs the last ones given, and turns the plan into changes.
    async fn number(
        &self,
        plan: Plan<'_, R>,
    ) -> Result<(doorstep_store::Changes, Slots<R>), StoreError> {
        let ask = Ask {
            outgoing: plan.emitted_subjects(),
            ..Ask::default()
        };
        let subjects = ask.outgoing.clone();
        let last = if subjects.is_empty() {
            Vec::new()
        } else {
            self.store.load(ask).await?.outgoing
        };
        plan.finish(self.store.source(), subjects, last)
    }
}
