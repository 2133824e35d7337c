//! The engine of a role: reads the rows that a batch touches, decides every event in order, and commits all or nothing.
//!
//! Guarantees, under any concurrency and any interruption:
//! - an event is applied once: its cursor and its effects are one commit;
//! - the events of a stream are applied in order: early ones are deferred;
//! - a command is executed once, however often it is repeated: its reply and its effects are one commit, and a
//!   rejection changes nothing;
//! - once [`Engine::process`] has returned `Ok`, every event of the batch is durably applied, deferred, dead-lettered
//!   or dropped, so the batch may be acked; before that, none may be.
//!
//! The engine neither acks nor publishes, and waits only for its store.

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
mod plan;
mod poison;
mod query;
mod row_cache;
mod source_owners;
pub mod tasks;
mod working_set;

pub use command::{CommandResult, Commands, crash_key};
pub(crate) use decoded_event::panic_text;
pub use dry_run::DryRun;
pub use query::Queries;
pub(crate) use source_owners::{is_foreign, is_from_owner};
pub(crate) use working_set::state_of;

use std::{sync::Arc, time::Instant};

use doorstep_event::Timestamp;
use doorstep_store::{
    Commit, CrashCountChange, DeferredEvent, EventCounts, ReadSet, Result, Store, StoreError,
    StoreUsage,
};

use crate::{
    Limits, Role,
    telemetry::{CommitInstruments, DeadLettered},
};
pub use batch::BatchCursor;
use batch::Segment;
use clock::Clock;
use command::{PlannedCommand, PreparedCommand};
use crash_guard::StartupDue;
use decoded_event::{DecodedEvent, DeferredItem};
pub use handler_lock::HandlerLock;
pub use inbound::{DeliveryHistory, InboundMessage};
use plan::{
    Plan, Trust,
    commands::{Alone, Known},
};
use row_cache::RowCache;
use working_set::WorkingSet;

/// The result of a batch or a part of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// The outcomes of its events.
    pub tally: EventCounts,
    /// The fill level of the store's bounded tables after it.
    pub usage: StoreUsage,
    /// The outbox rows that the commit has added, or slightly fewer.
    pub pending: usize,
    /// The changes of tasks in the commit.
    pub task_changes: usize,
    /// The number of repetitions because another process had changed a row that was read.
    pub conflicts: usize,
}

/// The engine of a role. One task drives it; several engines may share a store.
pub struct Engine<R: Role, S: Store> {
    role: Arc<R>,
    store: S,
    limits: Limits,
    memory: RowCache<R::State>,
    process: HandlerLock,
    start: StartupDue,
    clock: Clock,
    trust: Trust,
    meters: CommitInstruments,
}

