//! A store whose every method takes a step before and after its work, so that a crash or another actor can come
//! between. It may also fail, before or after its effect, and can be given a bug that the checks have to find.

use doorstep_event::{Sequence, Source, StreamKey, Timestamp};
use doorstep_runtime::Limits;
use doorstep_store::{
    AuditFilter, AuditId, AuditPage, Beat, ClaimTasks, Claimed, Commit, DeadLetter,
    DeadLetterFilter, DeadLetterGroup, DeadLetterId, DeferReason, DeferredEvent, EntityKey,
    EntityRow, ExpectedVersion, HolderRow, OutboxRow, OwnEpochs, PrunedTo, ReadResult, ReadSet,
    SequenceGap, SourceRow, Store, StoreError, StoreUsage, StreamRow, Streamless, Summary,
    TableUsage, TaskChange, TaskFate, TaskFilter, TaskHolder, TaskId, TaskProgress, TaskRow,
    TaskToken, WriteSet,
};

use super::{
    crashing_role::stop_if_dead,
    executor::step,
    world::{Fault, Shared, with},
};

/// A bug that a store could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bug {
    #[default]
    None,
    /// The versions of streams are not compared.
    IgnoresStreamVersions,
    /// The versions of entities are not compared.
    IgnoresEntityVersions,
    /// The deferred event that comes next is not made due.
    ForgetsNextHeld,
    /// Events that wait for an entity are not made due when that changes.
    ForgetsAwaiting,
    /// A cursor is not written.
    LosesCursors,
    /// The ids of events without a sequence are not written.
    LosesSeenIds,
    /// Replies to commands are not written.
    LosesReplies,
    /// Scheduled events are now and then not released.
    KeepsScheduled,
    /// Commits of commands are now and then reported as written without being so.
    WritesLate,
    /// The times up to which ids and replies were pruned are not returned.
    ForgetsPruning,
    /// The end of a lease is taken under the token of a later one.
    IgnoresTokens,
    /// The ends of tasks with a result are not written.
    LosesTaskEnds,
    /// The end of a task that has ended is written once more.
    EndsTwice,
    /// A task has one token for all its leases.
    ReusesTokens,
}

/// The places of an operation's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Before the operation and after it: a crash may come between its effect and its result.
    Around,
    /// Before the operation only: enough for every order of operations, and for every crash between two of them.
    Before,
}

/// A store in steps.
#[derive(Clone)]
pub struct YieldingStore<S> {
    store: S,
    world: Shared,
    bug: Bug,
    steps: Steps,
}

impl<S: Store> YieldingStore<S> {
    pub fn new(store: S, world: Shared, bug: Bug, steps: Steps) -> Self {
        Self {
            store,
            world,
            bug,
            steps,
        }
    }

    fn fails(&self, fault: Fault) -> Result<(), StoreError> {
        if with(&self.world, |world| world.strikes(fault)) {
            return Err(StoreError::Unavailable {
                store: "simulated".into(),
                detail: format!("{fault:?}"),
            });
        }
        Ok(())
    }

