//! The part of a role's status that its connections decide.

use doorstep_messaging::{ConnectError, ConnectErrorKind, ConnectionPhase, ConnectionStatus};
use tokio::sync::watch;

/// The states of a role's connections, and whether its store has a past.
pub(super) struct ConnectionMonitor {
    publishing: watch::Receiver<ConnectionStatus>,
    /// Those of the queue and of the quarantine; `None` where the role has no queue.
    consuming: [Option<watch::Receiver<ConnectionStatus>>; 2],
    /// `None` where it answers no requests that come by the broker.
    answering: Option<watch::Receiver<ConnectionStatus>>,
    /// The rows of the outbox that the broker refuses; `None` until the relay runs.
    refusals: Option<watch::Receiver<Option<String>>>,
    /// Whether the store has seen events before this start: only then is a queue that is new at the start a loss rather than a beginning.
    has_past: bool,
}

impl ConnectionMonitor {
    pub(super) fn new(
        publishing: watch::Receiver<ConnectionStatus>,
        consuming: [Option<watch::Receiver<ConnectionStatus>>; 2],
        answering: Option<watch::Receiver<ConnectionStatus>>,
        has_past: bool,
    ) -> Self {
        Self {
            publishing,
            consuming,
            answering,
            refusals: None,
            has_past,
        }
    }

    /// Adds what the relay says of refused rows.
    pub(super) fn with_refusals(mut self, refusals: watch::Receiver<Option<String>>) -> Self {
        self.refusals = Some(refusals);
        self
    }

    /// Waits until a connection's state is another than when it was last looked at. Cancel-safe.
    ///
    /// # Errors
    /// The task that looks after one of them has ended, which it does only when it is asked to, or panics.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        let [queue, quarantine] = &mut self.consuming;
        tokio::select! {
            changed = self.publishing.changed() => changed,
            changed = changed(queue) => changed,
            changed = changed(quarantine) => changed,
            changed = changed(&mut self.answering) => changed,
            () = refused(&mut self.refusals) => Ok(()),
        }
    }

    /// What is wrong with them now. It was logged where it was noticed.
    pub(super) fn issues(&mut self) -> Vec<String> {
        let publishing = self.publishing.borrow_and_update().clone();
        let mut troubles = Vec::new();
        if let Some(refusals) = &mut self.refusals {
            troubles.extend(refusals.borrow_and_update().clone());
        }
        match &publishing.phase {
            ConnectionPhase::Blocked(reason) => troubles.push(format!(
                "the broker takes no messages for now ({reason}): the outbox keeps what is owed"
            )),
            ConnectionPhase::Connecting => troubles.push(format!(
                "no connection to publish ({}): the outbox keeps what is owed",
                reason(&publishing)
            )),
            ConnectionPhase::Connected
            | ConnectionPhase::Suspended { .. }
            | ConnectionPhase::Draining
            | ConnectionPhase::Closed => {}
        }
        for consuming in self.consuming.iter_mut().filter_map(look) {
            match &consuming.phase {
                ConnectionPhase::Blocked(reason) => troubles.push(format!(
                    "the broker takes nothing from the consumers for now ({reason}): what is worked is not settled"
                )),
                ConnectionPhase::Connecting => {
                    troubles.push(format!("no connection to consume ({})", reason(&consuming)));
                }
                ConnectionPhase::Suspended { unacked_for } => troubles.push(format!(
                    "consuming is suspended, since deliveries could not be acknowledged for {unacked_for:.0?}: they are back in their queue, and come again once the role can take them"
                )),
                ConnectionPhase::Connected | ConnectionPhase::Draining | ConnectionPhase::Closed => {}
            }
            troubles.extend(consuming.unrecorded.iter().map(|reason| {
                format!(
                    "it is not recorded which store the queues belong to, so another store could take their events ({reason})"
                )
            }));
            troubles.extend(consuming.marker_missing.iter().map(|queue| {
                format!(
                    "the loss of queue {queue} would not be noticed, since the user may not mark it: `consumers topology permissions` shows what to grant"
                )
            }));
        }
        if let Some(answering) = look(&mut self.answering) {
            match &answering.phase {
                ConnectionPhase::Blocked(reason) => troubles.push(format!(
                    "the broker takes no replies for now ({reason}): requests wait"
                )),
                ConnectionPhase::Connecting => {
                    troubles.push(format!("no connection to answer ({})", reason(&answering)));
                }
                ConnectionPhase::Connected
                | ConnectionPhase::Suspended { .. }
                | ConnectionPhase::Draining
                | ConnectionPhase::Closed => {}
            }
        }
        troubles
    }

    /// Why the role may consume no more, if another store owns its queues by now.
    pub(super) fn other_store(&self) -> Option<ConnectError> {
        let links = self.consuming.iter().chain([&self.answering]);
        let mut errors = links.flatten().filter_map(|link| {
            let error = link.borrow().last_error.clone();
            error.filter(|error| error.kind() == ConnectErrorKind::OtherStore)
        });
        errors.next()
    }

    /// What may have been lost with a queue that was created again.
    pub(super) fn possible_losses(&self) -> Vec<String> {
        let states = self.consuming.iter().flatten();
        let losses = states.flat_map(|state| state.borrow().possible_loss.clone());
        losses
            .filter(|loss| loss.connection > 1 || self.has_past)
            .map(|loss| {
                format!(
                    "queue {} was created again: what waited in the old one may be lost, publish it again from its source",
                    loss.queue
                )
            })
            .collect()
    }
}

/// Waits for a change of a connection, for ever where there is none.
async fn changed(
    link: &mut Option<watch::Receiver<ConnectionStatus>>,
) -> Result<(), watch::error::RecvError> {
    match link {
        Some(link) => link.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a change of what is refused, for ever where the relay has ended or has not begun.
async fn refused(refusals: &mut Option<watch::Receiver<Option<String>>>) {
    if let Some(refusals) = refusals
        && refusals.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn look(link: &mut Option<watch::Receiver<ConnectionStatus>>) -> Option<ConnectionStatus> {
    Some(link.as_mut()?.borrow_and_update().clone())
}

fn reason(state: &ConnectionStatus) -> String {
    let reason = state.last_error.as_ref().map(ConnectError::to_string);
    reason.unwrap_or_else(|| "not made yet".to_owned())
}
