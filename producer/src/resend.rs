//! Unconfirmed events, to be published again: in order, with a growing backoff, until the timeout.
//!
//! If the broker closes the channel because of one of several events, they are published in ever smaller parts until
//! that one is alone. Then the publisher reports that it cannot be published, and the others go on.

use std::time::{Duration, Instant};

use doorstep_cli::CliError;
use doorstep_messaging::PublishOutcome;
use rand::RngExt;

use crate::{
    chunk::{EventBatch, LineEvent},
    tally::EventCounts,
};

/// The first and the longest backoff before events are published again. The backoff doubles, and each pause is random
/// below it, since after an outage all clients return at once.
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The events to be published again.
pub(crate) struct ResendQueue {
    events: Vec<LineEvent>,
    /// The events after the part that is in flight.
    rest: Vec<LineEvent>,
    /// The limit of events of a part during the search for one that cannot be published.
    part: Option<usize>,
    /// True if the next part need not wait, since the last one was confirmed or has led to a smaller one.
    is_at_once: bool,
    /// True if the user was told of the search, which may happen many times.
    search_told: bool,
    give_up_after: Duration,
    trouble: Option<Outage>,
}

/// The outcome of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settled {
    /// The number of its events.
    pub(crate) sent: usize,
    /// The number of those that are confirmed, or refused for good.
    pub(crate) done: usize,
    /// True if the broker has closed the channel meanwhile.
    pub(crate) channel_closed: bool,
}

/// A period in which some events are unconfirmed.
struct Outage {
    /// The time of the last confirm, or of the start of the outage.
    since: Instant,
    /// The number of attempts in a row without a confirm.
    failures: u32,
    /// The broker's last outcome, and its event.
    outcome: PublishOutcome,
    kind: String,
    /// The reason why there is no connection, if there is none.
    connection: Option<String>,
    /// The last outcome that the user was told.
    told: Option<PublishOutcome>,
    /// True if the user was told of the outage, and so is told of its end.
    is_told: bool,
}

impl ResendQueue {
    pub(crate) fn new(give_up_after: Duration) -> Self {
        Self {
            events: Vec::new(),
            rest: Vec::new(),
            part: None,
            is_at_once: false,
            search_told: false,
            give_up_after,
            trouble: None,
        }
    }

