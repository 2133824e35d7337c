//! Checks the markers of a subscription's queues while it consumes.
//!
//! Usually the broker cancels the consumer when a queue is deleted, and the next connection finds the marker missing. But if a quorum queue
//! is deleted and created again within milliseconds, RabbitMQ silently moves the consumer to the new queue.

use std::convert::Infallible;

use tokio::time::sleep;

use super::jitter::jittered;
use crate::{
    connection::supervisor::Context,
    topology::{
        declare::{MarkerState, check_marker},
        names::QueueName,
    },
};

/// Checks the markers of these queues soon after consuming began, and then periodically while the connection lasts. Reports a missing
/// marker and creates it again. Never ends. Cancel-safe.
pub(super) async fn watch_markers(context: &Context<'_>, mut marked: Vec<QueueName>) -> Infallible {
    let (settings, report) = (context.settings, context.report);
    let limit = settings.connect_timeout;
    let mut delay = (settings.heartbeat / 2).min(settings.rebind_interval);
    loop {
        sleep(delay).await;
        let mut still_marked = Vec::new();
        for queue in marked {
            let missing = || report.possible_loss(&queue);
            match check_marker(context.connection, &queue, limit, missing).await {
                // Without the permission, further checks are useless.
                Ok(MarkerState::Forbidden(reason)) => report.marker_missing(&queue, &reason),
                // Another task notices a lost connection.
                Ok(MarkerState::Marked | MarkerState::Unknown) | Err(_) => still_marked.push(queue),
            }
        }
        marked = still_marked;
        delay = jittered(settings.rebind_interval);
    }
}
