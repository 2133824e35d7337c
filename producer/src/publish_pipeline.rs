//! Publishes events until every one is confirmed.
//!
//! Several batches are in flight at a time. Unconfirmed events are published again, under the same id, after a growing
//! backoff. New batches wait until all of those are confirmed, so that a stream stays in order where possible and
//! memory stays flat.
//!
//! So an event may arrive twice, which consumers recognise. None is left out but those that the broker refuses for
//! good, each of which is reported with its line.

use std::time::Duration;

use doorstep_cli::{CliError, ShutdownSignal};
use doorstep_messaging::{
    BrokerSettings, ConnectionStatus, EncodedEvents, PublishOutcome, Publisher, check_version,
};
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    chunk::{EventBatch, LineEvent},
    progress::Progress,
    resend::{ResendQueue, Settled},
    stop::interrupted,
    tally::EventCounts,
};

/// The limit of batches in flight: enough to overlap the broker's confirms of one with the making of the next.
const BATCHES_IN_FLIGHT: usize = 4;
/// The timeout of confirms when the user stops the program, and of closing the connection.
const GRACE: Duration = Duration::from_secs(5);
/// The limit of events that the broker may refuse for good: each costs some channels, and more of them are no matter of
/// single events.
const MAX_REJECTED: u64 = 100;
/// The interval of the progress display when nothing else happens.
const TICK: Duration = Duration::from_millis(500);

/// The broker, and the time for which to try.
#[derive(Debug)]
pub(crate) struct BrokerTarget {
    /// The settings of the connection.
    pub(crate) settings: BrokerSettings,
    /// The time without a confirm after which the program gives up.
    pub(crate) give_up_after: Duration,
}

impl BrokerTarget {
    /// Connects and declares all queues, so that no event is lost before its consumer first starts.
    ///
    /// # Errors
    /// The broker is unreachable within the time, denies access, or has other queues under these names.
    pub(crate) async fn connect(self) -> Result<EventSender, CliError> {
        let topology = doorstep_cli::topology(&self.settings.namespace);
        let publisher = Publisher::start(&self.settings, "doorstep producer", topology);
        let mut state = publisher.status();
        tokio::select! {
            ready = publisher.ready(self.settings.start_timeout) => {
                ready.map_err(|e| CliError::broker(e.to_string()))?;
            }
            // Only reports, and never ends.
            () = tell_trouble(&mut state) => {}
        }
        // The publisher reports any other difference itself, since it declares the queues. Nothing waits for this.
        tokio::spawn(async move {
            if let Some(finding) = check_version(&self.settings).await {
                eprintln!("warning: {finding}");
            }
        });
        Ok(EventSender {
            publisher,
            events: EncodedEvents::default(),
            give_up_after: self.give_up_after,
        })
    }
}

/// Reports once why there is no connection yet, so that the user knows the reason for the wait.
async fn tell_trouble(state: &mut watch::Receiver<ConnectionStatus>) {
    if let Ok(state) = state.wait_for(|state| state.last_error.is_some()).await
        && let Some(error) = state.last_error.as_ref().filter(|e| !e.is_permanent())
    {
        eprintln!("waiting for the broker: {error}");
    }
    std::future::pending::<()>().await;
}

/// A connection on which events can be published.
pub(crate) struct EventSender {
    publisher: Publisher,
    events: EncodedEvents,
    give_up_after: Duration,
}

