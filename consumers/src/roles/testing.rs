//! Tests of a role without broker and store: single events on single entities, or a [`RoleHarness`] that keeps all
//! states between events, commands, queries and scheduled events.

use std::collections::BTreeMap;

use bytes::Bytes;
use doorstep_contracts::registry;
use doorstep_event::{
    Contract, Event, EventId, Idempotency, Rejection, Request, RequestContract, RequestId,
    Sequence, Source, Subject, Timestamp,
};
use doorstep_runtime::{
    Effects, HandlerError, NewEvent, Reading, Role, Scheduled, States, TaskView, task::TaskEffect,
};
use doorstep_store::EntityKey;
use serde::Serialize;

/// Returns an event of the test's only source; its time is its sequence in seconds after nine.
#[track_caller]
pub(crate) fn event<C: Contract>(subject: &str, sequence: u64, fact: &C) -> Event {
    let source = Source::new("test").unwrap();
    let subject = Subject::new(subject).unwrap();
    let time: Timestamp = format!("2026-11-23T09:00:{sequence:02}Z").parse().unwrap();
    let sequence = Sequence::new(sequence).unwrap();
    Event::from_contract(&source, &subject, sequence, time, fact).unwrap()
}

#[track_caller]
fn handled<R: Role>(
    role: &R,
    before: Option<R::State>,
    event: &Event,
) -> (Result<(), HandlerError>, Option<R::State>) {
    let Reading::Handled(fact) = role.read(event).unwrap() else {
        panic!("{} is not handled", event.event_type);
    };
    let keys = role.keys(event, &fact);
    let [key] = keys.as_slice() else {
        panic!("one entity was expected, not {keys:?}");
    };
    let mut states = States::new(vec![(key.clone(), before)]);
    let answer = role.handle(&mut states, event, &fact, ten());
    if let Ok(effects) = &answer {
        assert_eq!(*effects, Effects::none());
    }
    (answer.map(drop), states.get(key).cloned())
}

/// Returns the start time of a test.
pub(crate) fn ten() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// Returns the state after an event.
#[track_caller]
pub(crate) fn applied<R: Role>(role: &R, before: Option<R::State>, event: &Event) -> R::State {
    let (answer, after) = handled(role, before, event);
    answer.unwrap();
    after.unwrap()
}

