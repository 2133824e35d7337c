//! What a role is: a pure function over state types. It is tested without a broker and without a store, and the runtime can
//! batch it, retry it and replay it at will.

use doorstep_event::{
    Contract, ContractError, Event, EventType, MAX_DATA_BYTES, Rejection, Request, RequestContract,
    Sequence, Subject, Timestamp,
};
use doorstep_store::EntityKey;
use serde::{Serialize, de::DeserializeOwned};

/// One consumer service. No I/O, no clock and no randomness in any of it: a batch may be worked several times before one of its
/// commits is written.
pub trait Role: Send + Sync + 'static {
    /// The events that the role handles, read and checked.
    type Payload: Send + Sync;
    /// The commands that the role obeys, read and checked; [`Unsupported`] where it takes none.
    type Command: Send + Sync;
    /// The queries that the role answers, read and checked; [`Unsupported`] where it takes none.
    type Query: Send + Sync;
    /// The state of one entity. Holds times of events, or the `now` that it was given, and no clock of its own.
    type State: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The role's name: in its queues, its store and its metrics.
    fn name(&self) -> &'static str;

    /// Reads an event.
    ///
    /// # Errors
    /// The event breaks its contract, or is of a type that no contract knows: a dead letter.
    fn read(&self, event: &Event) -> Result<Reading<Self::Payload>, ContractError>;

    /// The entities that the event touches, at least one. The handler is given the states of these and of no others.
    fn keys(&self, event: &Event, fact: &Self::Payload) -> Vec<EntityKey>;

    /// Applies an event: changes states, and says what else it brings about.
    ///
    /// # Errors
    /// A [`HandlerError`]: nothing that was done to the states counts then. A panic counts as [`HandlerError::Reject`].
    fn handle(
        &self,
        states: &mut States<Self::State>,
        event: &Event,
        fact: &Self::Payload,
        now: Timestamp,
    ) -> Result<Effects, HandlerError>;

    /// Reads a command.
    ///
    /// # Errors
    /// The command breaks its contract, or is of a type that no contract knows: refused, nothing is changed.
    fn read_command(&self, request: &Request) -> Result<Self::Command, ContractError> {
        Err(ContractError::UnknownType(request.kind.to_string()))
    }

    /// The entities that a command touches, at least one.
    fn command_keys(&self, _request: &Request, _command: &Self::Command) -> Vec<EntityKey> {
        Vec::new()
    }

    /// Does what a command asks: changes states, and says what to reply and what else it brings about. Its reply is stored in the
    /// same commit.
    ///
    /// # Errors
    /// It will not: nothing that was done to the states counts then, and nothing is stored, so the same request may be asked again. A
    /// panic counts as a refusal, too.
    fn execute(
        &self,
        _states: &mut States<Self::State>,
        request: &Request,
        _command: &Self::Command,
        _now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        Err(ContractError::UnknownType(request.kind.to_string()).into())
    }

    /// Reads a query.
    ///
    /// # Errors
    /// The query breaks its contract, or is of a type that no contract knows.
    fn read_query(&self, request: &Request) -> Result<Self::Query, ContractError> {
        Err(ContractError::UnknownType(request.kind.to_string()))
    }

    /// The entities that a query looks at, at least one.
    fn query_keys(&self, _request: &Request, _query: &Self::Query) -> Vec<EntityKey> {
        Vec::new()
    }

    /// Answers a query from states, as [`reply`] writes it.
    ///
    /// # Errors
    /// There is no answer, and why.
    fn query(
        &self,
        _states: &States<Self::State>,
        request: &Request,
        _query: &Self::Query,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        Err(ContractError::UnknownType(request.kind.to_string()).into())
    }
}

/// Stands for the commands or queries of a role that takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {}

/// What a command has led to.
#[derive(Debug)]
pub struct CommandOutcome {
    /// The reply, in JSON.
    pub reply: Vec<u8>,
    /// What else it brings about.
    pub effects: Effects,
}

impl CommandOutcome {
    /// Writes down the reply to a command.
    ///
    /// # Errors
    /// See [`reply`].
    pub fn of<C: RequestContract>(answer: &C::Reply, effects: Effects) -> Result<Self, Rejection> {
        Ok(Self {
            reply: reply::<C>(answer)?,
            effects,
        })
    }
}