    /// Returns true if there are events to be published again.
    pub(crate) fn has_pending(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns true if an event that was not confirmed at first is still unconfirmed.
    pub(crate) fn in_outage(&self) -> bool {
        self.trouble.is_some()
    }

    /// Adds an unconfirmed event. Called in the order of the events.
    pub(crate) fn add(&mut self, item: LineEvent, outcome: PublishOutcome) {
        let event = &item.event;
        match &mut self.trouble {
            Some(trouble) => trouble.outcome = outcome,
            None => {
                self.trouble = Some(Outage {
                    since: Instant::now(),
                    failures: 0,
                    outcome,
                    kind: event.event_type.to_string(),
                    connection: None,
                    told: None,
                    is_told: false,
                });
            }
        }
        if let Some(trouble) = &mut self.trouble
            && trouble.kind != event.event_type.as_str()
        {
            trouble.kind = event.event_type.to_string();
        }
        self.events.push(item);
    }

    /// Records the outcomes of a batch, and the reason why there is no connection, if there is none. Returns a message
    /// for the user, once for each kind of outage.
    pub(crate) fn on_outcomes(
        &mut self,
        settled: Settled,
        connection: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let Settled {
            sent,
            done,
            channel_closed,
        } = settled;
        self.events.append(&mut self.rest);
        if channel_closed {
            self.part = Some((sent / 2).max(1));
        } else if sent == done {
            self.part = self.part.map(|part| part.saturating_mul(2));
        }
        self.is_at_once = sent == done || (channel_closed && sent > 1);
        let trouble = self.trouble.as_mut()?;
        if done > 0 {
            trouble.since = Instant::now();
            trouble.failures = 0;
        }
        if self.events.is_empty() {
            self.part = None;
            let is_told = self.trouble.take().is_some_and(|trouble| trouble.is_told);
            return is_told.then(|| "all others are confirmed, continuing".to_owned());
        }
        if self.part.is_some() {
            if std::mem::replace(&mut self.search_told, true) {
                return None;
            }
            trouble.is_told = true;
            return Some(format!(
                "the broker closed the channel because of one of {} events, which are sent in smaller parts until it is found",
                self.events.len()
            ));
        }
        trouble.connection = connection();
        if trouble.told == Some(trouble.outcome) {
            return None;
        }
        trouble.told = Some(trouble.outcome);
        trouble.is_told = true;
        Some(format!(
            "{} events are not confirmed and are sent again until they are: {}",
            self.events.len(),
            trouble.describe()
        ))
    }

    /// Takes the events to publish again: all, or the first part of them.
    pub(crate) fn take(&mut self) -> EventBatch {
        if let Some(trouble) = &mut self.trouble {
            trouble.failures += 1;
        }
        let mut events = std::mem::take(&mut self.events);
        if let Some(part) = self.part {
            self.rest = events.split_off(part.min(events.len()));
        }
        EventBatch { events, rows: 0 }
    }

    /// Waits for the backoff. Cancel-safe.
    pub(crate) async fn pause(&self) {
        if self.is_at_once {
            return;
        }
        let failures = self.trouble.as_ref().map_or(0, |t| t.failures);
        let longest = INITIAL_BACKOFF
            .saturating_mul(1 << failures.min(16))
            .min(MAX_BACKOFF);
        let pause = rand::rng().random_range(Duration::ZERO..=longest);
        tokio::time::sleep(pause).await;
    }

    /// Returns the final error, if nothing was confirmed for too long.
    pub(crate) fn give_up(&self, tally: &EventCounts) -> Option<CliError> {
        let trouble = self.trouble.as_ref()?;
        if trouble.since.elapsed() < self.give_up_after {
            return None;
        }
        Some(CliError::broker(format!(
            "gave up after {:?} without a confirm, {} events are confirmed and {} are not: {}; the same command sends all of them again, and events that arrived already change nothing",
            self.give_up_after,
            tally.arrived.total(),
            self.events.len(),
            trouble.describe()
        )))
    }
}

impl Outage {
    /// Describes the outage and its remedy.
    fn describe(&self) -> String {
        let kind = &self.kind;
        match self.outcome {
            PublishOutcome::Confirmed => "they are confirmed".to_owned(),
            PublishOutcome::Unroutable => format!(
                "no queue takes events of type {kind}; if it was deleted, `consumers run` or a restart of this program declares it again"
            ),
            PublishOutcome::Rejected => format!(
                "the queue for events of type {kind} rejects them, perhaps it is full; check that its consumer runs"
            ),
            PublishOutcome::Unpublishable => format!(
                "this user may not publish events of type {kind}, or they are too large; see the log, and grant the permission with rabbitmqctl set_topic_permissions"
            ),
            PublishOutcome::TimedOut => "the broker does not confirm in time; check whether it is overloaded or has lost its majority".to_owned(),
            PublishOutcome::Disconnected => match &self.connection {
                Some(reason) => format!("the broker is unavailable: {reason}"),
                None => "the broker is unavailable".to_owned(),
            },
            PublishOutcome::Blocked => "the broker blocks publishing, usually for lack of memory or disk; see its alarms with `rabbitmq-diagnostics alarms`".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use doorstep_cli::ExitReason;
    use doorstep_event::{Event, EventId, EventType, Source, Subject};

    use super::*;

    fn event(line: u64) -> LineEvent {
        let event = Event {
            id: EventId::new(line.to_string()).unwrap(),
            source: Source::new("test").unwrap(),
            event_type: EventType::new("order.placed.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            time: None,
            sequence: None,
            epoch: None,
            traceparent: None,
            data: "{}".into(),
        };
        LineEvent { line, event }
    }

    fn settled(sent: usize, done: usize) -> Settled {
        Settled {
            sent,
            done,
            channel_closed: false,
        }
    }

    fn lines(chunk: &EventBatch) -> Vec<u64> {
        chunk.events.iter().map(|item| item.line).collect()
    }

    #[test]
    fn events_are_resent_in_order_until_confirmed() {
        let mut again = ResendQueue::new(Duration::from_secs(60));
        assert_eq!(again.on_outcomes(settled(3, 3), || None), None);
        again.add(event(1), PublishOutcome::Disconnected);
        again.add(event(2), PublishOutcome::Disconnected);
        let note = again
            .on_outcomes(settled(2, 0), || Some("host away".to_owned()))
            .unwrap();
        assert!(note.contains("2 events are not confirmed"), "{note}");
        assert!(note.contains("host away"), "{note}");
        let twice = again.on_outcomes(settled(2, 0), || None);
        assert_eq!(twice, None, "said once");

        let chunk = again.take();
        assert_eq!(lines(&chunk), [1, 2]);
        assert!(again.in_outage() && !again.has_pending());

        again.add(event(2), PublishOutcome::Blocked);
        let note = again.on_outcomes(settled(2, 1), || None).unwrap();
        assert!(
            note.contains("alarms"),
            "another trouble is told, too: {note}"
        );
        assert_eq!(lines(&again.take()), [2]);
        let note = again.on_outcomes(settled(1, 1), || None).unwrap();
        assert!(note.contains("are confirmed"), "{note}");
        assert!(!again.in_outage());
    }

    /// Plays a broker that closes the channel because of some lines. Events of a batch before the first of them are
    /// confirmed, or not; events after it are not. Returns the refused lines, the confirmed ones in order, and the
    /// number of batches.
    fn play(
        again: &mut ResendQueue,
        bad: impl Fn(u64) -> bool,
        before_is_confirmed: bool,
    ) -> (Vec<u64>, Vec<u64>, usize) {
        let (mut rejected, mut confirmed, mut chunks) = (Vec::new(), Vec::new(), 0);
        while again.has_pending() {
            let chunk = again.take();
            chunks += 1;
            let sent = chunk.events.len();
            let first_bad = chunk.events.iter().position(|item| bad(item.line));
            let mut done = 0;
            for (place, item) in chunk.events.into_iter().enumerate() {
                match first_bad {
                    Some(_) if sent == 1 => {
                        rejected.push(item.line);
                        done += 1;
                    }
                    Some(first) if !before_is_confirmed || place >= first => {
                        again.add(item, PublishOutcome::Disconnected);
                    }
                    _ => {
                        confirmed.push(item.line);
                        done += 1;
                    }
                }
            }
            let settled = Settled {
                sent,
                done,
                channel_closed: first_bad.is_some(),
            };
            again.on_outcomes(settled, || None);
        }
        (rejected, confirmed, chunks)
    }

    #[test]
    fn bisection_finds_unpublishable_event_and_keeps_order() {
        for before_is_confirmed in [false, true] {
            for bad in [1, 2, 777, 1_999, 2_000] {
                let mut again = ResendQueue::new(Duration::from_secs(60));
                for line in 1..=2_000 {
                    again.add(event(line), PublishOutcome::Disconnected);
                }
                let closed = Settled {
                    sent: 500,
                    done: 0,
                    channel_closed: true,
                };
                let note = again.on_outcomes(closed, || None).unwrap();
                assert!(note.contains("one of 2000 events"), "{note}");
                let (rejected, confirmed, chunks) =
                    play(&mut again, |line| line == bad, before_is_confirmed);
                assert_eq!(rejected, [bad]);
                let others: Vec<u64> = (1..=2_000).filter(|line| *line != bad).collect();
                assert_eq!(confirmed, others);
                assert!(chunks < 80, "{bad}: {chunks} chunks");
                assert!(!again.in_outage());
            }
        }
    }

    #[test]
    fn all_unpublishable_events_are_found() {
        let mut again = ResendQueue::new(Duration::from_secs(60));
        for line in 1..=100 {
            again.add(event(line), PublishOutcome::Disconnected);
        }
        let (rejected, confirmed, _) = play(&mut again, |line| line % 10 == 0, false);
        assert_eq!(rejected, (1..=10).map(|n| n * 10).collect::<Vec<u64>>());
        assert_eq!(confirmed.len(), 90);
        assert!(confirmed.is_sorted());
    }

    #[test]
    fn without_confirms_resending_ends_with_cause() {
        let mut again = ResendQueue::new(Duration::ZERO);
        assert!(again.give_up(&EventCounts::default()).is_none());
        again.add(event(1), PublishOutcome::Unroutable);
        let failure = again.give_up(&EventCounts::default()).unwrap();
        assert_eq!(failure.reason, ExitReason::Broker);
        let said = failure.to_string();
        assert!(
            said.contains("no queue takes events of type order.placed.v1"),
            "{said}"
        );

        let mut patient = ResendQueue::new(Duration::from_secs(60));
        patient.add(event(1), PublishOutcome::Unroutable);
        assert!(patient.give_up(&EventCounts::default()).is_none());
    }
}
