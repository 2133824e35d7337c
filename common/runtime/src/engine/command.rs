//! Commands as a role takes them, and what has become of each.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
};

use doorstep_event::{EventId, Rejection, Request, RequestId, RequestResult, Source};
use doorstep_store::{EntityKey, RequestHash};
use sha2::{Digest, Sha256};

use super::{decoded_event::panic_text, inbound::DeliveryHistory};
use crate::Role;

/// What has become of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandResult {
    /// It is answered: obeyed, and durably so, now or before; or refused, and nothing was changed.
    Answer(RequestResult),
    /// Its deadline had passed before it was begun: nobody waits, and nothing was done.
    Expired,
}

/// Commands on their way through the engine. What is decided stays decided, whatever becomes of the rest.
pub struct Commands<C> {
    /// Not worked yet, and read once, however often they have to be worked.
    pub(super) fresh: Vec<PreparedCommand<C>>,
    /// Those that a process may have died of: each is worked alone, and read only after its trial is counted.
    pub(super) suspects: VecDeque<CandidateCommand>,
    decided: Vec<(usize, CommandResult)>,
}

/// A command that was read.
pub(super) struct PreparedCommand<C> {
    /// Its place among those that came together.
    pub(super) place: usize,
    pub(super) request: Request,
    pub(super) hash: RequestHash,
    /// What it is, with the entities that it touches; `None` before the role has read it.
    pub(super) understood: Option<Result<(C, Vec<EntityKey>), Rejection>>,
}

/// A command that a process may have died of.
pub(super) struct CandidateCommand {
    pub(super) place: usize,
    pub(super) request: Request,
    /// The count of trials that this process has written, or is not sure to have written: it has survived that one.
    pub(super) begun: Option<u32>,
}

/// What a plan says of a command.
pub(super) enum PlannedCommand {
    Decided(CommandResult),
    /// Trials of it are counted, so it must not be worked together with others.
    Suspect,
}

impl<C> Commands<C> {
    pub(super) fn new(commands: impl IntoIterator<Item = (Request, DeliveryHistory)>) -> Self {
        let mut new = Self::none();
        for (place, (request, past)) in commands.into_iter().enumerate() {
            match past {
                DeliveryHistory::First => new.fresh.push(PreparedCommand::unread(place, request)),
                DeliveryHistory::Redelivered | DeliveryHistory::LimitExceeded => {
                    new.suspects.push_back(CandidateCommand {
                        place,
                        request,
                        begun: None,
                    })
                }
            }
        }
        new
    }

    pub(super) fn none() -> Self {
        Self {
            fresh: Vec::new(),
            suspects: VecDeque::new(),
            decided: Vec::new(),
        }
    }

    /// Whether all of them are decided.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.fresh.is_empty() && self.suspects.is_empty()
    }

    /// What has been decided since this was asked last, each with its place among those that came together, counted from 0.
    pub fn take_decided(&mut self) -> Vec<(usize, CommandResult)> {
        std::mem::take(&mut self.decided)
    }

    /// Drops those that have to be worked alone and that nobody waits for any more, as told by their places, and returns these. One whose
    /// trial is counted already stays: what comes of it forgets the trial.
    pub fn give_up(&mut self, is_gone: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut given_up = Vec::new();
        self.suspects.retain(|suspect| {
            let stays = suspect.begun.is_some() || !is_gone(suspect.place);
            if !stays {
                given_up.push(suspect.place);
            }
            stays
        });
        given_up
    }

    /// Takes in what a written plan says of those that are fresh.
    pub(super) fn decide(&mut self, outcomes: Vec<PlannedCommand>) {
        for (command, outcome) in self.fresh.drain(..).zip(outcomes) {
            match outcome {
                PlannedCommand::Decided(decided) => self.decided.push((command.place, decided)),
                PlannedCommand::Suspect => self.suspects.push_back(CandidateCommand {
                    place: command.place,
                    request: command.request,
                    begun: None,
                }),
            }
        }
    }

    /// Takes in what has become of the first suspect.
    pub(super) fn decide_candidate(&mut self, decided: CommandResult) {
        if let Some(suspect) = self.suspects.pop_front() {
            self.decided.push((suspect.place, decided));
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
        }
    }

    /// A suspect, not read yet.
    pub(super) fn of_suspect(suspect: &CandidateCommand) -> Self {
        Self::unread(suspect.place, suspect.request.clone())
    }

    /// Has the role read it, unless it has done so before.
    pub(super) fn read<R: Role<Command = C>>(&mut self, role: &R) {
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

    /// The entities that it touches.
    pub(super) fn keys(&self) -> &[EntityKey] {
        match &self.understood {
            Some(Ok((_, keys))) => keys,
            Some(Err(_)) | None => &[],
        }
    }

    /// Under what its reply is kept.
    pub(super) fn name(&self) -> (Source, RequestId) {
        reply_key(&self.request)
    }
}

/// Under what the reply to a command is kept.
pub(super) fn reply_key(request: &Request) -> (Source, RequestId) {
    (request.caller.clone(), request.id.clone())
}

/// Under what the trials of a command are counted: apart from those of events, whose ids it may share.
pub fn crash_key(request: &Request) -> (Source, EventId) {
    let mut hash = Sha256::new();
    hash.update((request.caller.as_str().len() as u64).to_be_bytes());
    hash.update(request.caller.as_str());
    hash.update(request.id.as_str());
    let digits: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
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

/// Tells a command from another under the same id.
pub(super) fn hash_of(request: &Request) -> RequestHash {
    let mut hash = Sha256::new();
    hash.update((request.kind.as_str().len() as u64).to_be_bytes());
    hash.update(request.kind.as_str());
    hash.update(&request.data);
    RequestHash(hash.finalize().into())
}

/// What is said of a request on which the role's code has panicked.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Rejection {
    Rejection::new(
        Rejection::FAILED,
        format!("the handler panicked: {}", panic_text(panic)),
    )
}