    async fn yielding_store<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        stop_if_dead(&self.world).await;
        step().await;
        self.fails(Fault::StoreBefore)?;
        let result = operation.await?;
        self.fails(Fault::StoreAfter)?;
        if self.steps == Steps::Around {
            step().await;
        }
        Ok(result)
    }

    async fn commit_and_note(&self, mut changes: WriteSet) -> Result<Commit, StoreError> {
        let before = self.current(&changes).await?;
        self.spoil(&mut changes, &before);
        let meant = changes.tasks.clone();
        let ids: Vec<_> = meant.iter().map(id_of).cloned().collect();
        let tasks_before = self.store.read_tasks(ids.clone()).await?;
        self.spoil_ends(&mut changes, &tasks_before);
        if self.bug == Bug::KeepsScheduled {
            let all = self.store.due(Timestamp::MAX, usize::MAX, u64::MAX).await?;
            let scheduled = |id| {
                all.iter()
                    .any(|row| row.id == id && row.reason == DeferReason::Scheduled)
            };
            if with(&self.world, |world| world.faulty && world.rng.one_in(2)) {
                changes.release.retain(|id| !scheduled(*id));
            }
        }
        if self.bug == Bug::WritesLate && !changes.replies.is_empty() {
            let nothing = self.store.commit(WriteSet::at(changes.now)).await?;
            if with(&self.world, |world| world.faulty && world.rng.one_in(3)) {
                return Ok(nothing);
            }
        }
        let mut settled = Vec::new();
        for (id, _, fate) in &changes.resolve {
            let found = self
                .store
                .dead_letters(DeadLetterFilter::Id(id.clone()), None, 1)
                .await?;
            settled.extend(found.into_iter().map(|dead| (dead, *fate)));
        }
        let commit = self.store.commit(changes.clone()).await?;
        if commit != Commit::Conflict && !ids.is_empty() {
            let tasks_after = self.store.read_tasks(ids).await?;
            with(&self.world, |world| {
                let dead = &changes.dead_letters;
                let tasks = &mut world.history.tasks;
                let seen = tasks.committed(&meant, dead, &tasks_before, &tasks_after);
                for what in seen {
                    world.history.count(what);
                }
            });
        }
        with(&self.world, |world| {
            world.note(|| story(&changes, &commit));
            world.history.committed(&changes, &before, settled, &commit);
        });
        Ok(commit)
    }

    /// Returns which leases are held, as a store with the bug says.
    async fn leases(
        &self,
        asked: Vec<(TaskId, TaskToken)>,
        held: Vec<bool>,
    ) -> Result<Vec<bool>, StoreError> {
        let ids = asked.iter().map(|(id, _)| id.clone()).collect();
        let rows = self.store.read_tasks(ids).await?;
        let leases = asked.iter().zip(held).zip(rows);
        let leases = leases.map(|(((_, token), held), row)| {
            let row = row.filter(|row| row.lease.is_some());
            match self.bug {
                Bug::EndsTwice => true,
                Bug::IgnoresTokens => row.is_some(),
                Bug::ReusesTokens => row.is_some_and(|row| reused(&row) == *token),
                _ => held,
            }
        });
        Ok(leases.collect())
    }

    /// Changes the tokens of ends, or drops ends, as a store with the bug does.
    fn spoil_ends(&self, changes: &mut WriteSet, before: &[Option<TaskRow>]) {
        if !matches!(
            self.bug,
            Bug::IgnoresTokens | Bug::EndsTwice | Bug::ReusesTokens
        ) {
            return;
        }
        let rows: Vec<_> = before.iter().flatten().collect();
        changes.tasks.retain_mut(|change| {
            let TaskChange::End(end) = change else {
                return true;
            };
            let row = rows.iter().find(|row| row.id == end.id);
            let lease = row.and_then(|row| row.lease);
            match self.bug {
                Bug::EndsTwice => lease.is_some_and(|lease| lease.token == end.token),
                Bug::ReusesTokens if row.is_none_or(|row| reused(row) != end.token) => true,
                _ => {
                    end.token = lease.map_or(end.token, |lease| lease.token);
                    true
                }
            }
        });
    }

    /// Returns the present rows that the changes concern.
    async fn current(&self, changes: &WriteSet) -> Result<ReadResult, StoreError> {
        self.store
            .load(ReadSet {
                streams: changes.streams.iter().map(|c| c.key.clone()).collect(),
                entities: changes.entities.iter().map(|c| c.key.clone()).collect(),
                seen: changes
                    .seen
                    .iter()
                    .map(|(s, id, _)| (s.clone(), id.clone()))
                    .collect(),
                replies: changes
                    .replies
                    .iter()
                    .map(|r| (r.caller.clone(), r.id.clone()))
                    .collect(),
                ..ReadSet::default()
            })
            .await
    }

    fn spoil(&self, changes: &mut WriteSet, now: &ReadResult) {
        match self.bug {
            Bug::IgnoresStreamVersions => {
                for (change, now) in changes.streams.iter_mut().zip(&now.streams) {
                    change.expect = ExpectedVersion {
                        row: now.row,
                        version: now.version,
                    };
                }
            }
            Bug::IgnoresEntityVersions => {
                for (change, now) in changes.entities.iter_mut().zip(&now.entities) {
                    change.expect = ExpectedVersion {
                        row: now.row,
                        version: now.version,
                    };
                }
            }
            Bug::LosesCursors => {
                for (change, now) in changes.streams.iter_mut().zip(&now.streams) {
                    if let Some(after) = &mut change.after {
                        after.cursor = now.cursor;
                        after.last_id.clone_from(&now.last_id);
                        after.epoch = now.epoch;
                    }
                }
            }
            Bug::LosesSeenIds => changes.seen.clear(),
            Bug::LosesReplies => changes.replies.clear(),
            Bug::ForgetsPruning => changes.pruned_to = now.pruned_to,
            Bug::LosesTaskEnds => changes.tasks.retain(|change| !is_done(change)),
            Bug::None
            | Bug::IgnoresTokens
            | Bug::EndsTwice
            | Bug::ReusesTokens
            | Bug::ForgetsNextHeld
            | Bug::ForgetsAwaiting
            | Bug::KeepsScheduled
            | Bug::WritesLate => {}
        }
    }
}

