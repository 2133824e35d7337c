//! The relay of a running role: publishes its outbox whenever rows are pending and the broker is reachable.

use std::{sync::Arc, time::Duration};

use doorstep_event::{Event, Timestamp};
use doorstep_messaging::{EncodedEvents, Message, PublishOutcome, Publisher, QueueName};
use doorstep_store::{OutboxKind, Result, Store};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{Liveness, shutdown::Shutdown};
use crate::{
    Limits,
    relay::{MIN_BACKOFF, OutboxSink, RejectedRows, RelayBatch, RelayReport, relay_once},
    telemetry::{self, BatchInstruments},
};

/// The interval at which the outbox is polled without a notification: rows fall due again, and other processes write.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The broker as the sink of the relay.
struct BrokerTarget {
    publisher: Publisher,
    events: EncodedEvents,
    /// `None` if no dead-letter queue is declared: then there is no place for copies of dead letters, and none is
    /// pending.
    dead_queue: Option<QueueName>,
    /// The time that a copy stays there.
    copy_ttl: Duration,
    meters: BatchInstruments,
}

/// An outbox row after the attempt to start its publish.
enum Sent {
    Event(Event),
    Copy,
    /// There is no destination for it.
    Nowhere,
}

impl OutboxSink for BrokerTarget {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<PublishOutcome> {
        let mut sent = Vec::with_capacity(rows.len());
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            sent.push(match (row, &self.dead_queue) {
                (OutboxKind::Event(event), _) => {
                    messages.push(self.events.encode(&event));
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
        self.meters.sent(began.elapsed());
        outcomes
    }
}

/// Publishes until the role stops. After that it goes on with the pending rows, until the engine has ended and no row
/// is left that the broker would accept, or until the shutdown timeout is over. Rows rejected for their own content delay
/// no other row and are not waited for.
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
    outbox_filled: Arc<Notify>,
    liveness: Arc<Liveness>,
    meters: BatchInstruments,
    mut stop: Shutdown,
    mut ended: watch::Receiver<bool>,
    rejections: watch::Sender<Option<String>>,
) {
    let mut sender = OutboxPublisher {
        store,
        outlet: BrokerTarget {
            publisher,
            events: EncodedEvents::default(),
            dead_queue,
            copy_ttl: limits.dead_letter_copy_ttl,
            meters,
        },
        limits,
        liveness,
        outage: SendFailure {
            role,
            reported: Vec::new(),
        },
        postponed_until: None,
        singly: 0,
        rejected: RejectedRows::default(),
        rejections,
    };
    let mut over = stop.clone();
    loop {
        // Each may be cancelled: a notification, the stop signal and the engine's end are kept until they are taken.
        let stops = tokio::select! {
            biased;
            () = stop.requested() => true,
            _ = ended.wait_for(|ended| *ended) => true,
            _ = timeout(POLL_INTERVAL, outbox_filled.notified()) => false,
        };
        if stops {
            break;
        }
        // If the broker is unreachable, publishing takes until that is certain; a stop does not wait for it beyond its
        // shutdown timeout. Interrupted rows are published again. The engine uses the same store and reports its errors.
        tokio::select! {
            _ = sender.send_all() => {}
            () = over.is_over() => return,
        }
    }
    // The engine may still be finishing its batch, whose outbox rows are published, too.
    let deadline = stop.deadline();
    while Instant::now() < deadline {
        // Read before the outbox is: the next turn sees rows that come after it. If its sender is gone, the engine has
        // ended as well.
        let has_ended = *ended.borrow() || ended.has_changed().is_err();
        let Ok(sent) = timeout_at(deadline, sender.send_all()).await else {
            return;
        };
        // Rows that cannot be read are safe in the store, and are published after the next start.
        if has_ended && (sent.is_err() || sender.postponed_until.is_none()) {
            return;
        }
        let next = sender
            .postponed_until
            .unwrap_or_else(|| Instant::now() + POLL_INTERVAL);
        // Each may be cancelled, as above.
        tokio::select! {
            () = sleep_until(next.min(deadline)) => {}
            () = outbox_filled.notified() => {}
            _ = ended.wait_for(|ended| *ended), if !has_ended => {}
        }
    }
}

/// The publisher of the outbox, with the state that it keeps between turns.
struct OutboxPublisher<S> {
    store: S,
    outlet: BrokerTarget,
    limits: Limits,
    liveness: Arc<Liveness>,
    outage: SendFailure,
    /// The time until which there may be rows that the broker has not accepted for reasons of its own and that are not
    /// due again yet.
    postponed_until: Option<Instant>,
    /// The number of rows still published one by one, to find the one for which the broker closes the channel.
    singly: usize,
    /// The rows for which the broker has closed the channel.
    rejected: RejectedRows,
    /// The reason why the role is degraded while there are such rows.
    rejections: watch::Sender<Option<String>>,
}

impl<S: Store> OutboxPublisher<S> {
    /// Publishes all rows that are due. May be cancelled: rows that were published and not yet deleted are published
    /// again.
    async fn send_all(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut all = RelayReport::default();
        let liveness = Arc::clone(&self.liveness);
        let done = loop {
            let _step = liveness.relay.step();
            let share = self.batch();
            let turn = relay_once(
                &self.store,
                &self.outlet,
                share,
                &mut self.rejected,
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
            // After a full turn the next one follows at once, unless no row gets through: rows rejected for their own
            // content delay no others.
            let is_full = relayed.published + relayed.postponed >= share.most();
            if relayed.transient > 0 || !is_full {
                break Ok(());
            }
        };
        self.show_refused();
        if all.transient > 0 {
            self.postponed_until = Some(Instant::now() + MIN_BACKOFF);
        } else if done.is_ok() {
            // Rows that were due again by then are published.
            self.postponed_until = self.postponed_until.filter(|due| *due > began);
        }
        if all.published > 0 && all.postponed == 0 {
            self.outage.over();
        }
        done
    }
}

impl<S> OutboxPublisher<S> {
    fn batch(&self) -> RelayBatch {
        let link = self.outlet.publisher.status();
        let is_there = link.borrow().is_connected();
        match self.singly {
            0 => RelayBatch::Rows(self.limits.relay_rows),
            // Without a connection, a failure is not the row's fault.
            _ if !is_there => RelayBatch::Rows(1),
            _ => RelayBatch::OneByOne,
        }
    }

