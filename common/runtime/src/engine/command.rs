//! Commands on their way through the engine, and the result of each.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
};

use doorstep_event::{EventId, Rejection, Request, RequestId, RequestResult, Source, Timestamp};
use doorstep_store::{EntityKey, RequestHash};
use sha2::{Digest, Sha256};

use super::{decoded_event::panic_text, inbound::DeliveryHistory, tasks::finished::FinishedTask};
use crate::Role;

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandResult {
    /// The command has a result: it was executed durably, now or before; or it was rejected and changed nothing.
    Answer(RequestResult),
    /// Its deadline passed before it was started: no client waits for it, and nothing was changed.
    Expired,
    /// The task has ended, or waits for an operator: durably, together with the role's answer to it.
    Ended,
    /// The task is no longer leased under its token: another process has it, or it has ended. Nothing was changed.
    LeaseLost,
}

/// Commands, and ends of tasks, on their way through the engine. A decided one stays decided, even if a later one fails.
pub struct Commands<C> {
    /// The role's own source, which sends the results of its tasks.
    source: Source,
    /// The number of commands and ends that came together.
    count: usize,
    /// Not processed yet. Each is decoded once, however often it has to be processed.
    pub(super) fresh: Vec<PreparedCommand<C>>,
    /// Poison candidates: each is processed alone, and decoded only after its crash count has been raised.
    pub(super) candidates: VecDeque<CandidateCommand>,
    decided: Vec<(usize, CommandResult)>,
}

pub(super) struct PreparedCommand<C> {
    /// Its index among the commands that came together.
    pub(super) place: usize,
    pub(super) request: Request,
    pub(super) hash: RequestHash,
    /// The decoded command with the entities that it touches; `None` before the role has decoded it.
    pub(super) understood: Option<Result<(C, Vec<EntityKey>), Rejection>>,
    /// The task that ends with it.
    pub(super) end: Option<Box<FinishedTask>>,
}

/// A command that may have crashed a process.
pub(super) struct CandidateCommand {
    pub(super) index: usize,
    pub(super) request: Request,
    /// The task that ends with it. Its crashes are counted by take-overs.
    pub(super) end: Option<Box<FinishedTask>>,
    /// The crash count that this process has written, or may have written. This process survived that attempt.
    pub(super) counted_by_us: Option<u32>,
}

/// A plan's decision on a command.
pub(super) enum PlannedCommand {
    Decided(CommandResult),
    /// It has a crash count, so it must not be processed together with others.
    Candidate,
    /// The role has rejected the result of a task, which therefore has failed: the role hears of that next.
    ResultRejected(Rejection),
}

impl<C> Commands<C> {
    pub(super) fn new(
        source: Source,
        commands: impl IntoIterator<Item = (Request, DeliveryHistory)>,
    ) -> Self {
        let mut new = Self::none(source);
        for (place, (request, past)) in commands.into_iter().enumerate() {
            new.count += 1;
            match past {
                DeliveryHistory::First => new.fresh.push(PreparedCommand::unread(place, request)),
                DeliveryHistory::Redelivered | DeliveryHistory::LimitExceeded => {
                    new.candidates.push_back(CandidateCommand {
                        index: place,
                        request,
                        end: None,
                        counted_by_us: None,
                    });
                }
            }
        }
        new
    }

    /// Adds tasks that end. They are decided in the same commit as the commands and the events of the batch, but for
    /// those that have crashed a process: each of these is decided alone. [`Commands::take_decided`] returns their
    /// results under the indices that follow those of the commands, and [`Commands::give_up`] keeps all of them.
    ///
    /// The role executes a result as a command of its own source. If the role rejects it or panics, the task has failed
    /// by that: it becomes a dead letter, and the role hears of it as of any failure.
    #[must_use]
    pub fn with_ends(mut self, ends: Vec<FinishedTask>) -> Self {
        for end in ends {
            let place = self.count;
            self.count += 1;
            let request = end.request(&self.source);
            if end.lease.row.crashes == 0 {
                let mut prepared = PreparedCommand::unread(place, request);
                prepared.end = Some(Box::new(end));
                self.fresh.push(prepared);
            } else {
                self.candidates.push_back(CandidateCommand {
                    index: place,
                    request,
                    end: Some(Box::new(end)),
                    counted_by_us: None,
                });
            }
        }
        self
    }

    pub(super) fn none(source: Source) -> Self {
        Self {
            source,
            count: 0,
            fresh: Vec::new(),
            candidates: VecDeque::new(),
            decided: Vec::new(),
        }
    }

