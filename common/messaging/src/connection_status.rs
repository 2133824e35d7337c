//! What can be seen from outside of a publisher or subscription: how its connection is, and what had to be created.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::{
    error::{ConnectError, ConnectErrorKind},
    names::QueueName,
    outage::OutageReasons,
    owner::Claimed,
};

/// How the connection of a publisher or subscription is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionPhase {
    /// Not there yet, or lost and on its way back.
    Connecting,
    /// There, with everything declared.
    Connected,
    /// There, but the broker takes nothing for now, for this reason: usually a memory or disk alarm.
    Blocked(String),
    /// Not there on purpose: deliveries were not acknowledged for so long that the broker would have ended the channel. It comes back
    /// as soon as deliveries are taken again.
    Suspended {
        /// For how long they were not.
        unacked_for: Duration,
    },
    /// Finishing what was begun, taking nothing new.
    Draining,
    /// Ended.
    Closed,
}

/// A queue that is not the one that its role has consumed from before, whoever has made it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleLoss {
    /// The queue.
    pub queue: QueueName,
    /// By which connection it was found so. By the first one it is a loss only for a role that already has a past: every queue is new
    /// once.
    pub connection: u64,
}

/// The state of a publisher or subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// How its connection is.
    pub phase: ConnectionPhase,
    /// Why there is no connection; `None` while there is one, and before the first attempt has ended.
    pub last_error: Option<ConnectError>,
    /// Why the last connection that there was is lost, also when another has taken its place.
    pub last_loss: Option<ConnectError>,
    /// The broker's words when it last closed the channel over a single message.
    pub last_refusal: Option<String>,
    /// Queues of roles that were not there and had to be created here since the start. Whoever declares first creates them, which may
    /// as well be the role's publisher as its subscription, or another process: whether anything can be lost by it is told by
    /// `possible_loss`.
    pub created: Vec<QueueName>,
    /// Of a subscription, the queues that were found not to be those consumed from before: what waited in the old ones is gone. Each
    /// once, with the latest time that it was found so.
    pub possible_loss: Vec<PossibleLoss>,
    /// Of a subscription, whether somebody else had messages of its queues, or was being given them, when its present connection began
    /// to consume. Of queues with a single active consumer, whoever is not the first knows nothing of what the first has taken.
    pub shares_queue: bool,
    /// Of a subscription, the queues that its user may not mark: were they lost, it would not be noticed.
    pub marker_missing: Vec<QueueName>,
    /// Why it is not recorded at the broker that the queues belong to the role's store; `None` while it is, or where nothing is claimed.
    pub unrecorded: Option<String>,
    /// How often a connection was made: 1 is the first.
    pub connections: u64,
}

impl ConnectionStatus {
    pub(crate) fn new() -> Self {
        Self {
            phase: ConnectionPhase::Connecting,
            last_error: None,
            last_loss: None,
            last_refusal: None,
            created: Vec::new(),
            possible_loss: Vec::new(),
            shares_queue: false,
            marker_missing: Vec::new(),
            unrecorded: None,
            connections: 0,
        }
    }

    /// Whether messages can flow now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == ConnectionPhase::Connected
    }
}

/// The writing end, with the one log line for each change that is worth one.
pub(crate) struct StatusReporter {
    name: String,
    state: watch::Sender<ConnectionStatus>,
    /// Why there is no connection.
    losses: Mutex<OutageReasons>,
    /// Why the broker takes no message.
    refusals: Mutex<OutageReasons>,
}

impl StatusReporter {
    pub(crate) fn new(name: &str) -> (Self, watch::Receiver<ConnectionStatus>) {
        let (state, receiver) = watch::channel(ConnectionStatus::new());
        let report = Self {
            name: name.to_owned(),
            state,
            losses: Mutex::default(),
            refusals: Mutex::default(),
        };
        (report, receiver)
    }