impl EventSender {
    /// Publishes all batches. Returns the number of events of each type once every event is confirmed, or refused by
    /// the broker for good.
    ///
    /// # Errors
    /// The broker refuses too many, no confirm arrived within the time, or the user stops the program. Confirmed events
    /// stay published.
    pub(crate) async fn send_all(
        self,
        mut chunks: mpsc::Receiver<EventBatch>,
        progress: &mut Progress,
        mut stop: ShutdownSignal,
    ) -> Result<EventCounts, CliError> {
        let mut again = ResendQueue::new(self.give_up_after);
        let mut tally = EventCounts::default();
        let mut in_flight = FuturesOrdered::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_open = true;
        let mut channels_refused = 0;
        let result = loop {
            if tally.rejected.total() > MAX_REJECTED {
                break Err(self.too_many_refused(&tally));
            }
            if in_flight.is_empty() {
                if again.has_pending() {
                    if let Some(failure) = again.give_up(&tally) {
                        break Err(failure);
                    }
                    // Dropping the pause is safe: nothing depends on its end.
                    if stop.or_cancelled(again.pause()).await.is_none() {
                        break Err(interrupted(&so_far(&tally)));
                    }
                    in_flight.push_back(self.publish(again.take()));
                } else if !is_open {
                    break Ok(());
                }
            }
            let has_room = !again.in_outage() && in_flight.len() < BATCHES_IN_FLIGHT;
            // Dropping any arm is safe: an unreceived batch stays in its channel, a batch in flight stays in its list.
            tokio::select! {
                Some(done) = in_flight.next(), if !in_flight.is_empty() => {
                    self.apply_outcomes(done, &mut again, &mut tally, &mut channels_refused, progress);
                }
                chunk = chunks.recv(), if is_open && has_room => match chunk {
                    Some(chunk) => in_flight.push_back(self.publish(chunk)),
                    None => is_open = false,
                },
                _ = ticks.tick() => progress.refresh(),
                () = stop.recv() => {
                    // Batches in flight get a limited time to arrive.
                    let _ = timeout(GRACE, async {
                        while let Some(done) = in_flight.next().await {
                            self.apply_outcomes(done, &mut again, &mut tally, &mut channels_refused, progress);
                        }
                    })
                    .await;
                    break Err(interrupted(&so_far(&tally)));
                }
            }
        };
        drop(in_flight);
        self.publisher.close(GRACE).await;
        result.map(|()| tally)
    }

    /// Publishes a batch. The publisher takes batches one after the other, in the order in which these futures are
    /// first polled.
    async fn publish(&self, chunk: EventBatch) -> (EventBatch, Vec<PublishOutcome>) {
        let events = chunk.events.iter();
        let messages = events.map(|item| self.events.encode(&item.event)).collect();
        let outcomes = self.publisher.publish_all(messages).await;
        (chunk, outcomes)
    }

    /// Counts the confirmed events of a batch, reports those that the broker refuses for good, and keeps the rest for
    /// resending.
    fn apply_outcomes(
        &self,
        (chunk, outcomes): (EventBatch, Vec<PublishOutcome>),
        again: &mut ResendQueue,
        tally: &mut EventCounts,
        channels_refused: &mut u64,
        progress: &mut Progress,
    ) {
        let sent = chunk.events.len();
        let (mut confirmed, mut rejected) = (0, 0);
        for (item, outcome) in chunk.events.into_iter().zip(outcomes) {
            match outcome {
                PublishOutcome::Confirmed => {
                    self.events.confirmed(&item.event);
                    tally.arrived.add(&item.event);
                    confirmed += 1;
                }
                PublishOutcome::Unpublishable => {
                    let LineEvent { line, event } = &item;
                    let words = self.rejection();
                    progress.note(&format!(
                        "line {line}: the broker refuses {} of {} ({words}): {}",
                        event.event_type,
                        event.subject,
                        remedy(&words)
                    ));
                    tally.rejected.add(event);
                    rejected += 1;
                }
                _ => again.add(item, outcome),
            }
        }
        let before = std::mem::replace(
            channels_refused,
            self.publisher.stats().read().channels_closed_over_message,
        );
        let settled = Settled {
            sent,
            done: confirmed + rejected,
            channel_closed: before != *channels_refused,
        };
        let connection = || {
            Some(
                self.publisher
                    .status()
                    .borrow()
                    .last_error
                    .as_ref()?
                    .to_string(),
            )
        };
        if let Some(note) = again.on_outcomes(settled, connection) {
            progress.note(&note);
        }
        progress.advance(chunk.rows, confirmed as u64);
    }

    /// Returns the broker's text of its last refusal of an event.
    fn rejection(&self) -> String {
        let state = self.publisher.status();
        let words = state.borrow().last_rejection.clone();
        words.unwrap_or_else(|| "it gave no reason".to_owned())
    }

    fn too_many_refused(&self, tally: &EventCounts) -> CliError {
        CliError::broker(format!(
            "the broker refuses these events, {} of {} so far, so the rest was not sent ({}): grant the user the permission, or correct the events; the same command sends all of them again, and events that arrived already change nothing",
            tally.rejected.total(),
            tally.arrived.total() + tally.rejected.total(),
            self.rejection()
        ))
    }
}

/// Returns the remedy for an event that the broker refuses with this text.
fn remedy(words: &str) -> &'static str {
    if words.contains("message size") {
        "make it smaller, or raise max_message_size on the broker"
    } else {
        "grant the permission with rabbitmqctl set_topic_permissions"
    }
}

/// Describes the result of an interrupted run.
fn so_far(tally: &EventCounts) -> String {
    format!(
        "{} events are confirmed, and events in flight may have arrived, too; sending any of them again changes nothing",
        tally.arrived.total()
    )
}