    /// Reports the rows that the broker rejects, for as long as it does.
    fn show_refused(&self) {
        let rows = self.rejected.len();
        if rows == 0 && self.rejections.borrow().is_none() {
            return;
        }
        let words = (rows > 0).then(|| {
            let link = self.outlet.publisher.status();
            let reason = link.borrow().last_rejection.clone();
            format!(
                "the broker rejects {rows} messages of the outbox ({}): grant its user the permission, or correct the setting or size that it names; they are retried and delay no others",
                reason.as_deref().unwrap_or("it gave no reason")
            )
        });
        self.rejections.send_if_modified(|shown| {
            let changed = *shown != words;
            if changed {
                *shown = words;
            }
            changed
        });
    }

    /// If a connection breaks while a batch is published, one of its rows may be the cause.
    fn send_one_by_one(&mut self, share: RelayBatch, relayed: &RelayReport) {
        self.singly = match share {
            RelayBatch::Rows(rows) if rows > 1 && relayed.broke => self.limits.relay_rows,
            RelayBatch::OneByOne if relayed.broke => 0,
            _ => self
                .singly
                .saturating_sub(relayed.published + relayed.postponed),
        };
    }
}

/// Rows that cannot be published. Each outcome is logged once until the outbox recovers, not with every attempt.
struct SendFailure {
    role: &'static str,
    reported: Vec<PublishOutcome>,
}

impl SendFailure {
    fn stalled(&mut self, rows: usize, outcome: PublishOutcome) {
        if !self.reported.contains(&outcome) {
            let role = self.role;
            telemetry::outbox_stalled(role, rows, outcome);
            self.reported.push(outcome);
        }
    }

    fn over(&mut self) {
        if !std::mem::take(&mut self.reported).is_empty() {
            telemetry::outbox_recovered(self.role);
        }
    }
}
