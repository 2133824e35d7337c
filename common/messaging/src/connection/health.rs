//! The health of a connection, observable by several tasks.

use futures_util::StreamExt;
use tokio::{sync::watch, task::AbortHandle};

use super::describe;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Open,
    /// The broker blocks publishing, for this reason.
    Blocked(String),
    /// The connection is lost, for this reason.
    Lost(String),
}

/// Waits for a change of the connection's health. Cancel-safe.
pub(crate) async fn changed(health: &mut watch::Receiver<Health>) -> Health {
    match health.changed().await {
        Ok(()) => health.borrow_and_update().clone(),
        Err(_) => Health::Lost("the connection is lost".to_owned()),
    }
}

/// Starts the connection's only listener. lapin's listeners compete for events instead of each receiving all.
pub(super) fn listen(connection: &lapin::Connection) -> (AbortHandle, watch::Receiver<Health>) {
    let mut events = Box::pin(connection.events_listener());
    let status = connection.status();
    // lapin keeps no events from before there was a listener, so the state is read afterwards.
    let now = if !status.connected() {
        Health::Lost("the broker closed the connection".to_owned())
    } else if status.blocked() {
        Health::Blocked("the broker is short of resources".to_owned())
    } else {
        Health::Open
    };
    let (sender, receiver) = watch::channel(now);
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let health = match event {
                lapin::Event::ConnectionBlocked(reason) => Health::Blocked(reason),
                lapin::Event::ConnectionUnblocked => Health::Open,
                // The broker closed one channel, for example because a queue does not exist. The channel's user gets the error there.
                lapin::Event::Error(error) if error.is_amqp_soft_error() => continue,
                lapin::Event::Error(error) => Health::Lost(describe(&error)),
                _ => continue,
            };
            // A lost connection stays lost.
            sender.send_if_modified(|old| {
                let change = !matches!(old, Health::Lost(_)) && *old != health;
                if change {
                    *old = health;
                }
                change
            });
        }
    });
    (task.abort_handle(), receiver)
}
