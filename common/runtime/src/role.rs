//! The interface of a role: pure functions over state types. A role is tested without broker and store, and the runtime
//! can batch, retry and replay it at will.

use doorstep_event::{
    Contract, ContractError, Event, EventType, MAX_DATA_BYTES, Rejection, Request, RequestContract,
    Sequence, Subject, Timestamp,
};
use doorstep_store::{EntityKey, TaskId, TaskIdError, TaskRow, TaskState};
use serde::{Serialize, de::DeserializeOwned};

use crate::task::{Task, TaskEffect};

/// A consumer service. It does no I/O and has neither clock nor randomness: a batch may be processed several times
/// before one of its commits is written.
pub trait Role: Send + Sync + 'static {
    /// The events that the role handles, decoded and validated.
    type Payload: Send + Sync;
    /// The commands that the role executes, decoded and validated; [`Unsupported`] if it takes none.
    type Command: Send + Sync;
    /// The queries that the role serves, decoded and validated; [`Unsupported`] if it takes none.
    type Query: Send + Sync;
    /// The state of one entity. Its times come from events or from the `now` of a handler, never from a clock of its
    /// own.
    type State: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Returns the role's name, as used in its queues, its store and its metrics.
    fn name(&self) -> &'static str;

    /// Decodes an event.
    ///
    /// # Errors
    /// The event breaks its contract, or no contract knows its type. It becomes a dead letter.
    fn read(&self, event: &Event) -> Result<Reading<Self::Payload>, ContractError>;

    /// Returns the entities that the event touches, at least one. The handler gets the states of exactly these.
    fn keys(&self, event: &Event, fact: &Self::Payload) -> Vec<EntityKey>;

    /// Applies an event: changes states and returns further effects.
    ///
    /// # Errors
    /// A [`HandlerError`]: changes to the states are then dropped. A panic counts as [`HandlerError::Reject`].
    fn handle(
        &self,
        states: &mut States<Self::State>,
        event: &Event,
        fact: &Self::Payload,
        now: Timestamp,
    ) -> Result<Effects, HandlerError>;

    /// Takes valid deliveries whose outcome is durable, before they are acked: for copies outside the store, such as log
    /// files. The only method that may do I/O, and nothing may depend on it: it gets each delivery at least once,
    /// applied, deferred or rejected, and must not block for long. By default it does nothing.
    fn archive(&self, _events: &mut dyn Iterator<Item = &Event>) {}

    /// Decodes a command.
    ///
    /// # Errors
    /// The command breaks its contract, or no contract knows its type. It is rejected, and nothing is changed.
    fn read_command(&self, request: &Request) -> Result<Self::Command, ContractError> {
        Err(ContractError::UnknownType(request.kind.to_string()))
    }

    /// Returns the entities that a command touches, at least one.
    fn command_keys(&self, _request: &Request, _command: &Self::Command) -> Vec<EntityKey> {
        Vec::new()
    }

    /// Executes a command: changes states, and returns the reply with further effects. The reply is stored in the same
    /// commit.
    ///
    /// # Errors
    /// A rejection: changes to the states are then dropped and nothing is stored, so the same request may be sent
    /// again. A panic counts as a rejection, too.
    fn execute(
        &self,
        _states: &mut States<Self::State>,
        request: &Request,
        _command: &Self::Command,
        _now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        Err(ContractError::UnknownType(request.kind.to_string()).into())
    }

    /// Decodes a query.
    ///
    /// # Errors
    /// The query breaks its contract, or no contract knows its type.
    fn read_query(&self, request: &Request) -> Result<Self::Query, ContractError> {
        Err(ContractError::UnknownType(request.kind.to_string()))
    }

    /// Returns the entities that a query reads, at least one.
    fn query_keys(&self, _request: &Request, _query: &Self::Query) -> Vec<EntityKey> {
        Vec::new()
    }

    /// Returns the tasks whose progress a query tells, for [`States::task`]. By default none.
    fn query_tasks(&self, _request: &Request, _query: &Self::Query) -> Vec<TaskId> {
        Vec::new()
    }

    /// Serves a query from states. Returns the reply as [`reply`] encodes it.
    ///
    /// # Errors
    /// A rejection with its reason.
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

/// The command or query type of a role that takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {}

/// The outcome of a command.
#[derive(Debug)]
pub struct CommandOutcome {
    /// The reply, in JSON.
    pub reply: Vec<u8>,
    /// Further effects, committed together with the reply.
    pub effects: Effects,
}