    /// Returns whether all of them are decided.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.fresh.is_empty() && self.candidates.is_empty()
    }

    /// Takes the results decided since the last call, each with the index of its command, counted from 0.
    pub fn take_decided(&mut self) -> Vec<(usize, CommandResult)> {
        std::mem::take(&mut self.decided)
    }

    /// Drops the poison candidates that no client waits for any more, by their indices, and returns these. A command
    /// whose crash count this process has raised stays: its result resets the count.
    pub fn give_up(&mut self, is_gone: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut given_up = Vec::new();
        self.candidates.retain(|candidate| {
            let stays = candidate.counted_by_us.is_some()
                || candidate.end.is_some()
                || !is_gone(candidate.index);
            if !stays {
                given_up.push(candidate.index);
            }
            stays
        });
        given_up
    }

    /// Takes in a committed plan's decisions on the fresh commands.
    pub(super) fn decide(&mut self, outcomes: Vec<PlannedCommand>) {
        for (command, outcome) in std::mem::take(&mut self.fresh).into_iter().zip(outcomes) {
            match (outcome, command.end) {
                (PlannedCommand::Decided(decided), _) => {
                    self.decided.push((command.place, decided));
                }
                (PlannedCommand::ResultRejected(rejected), Some(end)) => {
                    let failed = end.with_rejected_result(&rejected);
                    let request = failed.request(&self.source);
                    let mut prepared = PreparedCommand::unread(command.place, request);
                    prepared.end = Some(Box::new(failed));
                    self.fresh.push(prepared);
                }
                (PlannedCommand::Candidate | PlannedCommand::ResultRejected(_), end) => {
                    self.candidates.push_back(CandidateCommand {
                        index: command.place,
                        request: command.request,
                        end,
                        counted_by_us: None,
                    });
                }
            }
        }
    }

    /// Takes in the decision on the first poison candidate.
    pub(super) fn decide_candidate(&mut self, planned: PlannedCommand) {
        let Some(mut candidate) = self.candidates.pop_front() else {
            return;
        };
        match (planned, candidate.end.take()) {
            (PlannedCommand::Decided(decided), _) => self.decided.push((candidate.index, decided)),
            (PlannedCommand::ResultRejected(rejected), Some(end)) => {
                let failed = end.with_rejected_result(&rejected);
                candidate.request = failed.request(&self.source);
                candidate.end = Some(Box::new(failed));
                self.candidates.push_front(candidate);
            }
            (PlannedCommand::Candidate | PlannedCommand::ResultRejected(_), end) => {
                candidate.end = end;
                self.candidates.push_front(candidate);
            }
        }
    }
}

impl<C> PreparedCommand<C> {
    fn unread(place: usize, request: Request) -> Self {
        Self {
            place,
            hash: hash_of(&request),
            request,
            understood: None,
            end: None,
        }
    }

    /// A poison candidate, not decoded yet.
    pub(super) fn of_suspect(candidate: &CandidateCommand) -> Self {
        Self {
            end: candidate.end.clone(),
            ..Self::unread(candidate.index, candidate.request.clone())
        }
    }

    /// Has the role decode it, unless that was done before. The end of a task is as of now.
    pub(super) fn read<R: Role<Command = C>>(&mut self, role: &R, now: Timestamp) {
        if let Some(end) = &self.end
            && self.understood.is_none()
        {
            if !end.is_told() {
                return;
            }
            self.request.time = now;
        }
        let request = &self.request;
        self.understood.get_or_insert_with(|| {
            let read = catch_unwind(AssertUnwindSafe(|| {
                let command = role.read_command(request)?;
                let keys = role.command_keys(request, &command);
                Ok((command, keys))
            }));
            read.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
        });
    }

    pub(super) fn keys(&self) -> &[EntityKey] {
        match &self.understood {
            Some(Ok((_, keys))) => keys,
            Some(Err(_)) | None => &[],
        }
    }

    /// Returns the key of its stored reply.
    pub(super) fn name(&self) -> (Source, RequestId) {
        reply_key(&self.request)
    }
}

/// Returns the key under which the reply to a command is stored.
pub(super) fn reply_key(request: &Request) -> (Source, RequestId) {
    (request.caller.clone(), request.id.clone())
}

/// Returns the key of a command's crash count. It differs from those of events, whose ids a command may share.
pub fn crash_key(request: &Request) -> (Source, EventId) {
    let mut hash = Sha256::new();
    hash.update((request.caller.as_str().len() as u64).to_be_bytes());
    hash.update(request.caller.as_str());
    hash.update(request.id.as_str());
    let digits = hex::encode(hash.finalize());
    #[expect(
        clippy::expect_used,
        reason = "a word, and 64 hexadecimal digits, are well formed"
    )]
    let key = (
        Source::new("commands").expect("a well-formed source"),
        EventId::new(digits).expect("digits are an id"),
    );
    key
}

/// Returns the hash that tells a command from another one under the same id.
pub(super) fn hash_of(request: &Request) -> RequestHash {
    let mut hash = Sha256::new();
    hash.update((request.kind.as_str().len() as u64).to_be_bytes());
    hash.update(request.kind.as_str());
    hash.update(&request.data);
    RequestHash(hash.finalize().into())
}

/// Returns the rejection of a request on which the role's code has panicked.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Rejection {
    Rejection::new(
        Rejection::FAILED,
        format!("the handler panicked: {}", panic_text(panic)),
    )
}
