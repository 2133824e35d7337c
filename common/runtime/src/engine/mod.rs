//! Works batches: reads what they touch, decides every event in order, and commits all of it or nothing.
//!
//! What the engine guarantees, whatever runs beside it and wherever it is stopped:
//! - an event is applied once: its cursor and its effects are one commit;
//! - the events of a stream are applied in their order: what comes early is held;
//! - a command is obeyed once, whatever repeats it: its reply and its effects are one commit, and a refusal changes nothing;
//! - after [`Engine::work`] has returned `Ok`, every event of the batch is applied, held, dead or dropped, durably, so the batch
//!   may be settled; before that, nothing may be.
//!
//! What it does not do: it does not settle, does not publish, and never waits for anything but its store.

mod batch;
mod clock;
mod command;
mod epochs;
mod memory;
mod obey;
mod owners;
mod plan;
mod prepared;
mod process;
mod query;
mod rehearse;
mod slots;
mod suspect;
mod trials;

pub use command::{Commands, Decided, trial_key};
pub(crate) use owners::{is_foreign, is_from_owner};
pub use query::Queries;
pub use rehearse::Rehearsal;

use std::{sync::Arc, time::Instant};

use doorstep_event::Timestamp;
use doorstep_store::{
    Commit, CrashCountChange, DeferredEvent, EventCounts, ReadSet, Store, StoreError, StoreUsage,
};

use crate::{
    Limits, Role,
    told::{Committed, Death},
};
use batch::Part;
pub use batch::{Incoming, Past, ReadBatch};
use clock::Clock;
use command::{Outcome, PreparedCommand};
use memory::Memory;
use plan::{Alone, Known, Plan, Trust};
use prepared::{Held, Origin, Prepared};
pub use process::SharedProcess;
use slots::Slots;
use trials::Start;

/// What a batch, or a part of one, has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worked {
    /// What became of its events.
    pub tally: EventCounts,
    /// How full the store's bounded tables are now.
    pub usage: StoreUsage,
    /// Outbox rows that the commit has added, or a few less.
    pub owed: usize,
    /// How often it had to be worked again because somebody else had changed what it had read.
    pub conflicts: usize,
}

/// A role's engine. One task works it; several engines may share a store.
pub struct Engine<R: Role, S: Store> {
    role: Arc<R>,
    store: S,
    limits: Limits,
    memory: Memory<R::State>,
    process: SharedProcess,
    start: Start,
    clock: Clock,
    trust: Trust,
    commit: metrics::Histogram,
}

/// Who else's code may run while a batch is worked, and what comes along with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    /// Handlers of others; what is held next comes along.
    Anybody,
    /// Handlers of others; nothing that is held: what is next is made due instead.
    Others,
    /// Nobody's and nothing.
    Nobody,
}

impl<R: Role, S: Store> Engine<R, S> {
    /// An engine for a role on its store.
    pub fn new(role: R, store: S, limits: Limits) -> Self {
        Self {
            memory: Memory::new(limits.remembered_rows),
            commit: Committed::meter(role.name()),
            role: Arc::new(role),
            store,
            limits,
            process: SharedProcess::default(),
            start: Start::default(),
            clock: Clock::Since(Instant::now()),
            trust: Trust::Full,
        }
    }

    /// Shares a process with other engines. Without this, it has one of its own.
    #[must_use]
    pub fn sharing(mut self, process: SharedProcess) -> Self {
        self.process = process;
        self
    }

    /// Its process has started at that time: what is held and was due by then may be what a process before it has died of. Without
    /// this, nothing held is suspected.
    #[must_use]
    pub fn started_at(mut self, started: Timestamp) -> Self {
        self.start = Start::at(started);
        self
    }

    /// Time passes only from one call to the next, and not while a call waits, so that what it comes to is a matter of what it is given.
    #[must_use]
    pub fn with_still_clock(mut self) -> Self {
        self.clock = Clock::StandsStill;
        self
    }