/// Writes down a reply.
///
/// # Errors
/// It has no form in JSON, or exceeds 1 MiB.
pub fn reply<C: RequestContract>(answer: &C::Reply) -> Result<Vec<u8>, Rejection> {
    let failed = |detail: String| Rejection::new(Rejection::FAILED, detail);
    let reply = serde_json::to_vec(answer).map_err(|e| failed(e.to_string()))?;
    if reply.len() > MAX_DATA_BYTES {
        return Err(failed(ContractError::TooLarge(reply.len()).to_string()));
    }
    Ok(reply)
}

/// What an event or a command brings about beside new states, all in the same commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Events to publish, in order.
    pub events: Vec<NewEvent>,
    /// Events to the role itself.
    pub scheduled: Vec<Scheduled>,
}

/// An event to the role itself, handed to its handler once the time has come: it has the role's own source and no sequence, and
/// travels over no broker. A handler that finds that it does not matter any more ignores it; nothing calls it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    pub(crate) due: Timestamp,
    pub(crate) event: NewEvent,
}

impl Scheduled {
    /// When it is to be handed over.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// What is to be handed over.
    #[must_use]
    pub fn event(&self) -> &NewEvent {
        &self.event
    }
}

impl Effects {
    /// Nothing but new states.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Publishes a fact about a subject, see [`NewEvent::of`].
    ///
    /// # Errors
    /// See [`NewEvent::of`].
    pub fn publish<C: Contract>(
        &mut self,
        subject: &Subject,
        fact: &C,
    ) -> Result<(), HandlerError> {
        self.events.push(NewEvent::of(subject, fact)?);
        Ok(())
    }

    /// Hands a fact about a subject to the role itself at that time, or soon after.
    ///
    /// # Errors
    /// See [`NewEvent::of`]. Its contract must not require a sequence.
    pub fn schedule<C: Contract>(
        &mut self,
        due: Timestamp,
        subject: &Subject,
        fact: &C,
    ) -> Result<(), HandlerError> {
        if C::REQUIRES_SEQUENCE {
            let detail = format!("cannot schedule {}: it requires a sequence", C::TYPE);
            return Err(HandlerError::Reject(detail));
        }
        let event = NewEvent::of(subject, fact)?;
        self.scheduled.push(Scheduled { due, event });
        Ok(())
    }
}

impl From<Vec<NewEvent>> for Effects {
    fn from(events: Vec<NewEvent>) -> Self {
        Self {
            events,
            scheduled: Vec::new(),
        }
    }
}

/// What reading an event has led to.
#[derive(Debug)]
pub enum Reading<F> {
    /// The role handles it.
    Handled(F),
    /// A known type that the role does not handle: only its cursor moves.
    Ignored,
}

/// Why an event cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerError {
    /// It waits for what another stream will bring to this entity: held, and tried again when the entity changes and by backoff.
    Retry(EntityKey),
    /// It contradicts the rules, or could only be cured by a later event of its own stream: a dead letter.
    Reject(String),
}

