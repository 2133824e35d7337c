//! The relay of a running role: sends its outbox whenever something is owed and the broker is there.

use std::{sync::Arc, time::Duration};

use doorstep_event::{Event, Timestamp};
use doorstep_messaging::{EncodedEvents, Message, PublishOutcome, Publisher, QueueName};
use doorstep_store::{OutboxKind, Store, StoreError};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{Liveness, shutdown::Shutdown};
use crate::{
    Limits,
    relay::{MIN_BACKOFF, OutboxSink, RefusedRows, RelayBatch, RelayReport, relay_once},
    telemetry::{BatchInstruments, OutboxRecovered, OutboxSent, OutboxStalled},
};

/// How often the outbox is looked at although nobody has said that something is owed: rows fall due again, other processes write.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The broker as an outlet.
struct BrokerSink {
    publisher: Publisher,
    events: EncodedEvents,
    /// `None` where nobody has declared one: then there is nowhere to copy dead letters to, and nothing is owed.
    dead_queue: Option<QueueName>,
    /// The time that a copy stays there.
    copy_ttl: Duration,
    meters: BatchInstruments,
}

/// A row that was sent.
enum Sent {
    Event(Event),
    Copy,
    /// There is nowhere to send it to.
    Nowhere,
}

impl OutboxSink for BrokerSink {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<PublishOutcome> {
        let mut sent = Vec::with_capacity(rows.len());
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            sent.push(match (row, &self.dead_queue) {
                (OutboxKind::Event(event), _) => {
                    messages.push(self.events.of(&event));
                    Sent::Event(event)
                }
                (OutboxKind::DeadCopy { id, headers, body }, Some(queue)) => {
                    let headers = headers.into_iter().collect();
                    let copy = Message::to_queue(queue.clone(), &id.0, headers, body);
                    messages.push(copy.expiring(self.copy_ttl));
                    Sent::Copy
                }
                (OutboxKind::DeadCopy { .. }, None) => Sent::Nowhere,
            });
        }
        let began = Instant::now();
        let mut outcomes = self.publisher.publish_all(messages).await.into_iter();
        let mut next = || outcomes.next().unwrap_or(PublishOutcome::Disconnected);
        let outcomes = sent
            .iter()
            .map(|sent| match sent {
                Sent::Event(event) => {
                    let outcome = next();
                    if outcome == PublishOutcome::Confirmed {
                        self.events.confirmed(event);
                    }
                    outcome
                }
                Sent::Copy => next(),
                Sent::Nowhere => PublishOutcome::Confirmed,
            })
            .collect();
        OutboxSent {
            meters: &self.meters,
            took: began.elapsed(),
        }
        .tell();
        outcomes
    }
}

/// Sends until the role stops; then sends what is still owed, until the engine has ended and nothing is left that the broker would take,
/// or the grace is over. What it turns away for its own sake holds back no other, and is not waited for.
#[expect(
    clippy::too_many_arguments,
    reason = "a task is given what it needs, once"
)]
pub(super) async fn relay<S: Store>(
    role: &'static str,
    store: S,
    publisher: Publisher,
    dead_queue: Option<QueueName>,
    limits: Limits,
    owed: Arc<Notify>,
    vitals: Arc<Liveness>,
    meters: BatchInstruments,
    mut stop: Shutdown,
    mut ended: watch::Receiver<bool>,
    refusals: watch::Sender<Option<String>>,
) {
    let mut sender = OutboxPublisher {
        store,
        outlet: BrokerSink {
            publisher,
            events: EncodedEvents::default(),
            dead_queue,
            copy_ttl: limits.dead_copy_ttl,
            meters,
        },
        limits,
        vitals,
        outage: SendFailure {
            role,
            told: Vec::new(),
        },
        put_off: None,
        singly: 0,
        refused: RefusedRows::default(),
        refusals,
    };
    let mut over = stop.clone();
    loop {
        // Each may be cancelled: a notification, the stop signal and the engine's end are kept until they are taken.
        let stops = tokio::select! {
            biased;
            () = stop.asked() => true,
            _ = ended.wait_for(|ended| *ended) => true,
            _ = timeout(POLL_INTERVAL, owed.notified()) => false,
        };
        if stops {
            break;
        }
        // Where the broker is away, sending takes until that is certain; a stop does not wait for it beyond its grace. What is cut off
        // is sent again. The engine meets the same store and tells of it.
        tokio::select! {
            _ = sender.send_all() => {}
            () = over.is_over() => return,
        }
    }
    // The engine may still be finishing its batch: what that owes is sent, too.
    let deadline = stop.deadline();
    while Instant::now() < deadline {
        // Looked at before the outbox is: what comes after that is seen by the next turn. Without its sender it has ended as well.
        let has_ended = *ended.borrow() || ended.has_changed().is_err();
        let Ok(sent) = timeout_at(deadline, sender.send_all()).await else {
            return;
        };
        // What cannot be read is safe where it is, and goes out after the next start.
        if has_ended && (sent.is_err() || sender.put_off.is_none()) {
            return;
        }
        let next = sender
            .put_off
            .unwrap_or_else(|| Instant::now() + POLL_INTERVAL);
        // Each may be cancelled, as above.
        tokio::select! {
            () = sleep_until(next.min(deadline)) => {}
            () = owed.notified() => {}
            _ = ended.wait_for(|ended| *ended), if !has_ended => {}
        }
    }
}

