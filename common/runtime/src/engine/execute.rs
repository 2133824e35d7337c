//! Execution of commands: beside events in one commit, or alone for poison candidates.

use doorstep_event::{Rejection, Request, Timestamp};
use doorstep_store::{
    Commit, CrashCountChange, ReadSet, Result, Store, TaskId, TaskToken, WriteSet,
};

use super::{
    BatchCursor, BatchReport, DeliveryHistory, Engine, Isolation, Segment,
    command::{
        CandidateCommand, CommandResult, Commands, PlannedCommand, PreparedCommand, crash_key,
        reply_key,
    },
    poison::{PoisonCandidate, valid},
};
use crate::Role;

impl<R: Role, S: Store> Engine<R, S> {
    /// Takes commands with their delivery history.
    pub fn read_commands(
        &self,
        commands: impl IntoIterator<Item = (Request, DeliveryHistory)>,
    ) -> Commands<R::Command> {
        Commands::new(self.store.source().clone(), commands)
    }

    /// Executes the next of these commands: all at once, unless some may have crashed a process; see
    /// [`Commands::is_done`].
    ///
    /// May be cancelled: the interrupted commit is then written completely or not at all, and its commands must not be
    /// replied to.
    ///
    /// # Errors
    /// The store could not be used; the same commands may be passed again.
    pub async fn execute(
        &mut self,
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport> {
        self.clock.start();
        if !commands.fresh.is_empty() {
            return self.process_shared(&[], commands, now, jitter).await;
        }
        self.process_candidate_command(commands, now, jitter).await
    }

    /// Processes the next of these deliveries, as [`Engine::process`] does, together with these commands: in one commit
    /// if possible.
    ///
    /// May be cancelled: the interrupted commit is then written completely or not at all; its deliveries must not be
    /// acked, nor its commands replied to.
    ///
    /// # Errors
    /// The store could not be used; the same batch and commands may be passed again.
    pub async fn process_with_commands(
        &mut self,
        batch: &mut BatchCursor<R::Payload>,
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport> {
        self.clock.start();
        let Some(part) = batch.parts.front_mut() else {
            return self.execute(commands, now, jitter).await;
        };
        if !commands.is_done()
            && (matches!(part, Segment::Candidates(_)) || commands.fresh.is_empty())
        {
            return self.execute(commands, now, jitter).await;
        }
        if let Segment::Fresh(fresh) = part {
            let _together = self.process.shared().await;
            let read = std::mem::take(fresh).into_iter();
            *part = Segment::Read(read.map(|incoming| self.prepare(incoming)).collect());
        }
        let worked = match part {
            Segment::Candidates(candidates) => {
                let (worked, done) = self.process_candidates(candidates, now, jitter).await?;
                // Those that were applied before a crash may not be archived yet.
                let archived = candidates.iter().take(done);
                self.role
                    .archive(&mut archived.filter_map(PoisonCandidate::delivered_event));
                candidates.drain(..done);
                batch.done += done;
                if !candidates.is_empty() {
                    return Ok(worked);
                }
                worked
            }
            Segment::Read(items) => {
                let worked = self.process_shared(items, commands, now, jitter).await?;
                self.role
                    .archive(&mut items.iter().filter_map(|item| valid(&item.decoded)));
                batch.done += items.len();
                worked
            }
            Segment::Fresh(_) => BatchReport::default(),
        };
        batch.parts.pop_front();
        Ok(worked)
    }

    /// Executes the first poison candidate while no other handler of the process runs.
    async fn process_candidate_command(
        &mut self,
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<BatchReport> {
        for conflicts in 0..=self.limits.conflicts {
            if commands.candidates.is_empty() {
                return Ok(BatchReport::default());
            }
            let tried = self.try_candidate_command(commands, now, jitter).await?;
            if let Some((worked, planned)) = tried {
                commands.decide_candidate(planned);
                return Ok(BatchReport {
                    conflicts,
                    ..worked
                });
            }
        }
        Err(self.too_many_conflicts())
    }

    /// Raises the crash count, executes, and resets the count with the result. Returns `None` on a conflict.
    async fn try_candidate_command(
        &mut self,
        commands: &mut Commands<R::Command>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, PlannedCommand)>> {
        let Some(candidate) = commands.candidates.front_mut() else {
            return Ok(None);
        };
        if let Some(end) = &candidate.end {
            let lease = (end.lease.row.id.clone(), end.lease.token);
            return self.try_candidate_end(candidate, lease, now, jitter).await;
        }
        let (source, id) = crash_key(&candidate.request);
        let ask = ReadSet {
            crash_counts: vec![(source.clone(), id.clone())],
            replies: vec![reply_key(&candidate.request)],
            ..ReadSet::default()
        };
        // Locked from before the count is raised until it is reset, so that no other handler can crash the process
        // meanwhile.
        let process = self.process.clone();
        let _alone = process.exclusive().await;
        let mut loaded = self.store.load(ask).await?;
        let mut count = loaded.crash_counts.pop().unwrap_or_default();
        let stored = loaded.replies.pop().flatten().is_some();
        let trial = |before, after| CrashCountChange {
            source: source.clone(),
            id: id.clone(),
            before,
            after,
        };
        if stored || candidate.request.deadline <= self.clock.time(now) {
            // No handler will be called: the process crashed between the commit and the reply, or no client waits any
            // more.
            let prepared = [PreparedCommand::of_suspect(candidate)];
            let ends = (count > 0).then(|| trial(count, 0));
            return self.attempt_alone(&prepared, ends, now, jitter).await;
        }
        let has_begun = candidate
            .counted_by_us
            .is_some_and(|counted_by_us| count >= counted_by_us);
        let former = count.saturating_sub(u32::from(has_begun));
        if former >= self.limits.max_crashes {
            // The crash count stays, so that a repeated request does not crash the process once more.
            let detail = format!("the process ended {former} times while it executed this command");
            let rejected = Rejection::new(Rejection::FAILED, detail);
            let written = self.try_commit(&[], &[], Isolation::Exclusive, Vec::new(), now, jitter);
            let decided = PlannedCommand::Decided(CommandResult::Answer(Err(rejected)));
            return Ok(written.await?.map(|(worked, _)| (worked, decided)));
        }
        if !has_begun {
            let mut changes = WriteSet::at(now);
            changes.crash_counts = vec![trial(count, count.saturating_add(1))];
            count = count.saturating_add(1);
            // The count may be written even if the store's response was lost.
            candidate.counted_by_us = Some(count);
            if self.store.commit(changes).await? == Commit::Conflict {
                candidate.counted_by_us = None;
                return Ok(None);
            }
        }
        let mut prepared = [PreparedCommand::of_suspect(candidate)];
        prepared[0].read(&*self.role, now);
        let ends = Some(trial(count, 0));
        self.attempt_alone(&prepared, ends, now, jitter).await
    }

    /// Ends a task that has crashed a process, alone. Returns `None` on a conflict.
    async fn try_candidate_end(
        &mut self,
        candidate: &CandidateCommand,
        lease: (TaskId, TaskToken),
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, PlannedCommand)>> {
        let process = self.process.clone();
        let _alone = process.exclusive_of_handlers().await;
        let mut prepared = [PreparedCommand::of_suspect(candidate)];
        // The role's code does not see an end that is not this process's any more: a crash would be counted for nobody.
        let ask = ReadSet {
            leases: vec![lease],
            ..ReadSet::default()
        };
        if self.store.load(ask).await?.leases == [true] {
            prepared[0].read(&*self.role, now);
        }
        self.attempt_alone(&prepared, None, now, jitter).await
    }

    async fn attempt_alone(
        &mut self,
        command: &[PreparedCommand<R::Command>],
        ends: Option<CrashCountChange>,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Option<(BatchReport, PlannedCommand)>> {
        let ends = ends.into_iter().collect();
        let attempt = self.try_commit(&[], command, Isolation::Exclusive, ends, now, jitter);
        Ok(attempt
            .await?
            .and_then(|(worked, outcomes)| match outcomes.into_iter().next() {
                Some(PlannedCommand::Candidate) | None => None,
                Some(planned) => Some((worked, planned)),
            }))
    }
}
