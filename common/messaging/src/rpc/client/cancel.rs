//! Telling those who answer that nobody waits for a reply any more. Best effort: what is not told is found out by the deadline.

use std::time::Duration;

use lapin::{BasicProperties, Channel, options::BasicPublishOptions, types::ShortString};
use tokio::{sync::mpsc, time::timeout};

use crate::{connection::Connection, settings::Namespace, short_string::short_string};

/// A request that nobody waits for.
pub(super) struct Cancel {
    pub(super) role: Box<str>,
    pub(super) correlation: String,
}

/// Tells of each, on a channel apart: the broker closes it where the role has no such exchange, or we may not write to it.
/// Cancel-safe but for the one that is being told.
pub(super) async fn publish_cancellation(
    connection: &Connection,
    namespace: &Namespace,
    cancelled: &mut mpsc::Receiver<Cancel>,
    limit: Duration,
) {
    let mut open: Option<Channel> = None;
    while let Some(cancel) = cancelled.recv().await {
        let channel = match open.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => match connection.channel(limit).await {
                Ok(channel) => channel,
                // The connection is of no more use, and so is this.
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
    // Nobody can cancel anything any more, and the connection goes on.
    std::future::pending::<()>().await;
}