impl CommandOutcome {
    /// Encodes the reply to a command.
    ///
    /// # Errors
    /// See [`reply`].
    pub fn new<C: RequestContract>(answer: &C::Reply, effects: Effects) -> Result<Self, Rejection> {
        Ok(Self {
            reply: reply::<C>(answer)?,
            effects,
        })
    }
}

/// Encodes a reply.
///
/// # Errors
/// It cannot be serialized as JSON, or exceeds 1 MiB.
pub fn reply<C: RequestContract>(answer: &C::Reply) -> Result<Vec<u8>, Rejection> {
    let failed = |detail: String| Rejection::new(Rejection::FAILED, detail);
    let reply = serde_json::to_vec(answer).map_err(|e| failed(e.to_string()))?;
    if reply.len() > MAX_DATA_BYTES {
        return Err(failed(ContractError::TooLarge(reply.len()).to_string()));
    }
    Ok(reply)
}

/// The effects of an event or a command besides new states, all in the same commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Events to publish, in order.
    pub events: Vec<NewEvent>,
    /// Events to the role itself.
    pub scheduled: Vec<Scheduled>,
    /// Starts and cancellations of tasks, in order.
    pub tasks: Vec<TaskEffect>,
}

/// An event to the role itself, given to its handler once the time has come. It has the role's own source and no
/// sequence, and does not pass through the broker. It cannot be cancelled: a handler for which it no longer matters
/// ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    pub(crate) due: Timestamp,
    pub(crate) event: NewEvent,
}

impl Scheduled {
    /// Returns the time at which the handler gets it.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.due
    }

    #[must_use]
    pub fn event(&self) -> &NewEvent {
        &self.event
    }
}

impl Effects {
    /// Returns no effects besides new states.
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
        self.events.push(NewEvent::from_contract(subject, fact)?);
        Ok(())
    }

    /// Schedules a fact about a subject for the role itself at that time or soon after.
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
        let event = NewEvent::from_contract(subject, fact)?;
        self.scheduled.push(Scheduled { due, event });
        Ok(())
    }

    /// Starts a task about a subject. Its id is derived from its cause and is unique among the live tasks of the role: if
    /// one of this id is live, it stays, and nothing is started.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the task breaks its own rules or exceeds 1 MiB: the event that led to it is rejected,
    /// rather than a task started that cannot run.
    pub fn start<T: Task>(
        &mut self,
        id: TaskId,
        subject: &Subject,
        task: &T,
    ) -> Result<(), HandlerError> {
        let start = TaskEffect::start(id, subject, task).map_err(HandlerError::Reject)?;
        self.tasks.push(start);
        Ok(())
    }

    /// Cancels a task. Nothing happens if it has ended. A running one is asked to stop and may still end with its result.
    pub fn cancel(&mut self, id: TaskId) {
        self.tasks.push(TaskEffect::Cancel(id));
    }
}

impl From<Vec<NewEvent>> for Effects {
    fn from(events: Vec<NewEvent>) -> Self {
        Self {
            events,
            ..Self::default()
        }
    }
}

/// The result of decoding an event.
#[derive(Debug)]
pub enum Reading<F> {
    /// An event that the role handles.
    Handled(F),
    /// A known type that the role does not handle: only the cursor moves.
    Ignored,
}

/// The reason why an event cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerError {
    /// The event waits for another stream to change this entity: it is deferred, and retried by backoff and whenever
    /// the entity changes.
    Retry(EntityKey),
    /// The event breaks a rule, or only a later event of its own stream could help: it becomes a dead letter.
    Reject(String),
}

impl HandlerError {
    /// Returns a [`HandlerError::Reject`] with this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }
}