fn id_of(change: &TaskChange) -> &TaskId {
    match change {
        TaskChange::Start(new) => &new.id,
        TaskChange::Cancel(id) | TaskChange::Decide { id, .. } => id,
        TaskChange::End(end) => &end.id,
    }
}

fn is_done(change: &TaskChange) -> bool {
    matches!(change, TaskChange::End(end) if end.fate == TaskFate::Done)
}

/// Returns the token of a store that has one for each task.
fn reused(row: &TaskRow) -> TaskToken {
    TaskToken(i64::try_from(row.number).unwrap())
}

/// Describes a commit in a line of the trace.
fn story(changes: &WriteSet, commit: &Commit) -> String {
    let streams: Vec<_> = changes
        .streams
        .iter()
        .map(|c| match &c.after {
            Some(after) => format!("{} to {} {:?}", c.key, after.cursor, after.blocked),
            None => format!("{} read", c.key),
        })
        .collect();
    let held: Vec<_> = changes
        .defer
        .iter()
        .map(|h| format!("{} {:?} until {:?}", h.event.id, h.reason, h.due))
        .collect();
    let dead: Vec<_> = changes
        .dead_letters
        .iter()
        .chain(&changes.dead_letters_if_absent)
        .map(|new| &new.row)
        .chain(changes.streamless.iter().map(|new| &new.row))
        .map(|row| format!("{} {}", row.id, row.reason))
        .collect();
    let what = match commit {
        Commit::Written(_) => "commits",
        Commit::Conflict => "meets a conflict with",
    };
    format!(
        "{what} tasks {:?}, streams {streams:?}, holds {held:?}, releases {:?}, puts off {:?}, buries {dead:?}, settles {:?}, pays {}, owes {}",
        changes.tasks,
        changes.release,
        changes.reschedule,
        changes.resolve,
        changes.published.len(),
        changes.outbox.len(),
    )
}

impl<S: Store> Store for YieldingStore<S> {
    fn source(&self) -> &Source {
        self.store.source()
    }

    async fn load(&self, ask: ReadSet) -> Result<ReadResult, StoreError> {
        let leases = ask.leases.clone();
        let mut loaded = self.yielding_store(self.store.load(ask)).await?;
        if !leases.is_empty() {
            loaded.leases = self.leases(leases, loaded.leases).await?;
        }
        if self.bug == Bug::ForgetsPruning {
            loaded.pruned_to = PrunedTo::default();
        }
        Ok(loaded)
    }

    async fn read_entities(&self, entities: Vec<EntityKey>) -> Result<Vec<EntityRow>, StoreError> {
        self.yielding_store(self.store.read_entities(entities))
            .await
    }

    async fn commit(&self, changes: WriteSet) -> Result<Commit, StoreError> {
        self.yielding_store(self.commit_and_note(changes)).await
    }

    async fn due(
        &self,
        now: Timestamp,
        limit: usize,
        max_bytes: u64,
    ) -> Result<Vec<DeferredEvent>, StoreError> {
        let due = self.store.due(now, usize::MAX, max_bytes);
        let mut due = self.yielding_store(due).await?;
        match self.bug {
            Bug::ForgetsNextHeld => due.retain(|held| held.reason != DeferReason::OutOfOrder),
            Bug::ForgetsAwaiting => {
                let longest = Limits::default().initial_backoff;
                due.retain(|held| {
                    !matches!(held.reason, DeferReason::WaitingFor(_))
                        || held.since.checked_add(longest).is_ok_and(|due| due <= now)
                });
            }
            _ => {}
        }
        due.truncate(limit);
        Ok(due)
    }

    async fn repair_due(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.yielding_store(self.store.repair_due(now)).await
    }

