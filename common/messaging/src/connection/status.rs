//! The observable status of a supervised connection, and the queues it had to create.

use std::time::Duration;

use tokio::sync::watch;

use crate::{
    connection::{error::ConnectError, outage::OutageReasons},
    locked::Locked,
    topology::{names::QueueName, queue_owner::Claimed},
};

/// The phase of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConnectionPhase {
    /// The first attempt, or reconnecting after a loss.
    #[default]
    Connecting,
    /// Connected, with the whole topology declared.
    Connected,
    /// Connected, but the broker blocks publishing for this reason, usually a memory or disk alarm.
    Blocked(String),
    /// Closed on purpose: deliveries went unacked for so long that the broker would soon have closed the channel. Reconnects when the
    /// program takes deliveries again.
    Suspended {
        /// Age of the oldest unacked delivery.
        unacked_for: Duration,
    },
    /// Finishing work in progress, accepting nothing new.
    Draining,
    Closed,
}

/// A queue other than the one the role consumed from before: it was deleted and created again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleLoss {
    pub queue: QueueName,
    /// Number of the connection that found it. On the first connection it is a loss only for a role with a past, since every queue is new
    /// once.
    pub connection: u64,
}

/// The state of a publisher or subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionStatus {
    pub phase: ConnectionPhase,
    /// Reason for having no connection. `None` while connected, and until the first attempt has ended.
    pub last_error: Option<ConnectError>,
    /// Reason for the loss of the latest connection. Kept after a reconnect.
    pub last_loss: Option<ConnectError>,
    /// The broker's text when it last closed the channel because of one message.
    pub last_rejection: Option<String>,
    /// Role queues that this process has created since its start. Whichever process declares a queue first creates it: the role's
    /// publisher, its subscription, or another process. `possible_loss` says whether messages may be lost.
    pub created: Vec<QueueName>,
    /// Queues of a subscription that replaced the ones it consumed from before: messages waiting in the old queues are gone. One entry per
    /// queue, with the latest connection that found it.
    pub possible_loss: Vec<PossibleLoss>,
    /// True if another consumer was using the subscription's queues, or had unacked messages, when its connection began to consume. With a
    /// single active consumer, a waiting consumer does not know what the active one has taken.
    pub shares_queue: bool,
    /// Queues of a subscription that its user may not mark. Their loss would go unnoticed.
    pub marker_missing: Vec<QueueName>,
    /// Reason why the broker has no record of the store that owns the queues. `None` if it is recorded, or nothing was claimed.
    pub unrecorded: Option<String>,
    /// Connections made so far: 1 is the first.
    pub connections: u64,
}

impl ConnectionStatus {
    /// Returns whether messages can flow now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == ConnectionPhase::Connected
    }
}

/// Writes the status, and logs each significant change once.
pub(crate) struct StatusReporter {
    name: String,
    state: watch::Sender<ConnectionStatus>,
    /// Reasons for having no connection.
    losses: Locked<OutageReasons>,
    /// Reasons of messages that the broker rejected.
    rejections: Locked<OutageReasons>,
}

impl StatusReporter {
    pub(crate) fn new(name: &str) -> (Self, watch::Receiver<ConnectionStatus>) {
        let (state, receiver) = watch::channel(ConnectionStatus::default());
        let report = Self {
            name: name.to_owned(),
            state,
            losses: Locked::default(),
            rejections: Locked::default(),
        };
        (report, receiver)
    }

    pub(crate) fn connected(&self, created: Vec<QueueName>) {
        let connections = self.state.borrow().connections + 1;
        if connections > 1 {
            tracing::info!(connection = %self.name, "reconnected");
        }
        for reasons in [&self.losses, &self.rejections] {
            reasons.lock().clear();
        }
        self.state.send_modify(|state| {
            state.phase = ConnectionPhase::Connected;
            state.last_error = None;
            state.connections = connections;
            for queue in created {
                if !state.created.contains(&queue) {
                    state.created.push(queue);
                }
            }
        });
    }

    /// Records that a queue is not the one consumed from before. Called before the connection counts as made. For a connection that already
    /// counts, the loss belongs to the next one: a queue that was replaced under its consumer is a loss even for a role without a past.
    pub(crate) fn possible_loss(&self, queue: &QueueName) {
        let connection = self.state.borrow().connections + 1;
        // Only the caller knows whether the role has a past, and so whether this deserves a warning.
        tracing::debug!(connection = %self.name, %queue, "queue differs from the one consumed from before");
        let loss = PossibleLoss {
            queue: queue.clone(),
            connection,
        };
        self.state.send_modify(|state| {
            state.possible_loss.retain(|old| old.queue != loss.queue);
            state.possible_loss.push(loss);
        });
    }

