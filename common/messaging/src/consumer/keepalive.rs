//! Verifies that an idle connection still works.
//!
//! Heartbeats show that bytes flow, not that they are understood. After a broken frame, or if lapin's thread hangs, a subscription would
//! wait forever on a connection that looks healthy from both ends. So on an idle connection the broker is sent a request.

use std::time::Duration;

use lapin::{Channel, options::BasicQosOptions};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{connection::describe, counters::Count, settings::BrokerSettings};

/// Sends a request every heartbeat interval without a delivery. Ends with the reason if neither a response nor a delivery arrives within
/// the confirm timeout. A slow connection is no reason: while deliveries arrive, the response may be queued behind them. But a single
/// message must not take longer than that. Cancel-safe.
pub(crate) async fn keepalive(
    channel: &Channel,
    settings: &BrokerSettings,
    deliveries: &Count,
) -> String {
    let limit = settings.confirm_timeout;
    let mut turn = interval(settings.heartbeat.max(Duration::from_secs(1)));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut delivered = deliveries.get();
    loop {
        turn.tick().await;
        if delivered_since(&mut delivered, deliveries) {
            continue;
        }
        // Changes nothing, and needs neither a permission nor a quorum.
        let request = channel.basic_qos(1, BasicQosOptions::default());
        let mut request = std::pin::pin!(request);
        loop {
            match timeout(limit, &mut request).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return describe(&error),
                Err(_) if delivered_since(&mut delivered, deliveries) => {}
                Err(_) => return format!("no response and no delivery for {limit:?}"),
            }
        }
    }
}

fn delivered_since(delivered: &mut u64, deliveries: &Count) -> bool {
    let now = deliveries.get();
    now != std::mem::replace(delivered, now)
}