/// Returns the reason with which an event is rejected.
#[track_caller]
pub(crate) fn rejected<R: Role>(role: &R, before: Option<R::State>, event: &Event) -> String {
    match handled(role, before, event).0 {
        Err(HandlerError::Reject(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Returns a state as an export writes it.
#[track_caller]
pub(crate) fn exported<S: Serialize>(state: &S) -> String {
    serde_json::to_string(state).unwrap()
}

/// A role with its states, changed by events, commands and scheduled events one after the other, as the engine would do
/// it.
pub(crate) struct RoleHarness<R: Role> {
    role: R,
    /// The time given to the role.
    pub(crate) now: Timestamp,
    states: BTreeMap<EntityKey, R::State>,
    pub(crate) emitted: Vec<NewEvent>,
    /// The scheduled events that are not due yet.
    pub(crate) scheduled: Vec<Scheduled>,
    /// The started and cancelled tasks, in order.
    pub(crate) tasks: Vec<TaskEffect>,
    /// The live tasks that queries see.
    pub(crate) live: Vec<TaskView>,
}

impl<R: Role> RoleHarness<R> {
    pub(crate) fn new(role: R) -> Self {
        Self {
            role,
            now: ten(),
            states: BTreeMap::new(),
            emitted: Vec::new(),
            scheduled: Vec::new(),
            tasks: Vec::new(),
            live: Vec::new(),
        }
    }

    /// Returns all states, sorted by their keys.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&EntityKey, &R::State)> {
        self.states.iter()
    }

    /// Returns the state of one entity.
    pub(crate) fn state(&self, key: &str) -> Option<&R::State> {
        self.states.get(&EntityKey::new(key))
    }

    /// Returns the types of the published events, in order.
    pub(crate) fn emitted(&self) -> Vec<&str> {
        self.emitted.iter().map(|e| e.kind().as_str()).collect()
    }

    fn load(&self, keys: &[EntityKey]) -> States<R::State> {
        let state = |key: &EntityKey| (key.clone(), self.states.get(key).cloned());
        States::new(keys.iter().map(state).collect())
    }

    #[track_caller]
    fn commit(&mut self, keys: &[EntityKey], states: &States<R::State>, effects: Effects) {
        for key in keys {
            if let Some(state) = states.get(key) {
                // As the store keeps it: a state that differs after a round trip would change with a restart.
                let kept = serde_json::to_string(state).unwrap();
                let state: R::State = serde_json::from_str(&kept).unwrap();
                assert_eq!(serde_json::to_string(&state).unwrap(), kept);
                self.states.insert(key.clone(), state);
            } else {
                self.states.remove(key);
            }
        }
        for emitted in &effects.events {
            registry::check(&unnumbered(emitted, Some(Sequence::FIRST), self.now)).unwrap();
        }
        self.emitted.extend(effects.events);
        self.scheduled.extend(effects.scheduled);
        self.tasks.extend(effects.tasks);
    }

    /// Gives an event to the handler.
    #[track_caller]
    pub(crate) fn give(&mut self, event: &Event) -> Result<(), HandlerError> {
        let Reading::Handled(fact) = self.role.read(event).unwrap() else {
            return Ok(());
        };
        let keys = self.role.keys(event, &fact);
        assert!(!keys.is_empty());
        let mut states = self.load(&keys);
        let effects = self.role.handle(&mut states, event, &fact, self.now)?;
        self.commit(&keys, &states, effects);
        Ok(())
    }

    /// Executes a command.
    #[track_caller]
    pub(crate) fn execute<C: RequestContract>(&mut self, asked: &C) -> Result<C::Reply, Rejection> {
        let request = self.request(asked);
        let command = self.role.read_command(&request)?;
        let keys = self.role.command_keys(&request, &command);
        assert!(!keys.is_empty());
        let mut states = self.load(&keys);
        let executed = self
            .role
            .execute(&mut states, &request, &command, self.now)?;
        self.commit(&keys, &states, executed.effects);
        Ok(serde_json::from_slice(&executed.reply).unwrap())
    }

    /// Serves a query.
    #[track_caller]
    pub(crate) fn query<C: RequestContract>(&self, asked: &C) -> Result<C::Reply, Rejection> {
        let request = self.request(asked);
        let query = self.role.read_query(&request)?;
        let keys = self.role.query_keys(&request, &query);
        assert!(!keys.is_empty());
        let named = self.role.query_tasks(&request, &query);
        let live = self.live.iter().filter(|task| named.contains(&task.id));
        let states = self.load(&keys).with_tasks(live.cloned().collect());
        let reply = self.role.query(&states, &request, &query, self.now)?;
        Ok(serde_json::from_slice(&reply).unwrap())
    }

    fn request<C: RequestContract>(&self, asked: &C) -> Request {
        Request {
            id: RequestId::new("1").unwrap(),
            caller: Source::new("test").unwrap(),
            kind: C::request_type(),
            act: C::ACT,
            time: self.now,
            deadline: self.now,
            idempotency: Idempotency::Retryable,
            traceparent: None,
            data: serde_json::to_vec(asked).unwrap().into(),
        }
    }

    /// Runs the scheduled events, the earliest first, until none is left.
    #[track_caller]
    pub(crate) fn run_all_timers(&mut self) {
        while let Some(next) = (0..self.scheduled.len()).min_by_key(|i| self.scheduled[*i].due()) {
            let next = self.scheduled.remove(next);
            self.now = self.now.max(next.due());
            self.fire(&next);
        }
    }

    /// Runs the scheduled events that are due by now.
    #[track_caller]
    pub(crate) fn run_due_timers(&mut self) {
        while let Some(next) = (0..self.scheduled.len())
            .filter(|i| self.scheduled[*i].due() <= self.now)
            .min_by_key(|i| self.scheduled[*i].due())
        {
            let next = self.scheduled.remove(next);
            self.fire(&next);
        }
    }

    /// Gives a scheduled event to the handler. It must never wait or be rejected: no operator would notice.
    #[track_caller]
    pub(crate) fn fire(&mut self, scheduled: &Scheduled) {
        self.give(&unnumbered(scheduled.event(), None, scheduled.due()))
            .unwrap();
    }
}

fn unnumbered(emitted: &NewEvent, sequence: Option<Sequence>, time: Timestamp) -> Event {
    Event {
        id: EventId::new("scheduled").unwrap(),
        source: Source::new("role").unwrap(),
        event_type: emitted.kind().clone(),
        subject: emitted.subject().clone(),
        time: Some(time),
        sequence,
        epoch: None,
        traceparent: None,
        data: Bytes::copy_from_slice(emitted.data()),
    }
}
