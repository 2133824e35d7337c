//! Looks again for the marks of a subscription's queues while it consumes from them.
//!
//! Usually the broker ends the consumption when a queue is deleted, and the next connection finds the mark missing. But of a quorum queue that
//! is deleted and made again within a few milliseconds, RabbitMQ lets the consumer go on with the new one, without a word.

use std::convert::Infallible;

use tokio::time::sleep;

use super::jitter::jittered;
use crate::{
    connection::Connection,
    connection_status::StatusReporter,
    declare::{MarkerState, check_marker},
    names::QueueName,
    settings::BrokerSettings,
};

/// Looks for the marks of these queues, soon after consuming began and then from time to time, for as long as the connection lasts. A missing
/// one is reported and made again. Never ends. Cancel-safe.
pub(super) async fn watch_markers(
    connection: &Connection,
    mut marked: Vec<QueueName>,
    settings: &BrokerSettings,
    report: &StatusReporter,
) -> Infallible {
    let limit = settings.connect_timeout;
    let mut pause = (settings.heartbeat / 2).min(settings.rebind_interval);
    loop {
        sleep(pause).await;
        let mut still_marked = Vec::new();
        for queue in marked {
            let missing = || report.possible_loss(&queue);
            match check_marker(connection, &queue, limit, missing).await {
                // A user who has lost the right is not asked again and again.
                Ok(MarkerState::Forbidden(reason)) => report.marker_missing(&queue, &reason),
                // That the connection is lost is noticed elsewhere.
                Ok(MarkerState::Yes | MarkerState::Unknown) | Err(_) => still_marked.push(queue),
            }
        }
        marked = still_marked;
        pause = jittered(settings.rebind_interval);
    }
}
