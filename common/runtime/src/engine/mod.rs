//! Works batches: reads what they touch, decides every event in order, and commits all of it or nothing.
//!
//! What the engine guarantees, whatever runs beside it and wherever it is stopped:
//! - an event is applied once: its cursor and its effects are one commit;
//! - the events of a stream are applied in their order: what comes early is held;
//! - a command is obeyed once, whatever repeats it: its reply and its effects are one commit, and a refusal changes nothing;
//! - after [`Engine::process`] has returned `Ok`, every event of the batch is applied, held, dead or dropped, durably, so the batch
//!   may be settled; before that, nothing may be.
//!
//! What it does not do: it does not settle, does not publish, and never waits for anything but its store.

mod batch;
mod clock;
mod command;
mod crash_guard;
mod decoded_event;
mod dry_run;
mod epochs;
mod execute;
mod handler_lock;
mod inbound;
mod owners;
mod plan;
mod poison;
mod query;
mod row_cache;
mod working_set;

pub use command::{CommandResult, Commands, crash_key};
pub use dry_run::DryRun;
pub(crate) use owners::{is_foreign, is_from_owner};
pub use query::Queries;

use std::{sync::Arc, time::Instant};

use doorstep_event::Timestamp;
use doorstep_store::{
    Commit, CrashCountChange, DeferredEvent, EventCounts, ReadSet, Store, StoreError, StoreUsage,
};

use crate::{
    Limits, Role,
    telemetry::{Committed, DeadLettered},
};
pub use batch::BatchCursor;
use batch::Segment;
use clock::Clock;
use command::{PlannedCommand, PreparedCommand};
use crash_guard::StartupDue;
use decoded_event::{DecodedEvent, DeferredItem, Origin};
pub use handler_lock::HandlerLock;
pub use inbound::{DeliveryHistory, InboundMessage};
use plan::{
    Plan, Trust,
    commands::{Alone, Known},
};
use row_cache::RowCache;
use working_set::WorkingSet;

/// What a batch, or a part of one, has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchReport {
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
    memory: RowCache<R::State>,
    process: HandlerLock,
    start: StartupDue,
    clock: Clock,
    trust: Trust,
    commit: metrics::Histogram,
}

/// Who else's code may run while a batch is worked, and what comes along with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// Handlers of others; what is held next comes along.
    Shared,
    /// Handlers of others; nothing that is held: what is next is made due instead.
    SharedNoDeferred,
    /// Nobody's and nothing.
    Exclusive,
}

impl<R: Role, S: Store> Engine<R, S> {
    /// An engine for a role on its store.
    pub fn new(role: R, store: S, limits: Limits) -> Self {
        Self {
            memory: RowCache::new(limits.remembered_rows),
            commit: Committed::meter(role.name()),
            role: Arc::new(role),
            store,
            limits,
            process: HandlerLock::default(),
            start: StartupDue::default(),
            clock: Clock::Running(Instant::now()),
            trust: Trust::Full,
        }
    }

    /// Shares a process with other engines. Without this, it has one of its own.
    #[must_use]
    pub fn sharing(mut self, process: HandlerLock) -> Self {
        self.process = process;
        self
    }

    /// Its process has started at that time: what is held and was due by then may be what a process before it has died of. Without
    /// this, nothing held is suspected.
    #[must_use]
    pub fn started_at(mut self, started: Timestamp) -> Self {
        self.start = StartupDue::at(started);
        self
    }

