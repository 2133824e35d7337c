//! Working a handler in a test: one entity, one event, no broker and no store.

use doorstep_event::{Contract, Event, Sequence, Source, Subject, Timestamp};
use doorstep_runtime::{Effects, Reading, Refusal, Role, States};
use serde::Serialize;

/// An event of the test's one source; its time is as many seconds after nine as its number says.
#[track_caller]
pub(crate) fn event<C: Contract>(subject: &str, sequence: u64, fact: &C) -> Event {
    let source = Source::new("test").unwrap();
    let subject = Subject::new(subject).unwrap();
    let time: Timestamp = format!("2026-11-23T09:00:{sequence:02}Z").parse().unwrap();
    let sequence = Sequence::new(sequence).unwrap();
    Event::of(&source, &subject, sequence, time, fact).unwrap()
}

#[track_caller]
fn handled<R: Role>(
    role: &R,
    before: Option<R::State>,
    event: &Event,
) -> (Result<(), Refusal>, Option<R::State>) {
    let Reading::Fact(fact) = role.read(event).unwrap() else {
        panic!("{} is not handled", event.kind);
    };
    let keys = role.keys(event, &fact);
    let [key] = keys.as_slice() else {
        panic!("one entity was expected, not {keys:?}");
    };
    let mut states = States::new(vec![(key.clone(), before)]);
    let now = "2026-11-23T10:00:00Z".parse().unwrap();
    let answer = role.handle(&mut states, event, &fact, now);
    if let Ok(effects) = &answer {
        assert_eq!(*effects, Effects::none());
    }
    (answer.map(drop), states.get(key).cloned())
}

/// The state after an event.
#[track_caller]
pub(crate) fn applied<R: Role>(role: &R, before: Option<R::State>, event: &Event) -> R::State {
    let (answer, after) = handled(role, before, event);
    answer.unwrap();
    after.unwrap()
}

/// The reason for which an event is refused for good.
#[track_caller]
pub(crate) fn refused<R: Role>(role: &R, before: Option<R::State>, event: &Event) -> String {
    match handled(role, before, event).0 {
        Err(Refusal::Never(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// A state as an export writes it.
#[track_caller]
pub(crate) fn exported<S: Serialize>(state: &S) -> String {
    serde_json::to_string(state).unwrap()
}