    /// Tells whether the clock that the engine is given has run evenly for long. While it has not, no waiting event expires, since the clock
    /// may be ahead. Without this, it has.
    pub fn trust_clock(&mut self, is_steady: bool) {
        self.trust = if is_steady {
            Trust::Full
        } else {
            Trust::Limited
        };
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

    /// Takes deliveries that nobody was given before.
    pub fn read_batch(&self, batch: Vec<Incoming>) -> ReadBatch<R::Fact> {
        self.read_deliveries(batch.into_iter().map(|incoming| (incoming, Past::First)))
    }

    /// Takes deliveries with what is known of their past.
    pub fn read_deliveries(
        &self,
        batch: impl IntoIterator<Item = (Incoming, Past)>,
    ) -> ReadBatch<R::Fact> {
        ReadBatch::new(batch)
    }

    /// Works the next of these deliveries, in their order: all of them at once unless a process may have died of some, see
    /// [`ReadBatch::is_done`]. `jitter`, from 0 to 1, spreads the next tries of what is put off.
    ///
    /// May be cancelled: what this call was about to do is then written whole or not at all, and must not be settled.
    ///
    /// # Errors
    /// The store could not be used; the same batch may be worked on.
    pub async fn work(
        &mut self,
        batch: &mut ReadBatch<R::Fact>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Worked, StoreError> {
        self.work_beside(batch, &mut Commands::none(), now, jitter)
            .await
    }

    /// Works events and commands that nobody was given before, in one commit.
    async fn work_together(
        &mut self,
        items: &[Prepared<R::Fact>],
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Worked, StoreError> {
        if !commands.fresh.is_empty() {
            let _together = self.process.together().await;
            for command in &mut commands.fresh {
                command.read(&*self.role);
            }
        }
        for conflicts in 0..=self.limits.conflicts {
            let fresh = &commands.fresh;
            let attempt = self.attempt(items, fresh, Company::Anybody, Vec::new(), now, jitter);
            if let Some((worked, outcomes)) = attempt.await? {
                commands.decide(outcomes);
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
        if let Some(worked) = self.work_due_at_start(now, jitter).await? {
            return Ok(Some(worked));
        }
        for conflicts in 0..=self.limits.conflicts {
            // Asked for anew after a conflict: somebody else may have worked the very same rows.
            let mut due = self.due(now).await?;
            if due.is_empty() {
                return Ok(None);
            }
            // In the order of each stream; the order between streams does not matter.
            due.sort_by_key(|held| held.event.sequence);
            let items: Vec<_> = {
                let _together = self.process.together().await;
                due.into_iter()
                    .map(|held| self.prepare_held(held))
                    .collect()
            };
            let attempt = self.attempt(&items, &[], Company::Anybody, Vec::new(), now, jitter);
            if let Some((worked, _)) = attempt.await? {
                return Ok(Some(Worked {
                    conflicts,
                    ..worked
                }));
            }
        }
        Err(self.contended())
    }

    async fn due(&self, by: Timestamp) -> Result<Vec<DeferredEvent>, StoreError> {
        let bytes = self.limits.batch_bytes as u64;
        self.store.due(by, self.limits.due_events, bytes).await
    }

    /// Has the role read a delivery.
    fn prepare(&self, incoming: Incoming) -> Prepared<R::Fact> {
        match incoming {
            Incoming::Event {
                event,
                defect,
                sender,
            } => Prepared::event(&*self.role, event, defect, Origin::Delivery(sender)),
            Incoming::Unreadable {
                body,
                headers,
                defect,
                id,
            } => Prepared::unreadable(body, headers, defect, id),
        }
    }

    fn prepare_held(&self, held: DeferredEvent) -> Prepared<R::Fact> {
        let (event, defect, origin) = Held::of(held);
        Prepared::event(&*self.role, event, defect, origin)
    }

    /// Reads, decides and commits once. Returns `None` on a conflict: nothing was written.
    async fn attempt(
        &mut self,
        items: &[Prepared<R::Fact>],
        commands: &[PreparedCommand<R::Command>],
        company: Company,
        trials: Vec<CrashCountChange>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(Worked, Vec<Outcome>)>, StoreError> {
        // From here to the end of the plan the role's own code runs, which may end the process.
        let process = self.process.clone();
        let together = match company {
            Company::Anybody | Company::Others => Some(process.together().await),
            Company::Nobody => None,
        };
        let (slots, known) = self.read(items, commands, company).await?;
        // Pure from here to the commit: the same items over other rows give another plan, and nothing was done in between.
        let mut plan = Plan::make(
            &*self.role,
            &self.limits,
            slots,
            items,
            self.trust,
            now,
            jitter,
        );
        let alone = match company {
            Company::Anybody | Company::Others => Alone::No,
            Company::Nobody => Alone::Yes,
        };
        let outcomes = plan.obey_all(commands, known, alone, self.clock);
        drop(together);
        if plan.has_met_unread() {
            return Ok(None);
        }
        let (mut changes, slots) = self.number(plan).await?;
        changes.crash_counts = trials;
        let mut tally = changes.counts;
        let owed = changes.outbox.len();
        let perhaps_known =
            (changes.dead_letters_if_absent.len() + changes.streamless.len()) as u64;
        let mut dead = Death::all(changes.dead_letters.iter().map(|new| &new.row));
        let mut perhaps_dead =
            Death::all(changes.dead_letters_if_absent.iter().map(|new| &new.row));
        perhaps_dead.extend(Death::all(changes.streamless.iter().map(|new| &new.row)));
        let began = Instant::now();
        match self.store.commit(changes).await? {
            Commit::Written(written) => {
                dead.extend(
                    perhaps_dead
                        .into_iter()
                        .take(written.dead_lettered as usize),
                );
                Committed {
                    role: self.role.name(),
                    commit: &self.commit,
                    took: began.elapsed(),
                    dead,
                    overflowed: written.overflowed,
                }
                .tell();
                slots.remember(&written, &mut self.memory);
                tally.dead += written.dead_lettered;
                tally.duplicates +=
                    perhaps_known.saturating_sub(written.dead_lettered + written.overflowed);
                let worked = Worked {
                    tally,
                    usage: written.usage,
                    owed,
                    conflicts: 0,
                };
                Ok(Some((worked, outcomes)))
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

    /// Reads every row that the batch touches and that is not remembered, and what is known of its commands.
    async fn read(
        &mut self,
        items: &[Prepared<R::Fact>],
        commands: &[PreparedCommand<R::Command>],
        company: Company,
    ) -> Result<(Slots<R>, Known), StoreError> {
        let mut known = Known::default();
        let mut ask = ReadSet::default();
        let mut slots = Slots::claim(items, commands, &mut self.memory, &mut ask);
        // What is held comes along within the batch's bound: little of each where there are many streams.
        let share = self.limits.batch_events / ask.streams.len().max(1);
        if company == Company::Anybody {
            ask.held_per_stream = share.max(1).min(self.limits.held_per_stream);
            ask.held_bytes = self.limits.batch_bytes as u64;
        }
        if !slots::is_empty(&ask) {
            let mut loaded = self.store.load(ask.clone()).await?;
            known.replies = std::mem::take(&mut loaded.replies);
            known.trials = std::mem::take(&mut loaded.trials);
            slots.fill(&ask, loaded, &self.memory)?;
        }
        // What is held next came along with the streams; the entities that it touches are known only now. Reading them a moment
        // later than their streams does no harm: the commit checks every version.
        let mut ask = ReadSet::default();
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
        Ok((slots, known))
    }

    /// Gives what the handlers emit its sequences, which needs the last ones given, and turns the plan into changes.
    async fn number(
        &self,
        plan: Plan<'_, R>,
    ) -> Result<(doorstep_store::WriteSet, Slots<R>), StoreError> {
        let ask = ReadSet {
            outgoing: plan.emitted_subjects(),
            ..ReadSet::default()
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