    async fn clamp_due_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64, StoreError> {
        self.yielding_store(self.store.clamp_due_times(now, beyond))
            .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.yielding_store(self.store.next_due()).await
    }

    async fn outbox(&self, now: Timestamp, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.yielding_store(self.store.outbox(now, limit)).await
    }

    async fn entities(
        &self,
        after: Option<EntityKey>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        self.yielding_store(self.store.entities(after, limit)).await
    }

    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.yielding_store(self.store.dead_letters(filter, after, limit))
            .await
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>, StoreError> {
        self.yielding_store(self.store.dead_letter_groups(limit))
            .await
    }

    async fn deferred_sequences(
        &self,
        stream: StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Sequence>, StoreError> {
        self.yielding_store(self.store.deferred_sequences(stream, after, limit))
            .await
    }

    async fn audit(
        &self,
        filter: AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        self.yielding_store(self.store.audit(filter, before, limit))
            .await
    }

    async fn gaps(
        &self,
        older_than: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SequenceGap>, StoreError> {
        self.yielding_store(self.store.gaps(older_than, now, limit))
            .await
    }

    async fn prune_seen(&self, older_than: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.yielding_store(self.store.prune_seen(older_than, limit))
            .await
    }

    async fn prune_crash_counts(
        &self,
        older_than: Timestamp,
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.yielding_store(self.store.prune_crash_counts(older_than, limit))
            .await
    }

    async fn prune_replies(&self, older_than: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.yielding_store(self.store.prune_replies(older_than, limit))
            .await
    }

    async fn streamless(&self, least: TableUsage, limit: usize) -> Result<Streamless, StoreError> {
        self.yielding_store(self.store.streamless(least, limit))
            .await
    }

    async fn claim_tasks(&self, ask: ClaimTasks) -> Result<Claimed, StoreError> {
        let mut claimed = self.yielding_store(self.store.claim_tasks(ask)).await?;
        if self.bug == Bug::ReusesTokens {
            for task in &mut claimed.tasks {
                task.token = reused(&task.row);
            }
        }
        Ok(claimed)
    }

    async fn beat_tasks(
        &self,
        holder: TaskHolder,
        progress: Vec<TaskProgress>,
        now: Timestamp,
    ) -> Result<Beat, StoreError> {
        self.yielding_store(self.store.beat_tasks(holder, progress, now))
            .await
    }

    async fn task_holders(&self) -> Result<Vec<HolderRow>, StoreError> {
        self.yielding_store(self.store.task_holders()).await
    }

    async fn take_over_tasks(
        &self,
        holder: TaskHolder,
        beat: u64,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        self.yielding_store(self.store.take_over_tasks(holder, beat, now))
            .await
    }

    async fn clamp_task_times(&self, now: Timestamp, beyond: Timestamp) -> Result<u64, StoreError> {
        self.yielding_store(self.store.clamp_task_times(now, beyond))
            .await
    }

    async fn end_holder(&self, holder: TaskHolder, now: Timestamp) -> Result<(), StoreError> {
        self.yielding_store(self.store.end_holder(holder, now))
            .await
    }

    async fn read_tasks(&self, ids: Vec<TaskId>) -> Result<Vec<Option<TaskRow>>, StoreError> {
        self.yielding_store(self.store.read_tasks(ids)).await
    }

    async fn tasks(
        &self,
        filter: TaskFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<TaskRow>, StoreError> {
        self.yielding_store(self.store.tasks(filter, after, limit))
            .await
    }

    async fn usage(&self) -> Result<StoreUsage, StoreError> {
        self.yielding_store(self.store.usage()).await
    }

    async fn summary(&self, now: Timestamp) -> Result<Summary, StoreError> {
        self.yielding_store(self.store.summary(now)).await
    }

    async fn epochs(&self) -> Result<OwnEpochs, StoreError> {
        self.yielding_store(self.store.epochs()).await
    }

    async fn sources(
        &self,
        after: Option<Source>,
        limit: usize,
    ) -> Result<Vec<SourceRow>, StoreError> {
        self.yielding_store(self.store.sources(after, limit)).await
    }

    async fn streams(
        &self,
        after: Option<StreamKey>,
        limit: usize,
    ) -> Result<Vec<StreamRow>, StoreError> {
        self.yielding_store(self.store.streams(after, limit)).await
    }
}
