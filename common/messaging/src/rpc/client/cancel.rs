//! Publishes cancellations of requests whose callers no longer wait. Best effort: servers notice the deadline of all others.

use std::{convert::Infallible, time::Duration};

use lapin::{BasicProperties, Channel, options::BasicPublishOptions, types::ShortString};
use tokio::{sync::mpsc, time::timeout};

use crate::{amqp::short_string, connection::Connection, settings::Namespace};

pub(super) struct Cancel {
    pub(super) role: Box<str>,
    pub(super) correlation: String,
}

/// Publishes each cancellation on a separate channel, since the broker closes the channel if the exchange is missing or the user may not
/// write to it. Cancel-safe, except for the cancellation in progress.
pub(super) async fn publish_cancellations(
    connection: &Connection,
    namespace: &Namespace,
    cancelled: &mut mpsc::Receiver<Cancel>,
    limit: Duration,
) -> Infallible {
    let mut open: Option<Channel> = None;
    while let Some(cancel) = cancelled.recv().await {
        let channel = match open.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => match connection.channel(limit).await {
                Ok(channel) => channel,
                // The connection is unusable, so skip it.
                Err(_) => continue,
            },
        };
        let properties =
            BasicProperties::default().with_correlation_id(short_string(&cancel.correlation));
        let exchange = short_string(&namespace.cancel_exchange(&cancel.role));
        let options = BasicPublishOptions::default();
        let publish =
            channel.basic_publish(exchange, ShortString::default(), options, &[], properties);
        if let Ok(Ok(_)) = timeout(limit, publish).await {
            open = Some(channel);
        }
    }
    // All senders are dropped, but the connection stays in use.
    std::future::pending().await
}
