//! The part of a role's status that comes from its connections.

use doorstep_messaging::{ConnectError, ConnectErrorKind, ConnectionPhase, ConnectionStatus};
use tokio::sync::watch;

use super::{ReadinessReason, ReasonName, RoleConnections};

/// The status of a role's connections, and whether its store has seen events before.
pub(super) struct ConnectionMonitor {
    publishing: watch::Receiver<ConnectionStatus>,
    /// The connections of the queue and of the quarantine; `None` if the role has no queue.
    consuming: [Option<watch::Receiver<ConnectionStatus>>; 2],
    /// `None` if the role serves no requests from the broker.
    serving: Option<watch::Receiver<ConnectionStatus>>,
    /// The relay's report of the outbox rows that the broker rejects.
    rejections: watch::Receiver<Option<String>>,
    /// Set if the store had seen events before this start. Only then does a queue created at the start mean a loss.
    has_past: bool,
}

impl ConnectionMonitor {
    pub(super) fn new(
        links: &RoleConnections,
        rejections: watch::Receiver<Option<String>>,
        has_past: bool,
    ) -> Self {
        Self {
            publishing: links.publish.clone(),
            consuming: [links.consume.clone(), links.quarantine.clone()],
            serving: links.serve.clone(),
            rejections,
            has_past,
        }
    }

    /// Waits until the status of a connection changes. Cancel-safe.
    ///
    /// # Errors
    /// A connection's task has ended. It does so only on request or by a panic.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let [queue, quarantine] = &mut self.consuming;
        tokio::select! {
            changed = self.publishing.changed() => changed,
            changed = changed(queue) => changed,
            changed = changed(quarantine) => changed,
            changed = changed(&mut self.serving) => changed,
            () = rejected(&mut self.rejections) => Ok(()),
        }
    }

    /// Returns the present problems of the connections. They were logged where they were noticed.
    pub(super) fn issues(&mut self) -> Vec<ReadinessReason> {
        let publishing = self.publishing.borrow_and_update().clone();
        let mut issues = Vec::new();
        let mut add = |name, message| issues.push(ReadinessReason::new(name, message));
        if let Some(rejections) = self.rejections.borrow_and_update().clone() {
            add(ReasonName::OutboxRefused, rejections);
        }
        match &publishing.phase {
            ConnectionPhase::Blocked(reason) => add(
                ReasonName::BrokerBlocked,
                format!("the broker blocks publishing ({reason}): the outbox keeps its rows"),
            ),
            ConnectionPhase::Connecting => add(
                ReasonName::NoPublisherConnection,
                format!(
                    "no connection to publish ({}): the outbox keeps its rows",
                    reason(&publishing)
                ),
            ),
            ConnectionPhase::Connected
            | ConnectionPhase::Suspended { .. }
            | ConnectionPhase::Draining
            | ConnectionPhase::Closed => {}
        }
        for consuming in self.consuming.iter_mut().filter_map(latest) {
            match &consuming.phase {
                ConnectionPhase::Blocked(reason) => add(
                    ReasonName::BrokerBlocked,
                    format!(
                        "the broker blocks the consuming connection ({reason}): processed deliveries stay unacked"
                    ),
                ),
                ConnectionPhase::Connecting => {
                    add(
                        ReasonName::NoConsumerConnection,
                        format!("no connection to consume ({})", reason(&consuming)),
                    );
                }
                ConnectionPhase::Suspended { unacked_for } => add(
                    ReasonName::ConsumingSuspended,
                    format!(
                        "consuming is suspended, since deliveries could not be acknowledged for {unacked_for:.0?}: they are back in their queue, and are redelivered once the role can take them"
                    ),
                ),
                ConnectionPhase::Connected
                | ConnectionPhase::Draining
                | ConnectionPhase::Closed => {}
            }
            if let Some(reason) = &consuming.unrecorded {
                add(
                    ReasonName::OwnerNotRecorded,
                    format!(
                        "it is not recorded which store the queues belong to, so another store could take their events ({reason})"
                    ),
                );
            }
            for queue in &consuming.marker_missing {
                add(
                    ReasonName::MarkerMissing,
                    format!(
                        "the loss of queue {queue} would not be noticed, since the user may not mark it: `consumers topology permissions` shows what to grant"
                    ),
                );
            }
        }
        if let Some(serving) = latest(&mut self.serving) {
            match &serving.phase {
                ConnectionPhase::Blocked(reason) => add(
                    ReasonName::BrokerBlocked,
                    format!("the broker blocks replies ({reason}): requests wait"),
                ),
                ConnectionPhase::Connecting => {
                    add(
                        ReasonName::NoRpcServerConnection,
                        format!("no connection to serve requests ({})", reason(&serving)),
                    );
                }
                ConnectionPhase::Connected
                | ConnectionPhase::Suspended { .. }
                | ConnectionPhase::Draining
                | ConnectionPhase::Closed => {}
            }
        }
        issues
    }

    /// Returns the error with which the role must stop consuming, if another store owns its queues by now.
    pub(super) fn other_store(&self) -> Option<ConnectError> {
        let links = self.consuming.iter().chain([&self.serving]);
        let mut errors = links.flatten().filter_map(|link| {
            let error = link.borrow().last_error.clone();
            error.filter(|error| error.kind() == ConnectErrorKind::OtherStore)
        });
        errors.next()
    }

    /// Describes the losses that a recreated queue may have caused.
    pub(super) fn possible_losses(&self) -> Vec<ReadinessReason> {
        let states = self.consuming.iter().flatten();
        let losses = states.flat_map(|state| state.borrow().possible_loss.clone());
        losses
            .filter(|loss| loss.connection > 1 || self.has_past)
            .map(|loss| {
                let message = format!(
                    "queue {} was recreated: messages of the old one may be lost, publish them again from their source",
                    loss.queue
                );
                ReadinessReason::new(ReasonName::PossibleLoss, message)
            })
            .collect()
    }
}

/// Waits for a change of a connection's status, for ever if there is no connection.
async fn changed(
    link: &mut Option<watch::Receiver<ConnectionStatus>>,
) -> Result<(), watch::error::RecvError> {
    match link {
        Some(link) => link.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a change of the rejected rows, for ever if the relay has ended or not started.
async fn rejected(rejections: &mut watch::Receiver<Option<String>>) {
    if rejections.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn latest(link: &mut Option<watch::Receiver<ConnectionStatus>>) -> Option<ConnectionStatus> {
    Some(link.as_mut()?.borrow_and_update().clone())
}

fn reason(state: &ConnectionStatus) -> String {
    let reason = state.last_error.as_ref().map(ConnectError::to_string);
    reason.unwrap_or_else(|| "not made yet".to_owned())
}