    /// Records whether other consumers use the queues. Called before the connection counts as made.
    pub(crate) fn shares_queue(&self, others: bool) {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.shares_queue, others) != others);
    }

    /// Records that the user may not mark a queue. Logged once until it may.
    pub(crate) fn marker_missing(&self, queue: &QueueName, reason: &str) {
        if self.state.borrow().marker_missing.contains(queue) {
            return;
        }
        tracing::warn!(
            connection = %self.name,
            %queue,
            reason,
            "the user may not mark this queue, so its loss would not be noticed: grant configure and read on {} and write on the queue, see `consumers topology permissions`",
            queue.marker()
        );
        self.state
            .send_modify(|state| state.marker_missing.push(queue.clone()));
    }

    /// Records that a queue is marked.
    pub(crate) fn marker_found(&self, queue: &QueueName) {
        self.state.send_if_modified(|state| {
            let before = state.marker_missing.len();
            state.marker_missing.retain(|unmarked| unmarked != queue);
            state.marker_missing.len() < before
        });
    }

    /// Records the result of an owner claim. Logs a missing record once until it is made.
    pub(crate) fn claimed(&self, claimed: Claimed) {
        let mut unrecorded = match claimed {
            Claimed::Recorded => None,
            Claimed::Forbidden(reason) | Claimed::Silent(reason) => Some(reason),
        };
        if let Some(reason) = &unrecorded
            && self.state.borrow().unrecorded.is_none()
        {
            tracing::warn!(
                connection = %self.name,
                reason,
                "the broker has no record of the store that owns these queues, so another store could take their events"
            );
        }
        self.state.send_if_modified(|state| {
            std::mem::swap(&mut state.unrecorded, &mut unrecorded);
            state.unrecorded != unrecorded
        });
    }

    /// Records a lost connection or a failed attempt. Each kind of reason is logged once per outage; repeated failures only change the
    /// status.
    pub(crate) fn lost(&self, error: ConnectError) {
        if self.losses.lock().is_new(&error.to_string()) {
            tracing::warn!(connection = %self.name, error = %error, "no connection");
        } else {
            tracing::debug!(connection = %self.name, error = %error, "still no connection");
        }
        self.state.send_modify(|state| {
            if state.phase != ConnectionPhase::Connecting {
                state.last_loss = Some(error.clone());
            }
            state.phase = ConnectionPhase::Connecting;
            state.last_error = Some(error);
        });
    }

    /// Records that the broker closed the channel because of one message. Each kind of reason is logged once per connection.
    pub(crate) fn unpublishable(&self, reason: &str) {
        if self.rejections.lock().is_new(reason) {
            tracing::warn!(connection = %self.name, reason, "broker rejects a message");
        }
        self.state.send_if_modified(|state| {
            let former = state.last_rejection.replace(reason.to_owned());
            former.as_deref() != Some(reason)
        });
    }

    pub(crate) fn blocked(&self, reason: String) {
        tracing::warn!(connection = %self.name, reason, "blocked by the broker");
        self.set_phase(ConnectionPhase::Blocked(reason));
    }

    pub(crate) fn unblocked(&self) {
        tracing::info!(connection = %self.name, "no longer blocked by the broker");
        self.set_phase(ConnectionPhase::Connected);
    }

    /// Changes the phase of an open connection. A connection that is closing stays so, even if the broker blocks or unblocks it meanwhile.
    fn set_phase(&self, phase: ConnectionPhase) {
        self.state.send_if_modified(|state| {
            let is_over = state.phase == ConnectionPhase::Draining;
            if !is_over {
                state.phase = phase;
            }
            !is_over
        });
    }

    /// Records that the connection was closed on purpose, until deliveries are taken again.
    pub(crate) fn suspended(&self, unacked_for: Duration) {
        tracing::warn!(
            connection = %self.name,
            ?unacked_for,
            "consuming suspended: unacked messages return to their queue, and are redelivered once deliveries are taken again"
        );
        self.set_phase(ConnectionPhase::Suspended { unacked_for });
    }

    pub(crate) fn draining(&self) {
        self.set_phase(ConnectionPhase::Draining);
    }
}

impl Drop for StatusReporter {
    fn drop(&mut self) {
        self.state
            .send_modify(|state| state.phase = ConnectionPhase::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing::{Event, Level, Metadata, Subscriber, span, subscriber::with_default};

    use super::*;

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            if *event.metadata().level() == Level::WARN {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn each_outage_reason_is_logged_once() {
        let warnings = Warnings::default();
        with_default(warnings.clone(), || {
            let (report, _state) = StatusReporter::new("test");
            let lost = |reason: &str| {
                let error = ConnectError::unreachable(reason.to_owned());
                report.lost(error);
                warnings.0.load(Ordering::Relaxed)
            };
            assert_eq!([lost("no answer"), lost("no answer")], [1, 1]);
            // A changed reason is logged, and alternating reasons are not logged again.
            assert_eq!([lost("bad password"), lost("no answer")], [2, 2]);
            report.connected(Vec::new());
            assert_eq!(lost("no answer"), 3);
        });
    }

    #[test]
    fn a_closing_connection_ignores_broker_blocks() {
        let (report, state) = StatusReporter::new("test");
        report.connected(Vec::new());
        report.blocked("memory".to_owned());
        assert_eq!(
            state.borrow().phase,
            ConnectionPhase::Blocked("memory".to_owned())
        );
        report.unblocked();
        assert_eq!(state.borrow().phase, ConnectionPhase::Connected);
        report.draining();
        report.blocked("memory".to_owned());
        assert_eq!(state.borrow().phase, ConnectionPhase::Draining);
        report.unblocked();
        assert_eq!(state.borrow().phase, ConnectionPhase::Draining);
        drop(report);
        assert_eq!(state.borrow().phase, ConnectionPhase::Closed);
    }

    #[test]
    fn an_unmarked_queue_is_listed_once_until_marked() {
        let (report, state) = StatusReporter::new("test");
        let queue = QueueName::new("shop.orders.0");
        report.marker_missing(&queue, "no right");
        report.marker_missing(&queue, "no right");
        assert_eq!(state.borrow().marker_missing, std::slice::from_ref(&queue));
        report.marker_found(&queue);
        assert_eq!(state.borrow().marker_missing, []);
    }
}