/// What sends the outbox.
struct OutboxPublisher<S> {
    store: S,
    outlet: BrokerSink,
    limits: Limits,
    vitals: Arc<Liveness>,
    outage: SendFailure,
    /// Until when there may be rows that the broker has not taken for reasons of its own, and that are not due again yet.
    put_off: Option<Instant>,
    /// How many rows are still sent one by one, to find the one for which the broker closes the channel.
    singly: usize,
    /// The rows for which it has closed it.
    refused: RefusedRows,
    /// Describes why the role is degraded while there are any.
    refusals: watch::Sender<Option<String>>,
}

impl<S: Store> OutboxPublisher<S> {
    /// Sends all that is due. May be cancelled: what was sent and not yet deleted is sent again.
    async fn send_all(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut all = RelayReport::default();
        let vitals = Arc::clone(&self.vitals);
        let done = loop {
            let _step = vitals.relay.step();
            let share = self.batch();
            let turn = relay_once(
                &self.store,
                &self.outlet,
                share,
                &mut self.refused,
                Timestamp::now,
            );
            let relayed = match turn.await {
                Ok(relayed) => relayed,
                Err(error) => break Err(error),
            };
            self.send_one_by_one(share, &relayed);
            all.add(&relayed);
            if let Some(outcome) = relayed.first_failure {
                self.outage.stalled(relayed.postponed, outcome);
            }
            // A full turn is followed by the next at once, unless nothing gets through: rows that are turned away for their own sake hold
            // back no other.
            let is_full = relayed.paid + relayed.postponed >= share.most();
            if relayed.transient > 0 || !is_full {
                break Ok(());
            }
        };
        self.show_refused();
        if all.transient > 0 {
            self.put_off = Some(Instant::now() + MIN_BACKOFF);
        } else if done.is_ok() {
            // Those that were due again by then have gone out.
            self.put_off = self.put_off.filter(|due| *due > began);
        }
        if all.paid > 0 && all.postponed == 0 {
            self.outage.over();
        }
        done
    }
}

impl<S> OutboxPublisher<S> {
    fn batch(&self) -> RelayBatch {
        let link = self.outlet.publisher.state();
        let is_there = link.borrow().is_connected();
        match self.singly {
            0 => RelayBatch::Rows(self.limits.relay_rows),
            // Where the connection is not there, that it does not work is nobody's fault.
            _ if !is_there => RelayBatch::Rows(1),
            _ => RelayBatch::Suspect,
        }
    }

    /// Shows what the broker refuses, for as long as it does.
    fn show_refused(&self) {
        let rows = self.refused.len();
        if rows == 0 && self.refusals.borrow().is_none() {
            return;
        }
        let words = (rows > 0).then(|| {
            let link = self.outlet.publisher.state();
            let reason = link.borrow().last_refusal.clone();
            format!(
                "the broker refuses {rows} messages of the outbox ({}): grant its user the right, or correct the setting or size that it names; they are tried again and hold back no other",
                reason.as_deref().unwrap_or("it has not said why")
            )
        });
        self.refusals.send_if_modified(|shown| {
            let changed = *shown != words;
            if changed {
                *shown = words;
            }
            changed
        });
    }

    /// A connection that breaks while a batch is sent may do so because of one of its rows.
    fn send_one_by_one(&mut self, share: RelayBatch, relayed: &RelayReport) {
        self.singly = match share {
            RelayBatch::Rows(rows) if rows > 1 && relayed.broke => self.limits.relay_rows,
            RelayBatch::Suspect if relayed.broke => 0,
            _ => self.singly.saturating_sub(relayed.paid + relayed.postponed),
        };
    }
}

/// Rows that cannot be sent: each outcome is told once until the outbox flows again, not with every try.
struct SendFailure {
    role: &'static str,
    told: Vec<PublishOutcome>,
}

impl SendFailure {
    fn stalled(&mut self, rows: usize, outcome: PublishOutcome) {
        if !self.told.contains(&outcome) {
            let role = self.role;
            OutboxStalled {
                role,
                rows,
                outcome,
            }
            .tell();
            self.told.push(outcome);
        }
    }

    fn over(&mut self) {
        if !std::mem::take(&mut self.told).is_empty() {
            OutboxRecovered { role: self.role }.tell();
        }
    }
}