impl From<TaskIdError> for HandlerError {
    /// The event that would start the task is rejected.
    fn from(error: TaskIdError) -> Self {
        Self::Reject(error.to_string())
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

/// An event that a handler emits. The commit assigns its sequence, and with that its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub(crate) kind: EventType,
    pub(crate) subject: Subject,
    pub(crate) data: Vec<u8>,
}

impl NewEvent {
    /// Returns its versioned type.
    #[must_use]
    pub fn kind(&self) -> &EventType {
        &self.kind
    }

    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns its data in JSON.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Creates an event with a fact about a subject.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the fact breaks its own contract: the event that led to it is rejected, rather than
    /// an event emitted that no consumer could decode.
    pub fn from_contract<C: Contract>(subject: &Subject, fact: &C) -> Result<Self, HandlerError> {
        let rejected =
            |e: ContractError| HandlerError::Reject(format!("cannot emit {}: {e}", C::TYPE));
        fact.check().map_err(|e| rejected(ContractError::Rule(e)))?;
        let kind = C::event_type();
        kind.check_subject(subject)
            .map_err(|e| rejected(e.into()))?;
        // The id consists of subject and sequence, and has to fit for every sequence. If that were found out only in
        // the commit, it would stop the role rather than reject the event.
        Sequence::new(i64::MAX.unsigned_abs())
            .map_or(Ok(()), |last| Event::id_for(subject, last).map(drop))
            .map_err(|e| rejected(e.into()))?;
        let data =
            serde_json::to_vec(fact).map_err(|e| rejected(ContractError::Data(e.to_string())))?;
        if data.len() > MAX_DATA_BYTES {
            return Err(rejected(ContractError::TooLarge(data.len())));
        }
        Ok(Self {
            kind,
            subject: subject.clone(),
            data,
        })
    }
}

/// The states that a handler gets: those of the entities from [`Role::keys`], in that order.
#[derive(Debug)]
pub struct States<S> {
    entries: Vec<Entry<S>>,
    tasks: Vec<TaskView>,
}

/// A live task, as a query sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    pub id: TaskId,
    pub state: TaskState,
    /// Set if it is to be cancelled.
    pub is_cancelling: bool,
    /// The units of work done.
    pub done: u64,
    /// All units of work, 0 if unknown.
    pub total: u64,
    /// The progress in words.
    pub note: Option<String>,
    /// The number of attempts that ended with an error.
    pub attempts: u32,
    /// The last error.
    pub error: Option<String>,
}

impl From<TaskRow> for TaskView {
    fn from(row: TaskRow) -> Self {
        Self {
            id: row.id,
            state: row.state,
            is_cancelling: row.directive == Some(doorstep_store::TaskDirective::Cancel),
            done: row.done,
            total: row.total,
            note: row.note,
            attempts: row.attempts,
            error: row.error,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Entry<S> {
    pub(crate) key: EntityKey,
    pub(crate) state: Option<S>,
    pub(crate) written: bool,
}

impl<S> States<S> {
    /// Creates states for a test of a handler, without an engine.
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
            tasks: Vec::new(),
        }
    }

    /// Adds the tasks that [`Role::query_tasks`] names.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Vec<TaskView>) -> Self {
        self.tasks = tasks;
        self
    }

    /// Returns a live task; `None` if it has ended, or if [`Role::query_tasks`] does not name it. Tasks are read before
    /// the entities: a task that has ended since is shown with its last progress beside states that know its result.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&TaskView> {
        self.tasks.iter().find(|task| task.id == *id)
    }

    /// Replaces its content by these entities with copies of their states.
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

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry<S>> {
        self.entries.drain(..)
    }

    fn place(&self, key: &EntityKey) -> usize {
        // A handler that accesses an entity which its keys do not name is a bug; its event becomes a dead letter that
        // says so.
        #[expect(
            clippy::panic,
            reason = "caught by the engine and turned into a dead letter"
        )]
        self.entries
            .iter()
            .position(|e| &e.key == key)
            .unwrap_or_else(|| panic!("the handler asks for {key}, which keys() does not name"))
    }

    /// Returns the state of an entity; `None` if nothing has been applied to it yet.
    ///
    /// # Panics
    /// If [`Role::keys`] does not name the entity.
    #[must_use]
    pub fn get(&self, key: &EntityKey) -> Option<&S> {
        self.entries[self.place(key)].state.as_ref()
    }

    /// Replaces the state of an entity.
    ///
    /// # Panics
    /// If [`Role::keys`] does not name the entity.
    pub fn put(&mut self, key: &EntityKey, state: S) {
        let place = self.place(key);
        let entry = &mut self.entries[place];
        entry.state = Some(state);
        entry.written = true;
    }

    /// Returns the state of the only or first entity, to be changed in place. Creates a default state if there is none.
    ///
    /// # Panics
    /// If [`Role::keys`] names none.
    pub fn first_or_default(&mut self) -> &mut S
    where
        S: Default,
    {
        let entry = &mut self.entries[0];
        entry.written = true;
        entry.state.get_or_insert_default()
    }

    /// Removes an entity: its row is deleted. Returns the state that it had.
    ///
    /// # Panics
    /// If [`Role::keys`] does not name the entity.
    pub fn remove(&mut self, key: &EntityKey) -> Option<S> {
        let place = self.place(key);
        let entry = &mut self.entries[place];
        entry.written = true;
        entry.state.take()
    }

    /// Returns the state of the only or first entity; `None` inside if nothing has been applied to it yet. A handler
    /// that leaves `None` removes the entity.
    ///
    /// # Panics
    /// If [`Role::keys`] names none.
    pub fn first_mut(&mut self) -> &mut Option<S> {
        let entry = &mut self.entries[0];
        entry.written = true;
        &mut entry.state
    }
}