    /// Time passes only from one call to the next, and not while a call waits, so that what it comes to is a matter of what it is given.
    #[must_use]
    pub fn with_frozen_clock(mut self) -> Self {
        self.clock = Clock::Frozen;
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
    pub fn read_batch(&self, batch: Vec<InboundMessage>) -> BatchCursor<R::Payload> {
        self.read_deliveries(
            batch
                .into_iter()
                .map(|incoming| (incoming, DeliveryHistory::First)),
        )
    }

    /// Takes deliveries with what is known of their past.
    pub fn read_deliveries(
        &self,
        batch: impl IntoIterator<Item = (InboundMessage, DeliveryHistory)>,
    ) -> BatchCursor<R::Payload> {
        BatchCursor::new(batch)
    }

    /// Works the next of these deliveries, in their order: all of them at once unless a process may have died of some, see
    /// [`BatchCursor::is_done`]. `jitter`, from 0 to 1, spreads the next tries of what is put off.
    ///
    /// May be cancelled: what this call was about to do is then written whole or not at all, and must not be settled.
    ///
    /// # Errors
    /// The store could not be used; the same batch may be worked on.
    pub async fn process(
        &mut self,
        batch: &mut BatchCursor<R::Payload>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport, StoreError> {
        self.process_with_commands(batch, &mut Commands::none(), now, jitter)
            .await
    }

    /// Works events and commands that nobody was given before, in one commit.
    async fn process_shared(
        &mut self,
        items: &[DecodedEvent<R::Payload>],
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport, StoreError> {
        if !commands.fresh.is_empty() {
            let _together = self.process.shared().await;
            for command in &mut commands.fresh {
                command.read(&*self.role);
            }
        }
        for conflicts in 0..=self.limits.conflicts {
            let fresh = &commands.fresh;
            let attempt = self.try_commit(items, fresh, Isolation::Shared, Vec::new(), now, jitter);
            if let Some((worked, outcomes)) = attempt.await? {
                commands.decide(outcomes);
                return Ok(BatchReport {
                    conflicts,
                    ..worked
                });
            }
        }
        Err(self.too_many_conflicts())
    }

    /// Works held events that are due: those whose time has come, whose awaited entity has changed, whose predecessor was applied,
    /// and dead letters to be replayed. Returns `None` if none is due.
    ///
    /// # Errors
    /// The store could not be used.
    pub async fn process_due(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<BatchReport>, StoreError> {
        if let Some(worked) = self.process_due_at_start(now, jitter).await? {
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
                let _together = self.process.shared().await;
                due.into_iter()
                    .map(|held| self.prepare_deferred(held))
                    .collect()
            };
            let attempt = self.try_commit(&items, &[], Isolation::Shared, Vec::new(), now, jitter);
            if let Some((worked, _)) = attempt.await? {
                return Ok(Some(BatchReport {
                    conflicts,
                    ..worked
                }));
            }
        }
        Err(self.too_many_conflicts())
    }

    async fn due(&self, by: Timestamp) -> Result<Vec<DeferredEvent>, StoreError> {
        let bytes = self.limits.batch_bytes as u64;
        self.store.due(by, self.limits.due_events, bytes).await
    }

    /// Has the role read a delivery.
    fn prepare(&self, incoming: InboundMessage) -> DecodedEvent<R::Payload> {
        match incoming {
            InboundMessage::Event {
                event,
                defect,
                sender,
            } => DecodedEvent::event(&*self.role, event, defect, Origin::Delivery(sender)),
            InboundMessage::Unreadable {
                body,
                headers,
                defect,
                id,
            } => DecodedEvent::unreadable(body, headers, defect, id),
        }
    }

    fn prepare_deferred(&self, held: DeferredEvent) -> DecodedEvent<R::Payload> {
        let (event, defect, origin) = DeferredItem::of(held);
        DecodedEvent::event(&*self.role, event, defect, origin)
    }

    /// Reads, decides and commits once. Returns `None` on a conflict: nothing was written.
    async fn try_commit(
        &mut self,
        items: &[DecodedEvent<R::Payload>],
        commands: &[PreparedCommand<R::Command>],
        company: Isolation,
        trials: Vec<CrashCountChange>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, Vec<PlannedCommand>)>, StoreError> {
        // From here to the end of the plan the role's own code runs, which may end the process.
        let process = self.process.clone();
        let together = match company {
            Isolation::Shared | Isolation::SharedNoDeferred => Some(process.shared().await),
            Isolation::Exclusive => None,
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
            Isolation::Shared | Isolation::SharedNoDeferred => Alone::No,
            Isolation::Exclusive => Alone::Yes,
        };
        let outcomes = plan.execute_all(commands, known, alone, self.clock);
        drop(together);
        if plan.needs_replan() {
            return Ok(None);
        }
        let (mut changes, slots) = self.number(plan).await?;
        changes.crash_counts = trials;
        let mut tally = changes.counts;
        let owed = changes.outbox.len();
        let perhaps_known =
            (changes.dead_letters_if_absent.len() + changes.streamless.len()) as u64;
        let mut dead = DeadLettered::all(changes.dead_letters.iter().map(|new| &new.row));
        let mut perhaps_dead =
            DeadLettered::all(changes.dead_letters_if_absent.iter().map(|new| &new.row));
        perhaps_dead.extend(DeadLettered::all(
            changes.streamless.iter().map(|new| &new.row),
        ));
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
                let worked = BatchReport {
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

    fn too_many_conflicts(&self) -> StoreError {
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
        items: &[DecodedEvent<R::Payload>],
        commands: &[PreparedCommand<R::Command>],
        company: Isolation,
    ) -> Result<(WorkingSet<R>, Known), StoreError> {
        let mut known = Known::default();
        let mut ask = ReadSet::default();
        let mut slots = WorkingSet::reserve(items, commands, &mut self.memory, &mut ask);
        // What is held comes along within the batch's bound: little of each where there are many streams.
        let share = self.limits.batch_size / ask.streams.len().max(1);
        if company == Isolation::Shared {
            ask.held_per_stream = share.max(1).min(self.limits.held_per_stream);
            ask.held_bytes = self.limits.batch_bytes as u64;
        }
        if !working_set::is_empty(&ask) {
            let mut loaded = self.store.load(ask.clone()).await?;
            known.replies = std::mem::take(&mut loaded.replies);
            known.trials = std::mem::take(&mut loaded.trials);
            slots.fill(&ask, loaded, &self.memory)?;
        }
        // What is held next came along with the streams; the entities that it touches are known only now. Reading them a moment
        // later than their streams does no harm: the commit checks every version.
        let mut ask = ReadSet::default();
        let held: Vec<_> = slots
            .take_loaded_deferred()
            .into_iter()
            .map(|row| {
                let held = self.prepare_deferred(row);
                let claim = slots.reserve_deferred(&held, &mut self.memory, &mut ask);
                (held, claim)
            })
            .collect();
        slots.ask_places(items, &mut ask);
        if !working_set::is_empty(&ask) {
            let loaded = self.store.load(ask.clone()).await?;
            slots.fill(&ask, loaded, &self.memory)?;
        }
        slots.queue_deferred(held);
        Ok((slots, known))
    }

    /// Gives what the handlers emit its sequences, which needs the last ones given, and turns the plan into changes.
    async fn number(
        &self,
        plan: Plan<'_, R>,
    ) -> Result<(doorstep_store::WriteSet, WorkingSet<R>), StoreError> {
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