/// The code that may run beside a batch, and the rows that it takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// Other handlers may run, and the deferred events that come next are taken along.
    Shared,
    /// Other handlers may run. Deferred events are not taken along: those that come next become due instead.
    SharedNoDeferred,
    /// No other handler runs, and no deferred event is taken along.
    Exclusive,
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Creates an engine for a role on its store.
    pub fn new(role: R, store: S, limits: Limits) -> Self {
        Self {
            memory: RowCache::new(limits.remembered_rows),
            meters: CommitInstruments::new(role.name()),
            role: Arc::new(role),
            store,
            limits,
            process: HandlerLock::default(),
            start: StartupDue::default(),
            clock: Clock::Running(Instant::now()),
            trust: Trust::Full,
        }
    }

    /// Shares a process with other engines. Without this call, the engine counts as alone in its process.
    #[must_use]
    pub fn sharing(mut self, process: HandlerLock) -> Self {
        self.process = process;
        self
    }

    /// Sets the start time of its process. An event deferred and due by then may have crashed an earlier process.
    /// Without this call, no deferred event is a poison candidate.
    #[must_use]
    pub fn started_at(mut self, started: Timestamp) -> Self {
        self.start = StartupDue::at(started);
        self
    }

    /// Freezes the clock during a call, so that its result depends only on its arguments.
    #[must_use]
    pub fn with_frozen_clock(mut self) -> Self {
        self.clock = Clock::Frozen;
        self
    }

    /// Reports whether the given clock has run evenly for long enough. While it has not, it may be ahead, so no
    /// deferred event expires. Without this call, the clock is trusted.
    pub fn trust_clock(&mut self, is_steady: bool) {
        self.trust = if is_steady {
            Trust::Full
        } else {
            Trust::Limited
        };
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    pub fn role(&self) -> &R {
        &self.role
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes deliveries that no consumer has received before.
    pub fn read_batch(&self, batch: Vec<InboundMessage>) -> BatchCursor<R::Payload> {
        self.read_deliveries(
            batch
                .into_iter()
                .map(|incoming| (incoming, DeliveryHistory::First)),
        )
    }

    /// Takes deliveries with their delivery history.
    pub fn read_deliveries(
        &self,
        batch: impl IntoIterator<Item = (InboundMessage, DeliveryHistory)>,
    ) -> BatchCursor<R::Payload> {
        BatchCursor::new(batch)
    }

    /// Processes the next deliveries in order: all at once, unless some may have crashed a process; see
    /// [`BatchCursor::is_done`]. `jitter`, from 0 to 1, spreads the next attempts of deferred events.
    ///
    /// May be cancelled: the interrupted commit is then written completely or not at all, and its deliveries must not
    /// be acked.
    ///
    /// # Errors
    /// The store could not be used; the same batch may be passed again.
    pub async fn process(
        &mut self,
        batch: &mut BatchCursor<R::Payload>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport> {
        self.process_with_commands(
            batch,
            &mut Commands::none(self.store.source().clone()),
            now,
            jitter,
        )
        .await
    }

    /// Processes events and commands without a delivery history, in one commit.
    async fn process_shared(
        &mut self,
        items: &[DecodedEvent<R::Payload>],
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport> {
        if !commands.fresh.is_empty() {
            let _together = self.process.shared().await;
            for command in &mut commands.fresh {
                command.read(&*self.role, now);
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

    /// Processes the deferred events that are due: their time has come, the awaited entity has changed, the predecessor
    /// was applied, or they replay a dead letter. Returns `None` if none is due.
    ///
    /// # Errors
    /// The store could not be used.
    pub async fn process_due(
        &mut self,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<BatchReport>> {
        if let Some(worked) = self.process_due_at_start(now, jitter).await? {
            return Ok(Some(worked));
        }
        for conflicts in 0..=self.limits.conflicts {
            // Read again after a conflict: another process may have handled the very same rows.
            let mut due = self.due(now).await?;
            if due.is_empty() {
                return Ok(None);
            }
            // Sorted by sequence within each stream; the order between streams does not matter.
            due.sort_by_key(|deferred| deferred.event.sequence);
            let items: Vec<_> = {
                let _together = self.process.shared().await;
                due.into_iter()
                    .map(|deferred| self.prepare_deferred(deferred))
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

    async fn due(&self, by: Timestamp) -> Result<Vec<DeferredEvent>> {
        let bytes = self.limits.batch_bytes as u64;
        self.store.due(by, self.limits.due_events, bytes).await
    }

    fn prepare(&self, incoming: InboundMessage) -> DecodedEvent<R::Payload> {
        DecodedEvent::delivery(&*self.role, incoming)
    }

    fn prepare_deferred(&self, deferred: DeferredEvent) -> DecodedEvent<R::Payload> {
        let (decoded, origin) = DeferredItem::split(deferred);
        DecodedEvent::event(&*self.role, decoded, origin)
    }

    /// Reads, decides and commits once. Returns `None` on a conflict: nothing was written.
    async fn try_commit(
        &mut self,
        items: &[DecodedEvent<R::Payload>],
        commands: &[PreparedCommand<R::Command>],
        company: Isolation,
        crash_counts: Vec<CrashCountChange>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, Vec<PlannedCommand>)>> {
        // From here to the end of the plan, the role's own code runs and may crash the process.
        let process = self.process.clone();
        let together = match company {
            Isolation::Shared | Isolation::SharedNoDeferred => Some(process.shared().await),
            Isolation::Exclusive => None,
        };
        let (slots, known) = self.read(items, commands, company).await?;
        // Planning is pure up to the commit: a conflict discards the plan and nothing else.
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
        changes.crash_counts = crash_counts;
        let mut tally = changes.counts;
        let pending = changes.outbox.len();
        let task_changes = changes.tasks.len();
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
                self.meters
                    .committed(began.elapsed(), dead, written.overflowed);
                slots.remember(&written, &mut self.memory);
                tally.dead_letters += written.dead_lettered;
                tally.duplicates +=
                    perhaps_known.saturating_sub(written.dead_lettered + written.overflowed);
                let worked = BatchReport {
                    tally,
                    usage: written.usage,
                    pending,
                    task_changes,
                    conflicts: 0,
                };
                Ok(Some((worked, outcomes)))
            }
            // The slots hold every cached row of this batch and are dropped here, so the next attempt reads all of them
            // afresh.
            Commit::Conflict => Ok(None),
        }
    }

    fn too_many_conflicts(&self) -> StoreError {
        StoreError::Unavailable {
            store: self.role.name().to_owned(),
            detail: format!(
                "{} commits in a row conflicted with other writers",
                self.limits.conflicts
            ),
        }
    }

    /// Reads every row that the batch touches and that is not cached, and the store's knowledge of its commands.
    async fn read(
        &mut self,
        items: &[DecodedEvent<R::Payload>],
        commands: &[PreparedCommand<R::Command>],
        company: Isolation,
    ) -> Result<(WorkingSet<R>, Known)> {
        let mut known = Known::default();
        let mut ask = ReadSet::default();
        let mut slots = WorkingSet::reserve(items, commands, &mut self.memory, &mut ask);
        // Deferred events are taken along within the batch's bound: the more streams, the fewer of each.
        let share = self.limits.batch_size / ask.streams.len().max(1);
        if company == Isolation::Shared {
            ask.deferred_per_stream = share.max(1).min(self.limits.deferred_per_stream);
            ask.deferred_bytes = self.limits.batch_bytes as u64;
        }
        if !working_set::is_empty(&ask) {
            let mut loaded = self.store.load(ask.clone()).await?;
            known.replies = std::mem::take(&mut loaded.replies);
            known.crash_counts = std::mem::take(&mut loaded.crash_counts);
            known.leases = std::mem::take(&mut loaded.leases);
            slots.fill(&ask, loaded, &self.memory)?;
        }
        // The deferred events that come next were read with the streams; only now are their entities known. Reading
        // these a moment later is safe: the commit checks every version.
        let mut ask = ReadSet::default();
        let deferred: Vec<_> = slots
            .take_loaded_deferred()
            .into_iter()
            .map(|row| {
                let deferred = self.prepare_deferred(row);
                let claim = slots.reserve_deferred(&deferred, &mut self.memory, &mut ask);
                (deferred, claim)
            })
            .collect();
        slots.ask_places(items, &mut ask);
        if !working_set::is_empty(&ask) {
            let loaded = self.store.load(ask.clone()).await?;
            slots.fill(&ask, loaded, &self.memory)?;
        }
        slots.queue_deferred(deferred);
        Ok((slots, known))
    }

    /// Assigns sequences to the emitted events, after a read of the last ones used, and turns the plan into changes.
    async fn number(&self, plan: Plan<'_, R>) -> Result<(doorstep_store::WriteSet, WorkingSet<R>)> {
        let ask = ReadSet {
            emitted_sequences: plan.emitted_subjects(),
            ..ReadSet::default()
        };
        let subjects = ask.emitted_sequences.clone();
        let last = if subjects.is_empty() {
            Vec::new()
        } else {
            self.store.load(ask).await?.emitted_sequences
        };
        plan.finish(self.store.source(), subjects, last)
    }
}