impl HandlerError {
    /// [`HandlerError::Reject`] with this reason.
    pub fn never(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

impl From<HandlerError> for Rejection {
    fn from(refusal: HandlerError) -> Self {
        match refusal {
            HandlerError::Retry(entity) => {
                Self::new(Self::NOT_YET, format!("{entity} is not there yet"))
            }
            HandlerError::Reject(reason) => Self::new(Self::FAILED, reason),
        }
    }
}

/// An event that a handler emits. It gets its number, and with that its id, in the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub(crate) kind: EventType,
    pub(crate) subject: Subject,
    pub(crate) data: Vec<u8>,
}

impl NewEvent {
    /// Its versioned type.
    #[must_use]
    pub fn kind(&self) -> &EventType {
        &self.kind
    }

    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Its data, in JSON.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// A fact about a subject.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the fact breaks its own contract: the event that led to it is refused rather than something emitted that
    /// nobody could read.
    pub fn of<C: Contract>(subject: &Subject, fact: &C) -> Result<Self, HandlerError> {
        let refused =
            |e: ContractError| HandlerError::Reject(format!("cannot emit {}: {e}", C::TYPE));
        fact.check().map_err(|e| refused(ContractError::Rule(e)))?;
        let kind = C::event_type();
        kind.check_subject(subject).map_err(|e| refused(e.into()))?;
        // Its id is made of subject and sequence, and has to fit however far the stream gets: found out in the commit, it would stop
        // the role rather than the event.
        Sequence::new(i64::MAX.unsigned_abs())
            .map_or(Ok(()), |last| Event::id_for(subject, last).map(drop))
            .map_err(|e| refused(e.into()))?;
        let data =
            serde_json::to_vec(fact).map_err(|e| refused(ContractError::Data(e.to_string())))?;
        if data.len() > MAX_DATA_BYTES {
            return Err(refused(ContractError::TooLarge(data.len())));
        }
        Ok(Self {
            kind,
            subject: subject.clone(),
            data,
        })
    }
}

/// The states that a handler is given: those of the entities that [`Role::keys`] has named, in that order.
#[derive(Debug)]
pub struct States<S> {
    entries: Vec<Entry<S>>,
}

#[derive(Debug)]
pub(crate) struct Entry<S> {
    pub(crate) key: EntityKey,
    pub(crate) state: Option<S>,
    pub(crate) written: bool,
}

impl<S> States<S> {
    /// States for a test of a handler, without an engine.
    #[must_use]
    pub fn new(entries: Vec<(EntityKey, Option<S>)>) -> Self {
        Self {
            entries: entries
                .into_iter()
                .map(|(key, state)| Entry {
                    key,
                    state,
                    written: false,
                })
                .collect(),
        }
    }

    /// Takes these entities with copies of their states instead of what was there.
    pub(crate) fn fill<'a>(
        &mut self,
        keys: &[EntityKey],
        states: impl Iterator<Item = &'a Option<S>>,
    ) where
        S: Clone + 'a,
    {
        self.entries.clear();
        self.entries
            .extend(keys.iter().zip(states).map(|(key, state)| Entry {
                key: key.clone(),
                state: state.clone(),
                written: false,
            }));
    }

    pub(crate) fn entries(&self) -> &[Entry<S>] {
        &self.entries
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry<S>> {
        self.entries.drain(..)
    }

    fn place(&self, key: &EntityKey) -> usize {
        // A handler that asks for an entity which it has not named has a mistake in it; its event becomes a dead letter that says so.
        #[expect(
            clippy::panic,
            reason = "caught by the engine and turned into a dead letter"
        )]
        self.entries
            .iter()
            .position(|e| &e.key == key)
            .unwrap_or_else(|| panic!("the handler asks for {key}, which keys() does not name"))
    }

    /// The state of an entity, `None` if nothing has been applied to it yet.
    ///
    /// # Panics
    /// If [`Role::keys`] has not named the entity.
    #[must_use]
    pub fn get(&self, key: &EntityKey) -> Option<&S> {
        self.entries[self.place(key)].state.as_ref()
    }

    /// Gives an entity a new state.
    ///
    /// # Panics
    /// If [`Role::keys`] has not named the entity.
    pub fn put(&mut self, key: &EntityKey, state: S) {
        let place = self.place(key);
        let entry = &mut self.entries[place];
        entry.state = Some(state);
        entry.written = true;
    }

    /// The state of the only or first entity, to be changed in place; created by its default where there is none.
    ///
    /// # Panics
    /// If [`Role::keys`] has named none.
    pub fn first_or_default(&mut self) -> &mut S
    where
        S: Default,
    {
        let entry = &mut self.entries[0];
        entry.written = true;
        entry.state.get_or_insert_default()
    }

    /// The only or first entity, `None` inside if nothing has been applied to it yet. Once there, a state stays: a handler that takes
    /// it away has its event refused.
    ///
    /// # Panics
    /// If [`Role::keys`] has named none.
    pub fn first_mut(&mut self) -> &mut Option<S> {
        let entry = &mut self.entries[0];
        entry.written = true;
        &mut entry.state
    }
}
