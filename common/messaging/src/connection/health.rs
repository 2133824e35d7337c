//! How a connection is, for everyone who wants to know.

use futures_util::StreamExt;
use tokio::{sync::watch, task::AbortHandle};

use super::describe;

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works.
    Open,
    /// The broker takes nothing from it for now, for this reason.
    Blocked(String),
    /// It is gone, for this reason.
    Lost(String),
}

/// Starts the one listener that a connection has: the client's listeners compete for events rather than each hearing all.
pub(super) fn listen(connection: &lapin::Connection) -> (AbortHandle, watch::Receiver<Health>) {
    let mut events = Box::pin(connection.events_listener());
    let status = connection.status();
    // Events from before there was a listener are not kept, so the state is looked at once it is there.
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
                // The end of a channel, such as the answer to asking for a queue that does not exist. Whoever uses the channel hears
                // of it there.
                lapin::Event::Error(error) if error.is_amqp_soft_error() => continue,
                lapin::Event::Error(error) => Health::Lost(describe(&error)),
                _ => continue,
            };
            // What is lost stays lost.
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