    pub(crate) fn connected(&self, created: Vec<QueueName>) {
        let connections = self.state.borrow().connections + 1;
        if connections > 1 {
            tracing::info!(connection = %self.name, "connection is back");
        }
        for reasons in [&self.losses, &self.refusals] {
            let mut reasons = reasons.lock().unwrap_or_else(PoisonError::into_inner);
            reasons.clear();
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

    /// A queue is not the one that was consumed from before. Told before the connection counts as made; of one that counts already, as by
    /// the next: a queue that was made again under its consumer is a loss also for a role without a past.
    pub(crate) fn possible_loss(&self, queue: &QueueName) {
        let connection = self.state.borrow().connections + 1;
        // Only who knows of a past can say whether that is worth a warning.
        tracing::debug!(connection = %self.name, %queue, "the queue is not one that was consumed from before");
        let loss = PossibleLoss {
            queue: queue.clone(),
            connection,
        };
        self.state.send_modify(|state| {
            state.possible_loss.retain(|old| old.queue != loss.queue);
            state.possible_loss.push(loss);
        });
    }

    /// Whether somebody else works the queues, too. Told before the connection counts as made.
    pub(crate) fn shares_queue(&self, others: bool) {
        self.state.send_if_modified(|state| {
            let changed = state.shares_queue != others;
            state.shares_queue = others;
            changed
        });
    }

    /// A queue cannot be marked for want of a right. Told once, until it can be.
    pub(crate) fn marker_missing(&self, queue: &QueueName, reason: &str) {
        if self.state.borrow().marker_missing.contains(queue) {
            return;
        }
        tracing::warn!(
            connection = %self.name,
            %queue,
            reason,
            "the loss of this queue would not be noticed, since the user may not mark it: grant configure and read on {} and write on the queue, `consumers topology permissions` shows how",
            queue.mark()
        );
        self.state
            .send_modify(|state| state.marker_missing.push(queue.clone()));
    }

    /// A queue is marked.
    pub(crate) fn marker_found(&self, queue: &QueueName) {
        self.state.send_if_modified(|state| {
            let before = state.marker_missing.len();
            state.marker_missing.retain(|unmarked| unmarked != queue);
            state.marker_missing.len() < before
        });
    }

    /// Returns whether the owner of the queues is recorded. That it is not is told once, until it is.
    pub(crate) fn claimed(&self, claimed: Claimed) {
        let unrecorded = match claimed {
            Claimed::Recorded => None,
            Claimed::Forbidden(reason) | Claimed::Silent(reason) => Some(reason),
        };
        if let Some(reason) = &unrecorded
            && self.state.borrow().unrecorded.is_none()
        {
            tracing::warn!(
                connection = %self.name,
                reason,
                "it is not recorded which store these queues belong to, so another store could take their events"
            );
        }
        self.state.send_if_modified(|state| {
            let changed = state.unrecorded != unrecorded;
            state.unrecorded = unrecorded;
            changed
        });
    }

    /// Each kind of reason is told once per outage; further failed attempts only change the state.
    pub(crate) fn lost(&self, error: ConnectError) {
        if is_new(&self.losses, &error.to_string()) {
            tracing::warn!(connection = %self.name, reason = %error, "no connection");
        } else {
            tracing::debug!(connection = %self.name, reason = %error, "still no connection");
        }
        self.state.send_modify(|state| {
            if state.phase != ConnectionPhase::Connecting {
                state.last_loss = Some(error.clone());
            }
            state.phase = ConnectionPhase::Connecting;
            state.last_error = Some(error);
        });
    }

    /// The broker has closed the channel over a single message. Each kind of reason is logged once for each connection.
    pub(crate) fn unpublishable(&self, reason: &str) {
        if is_new(&self.refusals, reason) {
            tracing::warn!(connection = %self.name, reason, "the broker refuses a message");
        }
        self.state.send_if_modified(|state| {
            let is_known = state.last_refusal.as_deref() == Some(reason);
            if !is_known {
                state.last_refusal = Some(reason.to_owned());
            }
            !is_known
        });
    }

    pub(crate) fn blocked(&self, reason: String) {
        tracing::warn!(connection = %self.name, reason, "blocked by the broker");
        self.turn(ConnectionPhase::Blocked(reason));
    }

    pub(crate) fn unblocked(&self) {
        tracing::info!(connection = %self.name, "no longer blocked by the broker");
        self.turn(ConnectionPhase::Connected);
    }

    /// Another phase of a connection that is there. One that is being closed stays so, whatever the broker says meanwhile.
    fn turn(&self, phase: ConnectionPhase) {
        self.state.send_if_modified(|state| {
            let is_over = matches!(
                state.phase,
                ConnectionPhase::Draining | ConnectionPhase::Closed
            );
            if !is_over {
                state.phase = phase;
            }
            !is_over
        });
    }

    /// The connection is closed on purpose, until deliveries are taken again.
    pub(crate) fn suspended(&self, unacked_for: Duration) {
        tracing::warn!(
            connection = %self.name,
            ?unacked_for,
            "consuming is suspended: what was not acknowledged is back in its queue, and comes again once deliveries are taken"
        );
        self.turn(ConnectionPhase::Suspended { unacked_for });
    }

    pub(crate) fn draining(&self) {
        self.state
            .send_modify(|state| state.phase = ConnectionPhase::Draining);
    }

    pub(crate) fn closed(&self) {
        self.state
            .send_modify(|state| state.phase = ConnectionPhase::Closed);
    }
}

fn is_new(reasons: &Mutex<OutageReasons>, reason: &str) -> bool {
    let mut reasons = reasons.lock().unwrap_or_else(PoisonError::into_inner);
    reasons.is_new(reason)
}

/// Waits for the first connection.
pub(crate) async fn ready(
    mut state: watch::Receiver<ConnectionStatus>,
    limit: Duration,
) -> Result<(), ConnectError> {
    let settled = state.wait_for(|state| {
        state.connections > 0
            || state.phase == ConnectionPhase::Closed
            || state
                .last_error
                .as_ref()
                .is_some_and(ConnectError::is_permanent)
    });
    // Only the copy of what was seen leaves the match: the guard would block the writer.
    let seen = match timeout(limit, settled).await {
        Ok(Ok(seen)) => Some(seen.clone()),
        Ok(Err(_)) | Err(_) => None,
    };
    let seen = seen.unwrap_or_else(|| state.borrow().clone());
    match seen.last_error {
        _ if seen.connections > 0 => Ok(()),
        Some(error) => Err(error),
        None => Err(ConnectError::new(
            ConnectErrorKind::Unreachable,
            format!("no connection to the broker within {limit:?}"),
        )),
    }
}

/// Waits for the end, at most so long.
pub(crate) async fn closed(mut state: watch::Receiver<ConnectionStatus>, limit: Duration) {
    let _ = timeout(
        limit,
        state.wait_for(|state| state.phase == ConnectionPhase::Closed),
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_being_closed_stays_so_whatever_the_broker_says() {
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
        report.closed();
        report.unblocked();
        assert_eq!(state.borrow().phase, ConnectionPhase::Closed);
    }

    #[test]
    fn a_queue_that_cannot_be_marked_is_named_once_until_it_can_be() {
        let (report, state) = StatusReporter::new("test");
        let queue = QueueName::new("shop.orders.0");
        report.marker_missing(&queue, "no right");
        report.marker_missing(&queue, "no right");
        assert_eq!(state.borrow().marker_missing, std::slice::from_ref(&queue));
        report.marker_found(&queue);
        assert_eq!(state.borrow().marker_missing, []);
    }
}
