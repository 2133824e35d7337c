//! What was not confirmed and is sent again: in order, after a pause that grows, until the time to give up.

use std::time::{Duration, Instant};

use doorstep_event::Event;
use doorstep_messaging::Outcome;
use doorstep_program::{Failure, Reason};
use rand::RngExt;

use crate::{chunk::Chunk, tally::Tally};

/// The first and the longest pause before events are sent again. Pauses double, and each is drawn at random below that, since after an
/// outage everyone comes back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The events to be sent again.
pub(crate) struct Again {
    events: Vec<Event>,
    give_up_after: Duration,
    trouble: Option<Trouble>,
}

/// A time in which not everything is confirmed.
struct Trouble {
    /// When something was last confirmed, or when the trouble began.
    since: Instant,
    /// How often all was sent again without any of it being confirmed.
    failures: u32,
    /// What the broker said last, and of which event.
    outcome: Outcome,
    kind: String,
    /// Why there is no connection, if there is none.
    connection: Option<String>,
    /// What the user was told.
    told: Option<Outcome>,
}

impl Again {
    /// Nothing yet.
    pub(crate) fn new(give_up_after: Duration) -> Self {
        Self {
            events: Vec::new(),
            give_up_after,
            trouble: None,
        }
    }

    /// Whether there is something to be sent again.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether something that was not confirmed at first is still not confirmed.
    pub(crate) fn is_recovering(&self) -> bool {
        self.trouble.is_some()
    }

    /// Keeps an event that was not confirmed. Called in the order of the events.
    pub(crate) fn add(&mut self, event: Event, outcome: Outcome) {
        match &mut self.trouble {
            Some(trouble) => trouble.outcome = outcome,
            None => {
                self.trouble = Some(Trouble {
                    since: Instant::now(),
                    failures: 0,
                    outcome,
                    kind: event.kind.to_string(),
                    connection: None,
                    told: None,
                });
            }
        }
        if let Some(trouble) = &mut self.trouble
            && trouble.kind != event.kind.as_str()
        {
            trouble.kind = event.kind.to_string();
        }
        self.events.push(event);
    }

    /// Takes note that a chunk has been settled, and of why there is no connection, if there is none. Returns what the user should hear,
    /// once for each kind of trouble.
    pub(crate) fn note_settled(
        &mut self,
        confirmed: u64,
        connection: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let trouble = self.trouble.as_mut()?;
        if confirmed > 0 {
            trouble.since = Instant::now();
            trouble.failures = 0;
        }
        if self.events.is_empty() {
            self.trouble = None;
            return Some("all confirmed again, going on".to_owned());
        }
        trouble.connection = connection();
        if trouble.told == Some(trouble.outcome) {
            return None;
        }
        trouble.told = Some(trouble.outcome);
        Some(format!(
            "{} events are not confirmed and are sent again until they are: {}",
            self.events.len(),
            trouble.words()
        ))
    }

    /// Takes all events to send them again.
    pub(crate) fn take(&mut self) -> Chunk {
        if let Some(trouble) = &mut self.trouble {
            trouble.failures += 1;
        }
        Chunk {
            events: std::mem::take(&mut self.events),
            rows: 0,
        }
    }

    /// Waits before all is sent again. Cancel-safe.
    pub(crate) async fn pause(&self) {
        let failures = self.trouble.as_ref().map_or(0, |t| t.failures);
        let longest = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        let pause = rand::rng().random_range(Duration::ZERO..=longest);
        tokio::time::sleep(pause).await;
    }

    /// The end, if nothing was confirmed for too long.
    pub(crate) fn give_up(&self, tally: &Tally) -> Option<Failure> {
        let trouble = self.trouble.as_ref()?;
        if trouble.since.elapsed() < self.give_up_after {
            return None;
        }
        Some(Failure::new(
            Reason::Broker,
            format!(
                "gave up after {:?} in which nothing was confirmed, {} events were and {} are not: {}; the same command sends all of them again, and what is there already changes nothing",
                self.give_up_after,
                tally.total(),
                self.events.len(),
                trouble.words()
            ),
        ))
    }
}

impl Trouble {
    /// What is the matter, and what to do about it.
    fn words(&self) -> String {
        let kind = &self.kind;
        match self.outcome {
            Outcome::Confirmed => "they are confirmed".to_owned(),
            Outcome::Unroutable => format!(
                "no queue takes events of type {kind}; if it was deleted, `consumers run` or a new start of this program declares it again"
            ),
            Outcome::Refused => format!(
                "the queue for events of type {kind} refuses them, perhaps it is full; see that its consumer runs"
            ),
            Outcome::Unpublishable => format!(
                "the broker lets this user not publish events of type {kind}, or they are too large; see the log, and grant the right with rabbitmqctl set_topic_permissions"
            ),
            Outcome::TimedOut => "the broker does not confirm in time; see whether it is overloaded or has lost its majority".to_owned(),
            Outcome::Disconnected => match &self.connection {
                Some(reason) => format!("the connection to the broker is away: {reason}"),
                None => "the connection to the broker is away".to_owned(),
            },
            Outcome::Blocked => "the broker takes no events, usually for want of memory or disk; see its alarms with `rabbitmq-diagnostics alarms`".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{EventId, EventType, Source, Subject};

    use super::*;

    fn event(id: &str) -> Event {
        Event {
            id: EventId::new(id).unwrap(),
            source: Source::new("test").unwrap(),
            kind: EventType::new("order.placed.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            time: None,
            sequence: None,
            epoch: None,
            traceparent: None,
            data: "{}".into(),
        }
    }

    #[test]
    fn events_are_sent_again_in_order_until_all_are_confirmed() {
        let mut again = Again::new(Duration::from_secs(60));
        assert_eq!(again.note_settled(3, || None), None);
        again.add(event("1"), Outcome::Disconnected);
        again.add(event("2"), Outcome::Disconnected);
        let note = again
            .note_settled(0, || Some("host away".to_owned()))
            .unwrap();
        assert!(note.contains("2 events are not confirmed"), "{note}");
        assert!(note.contains("host away"), "{note}");
        assert_eq!(again.note_settled(0, || None), None, "said once");

        let ids = |chunk: &Chunk| {
            chunk
                .events
                .iter()
                .map(|e| e.id.to_string())
                .collect::<Vec<_>>()
        };
        let chunk = again.take();
        assert_eq!(ids(&chunk), ["1", "2"]);
        assert!(again.is_recovering() && !again.is_waiting());

        again.add(event("2"), Outcome::Blocked);
        let note = again.note_settled(1, || None).unwrap();
        assert!(
            note.contains("alarms"),
            "another trouble is told, too: {note}"
        );
        assert_eq!(ids(&again.take()), ["2"]);
        assert!(
            again
                .note_settled(1, || None)
                .unwrap()
                .contains("all confirmed")
        );
        assert!(!again.is_recovering());
    }

    #[test]
    fn without_any_confirm_there_is_an_end_that_says_why() {
        let mut again = Again::new(Duration::ZERO);
        assert!(again.give_up(&Tally::default()).is_none());
        again.add(event("1"), Outcome::Unroutable);
        let failure = again.give_up(&Tally::default()).unwrap();
        assert_eq!(failure.reason, Reason::Broker);
        let said = failure.to_string();
        assert!(
            said.contains("no queue takes events of type order.placed.v1"),
            "{said}"
        );

        let mut patient = Again::new(Duration::from_secs(60));
        patient.add(event("1"), Outcome::Unroutable);
        assert!(patient.give_up(&Tally::default()).is_none());
    }
}
