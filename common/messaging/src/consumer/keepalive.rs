//! Makes sure that a connection on which nothing comes still could bring something.
//!
//! Heartbeats show that bytes flow, not that anybody understands them: with a broken frame, or a client whose thread has come to a halt,
//! a subscription would wait for good on a connection that looks well from either end. So when nothing has come for a while, the broker
//! is asked something.

use std::time::Duration;

use lapin::{Channel, options::BasicQosOptions};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{connection::describe, counts::ConsumerCounters, settings::BrokerSettings};

/// Asks every heartbeat without a delivery, and ends with the reason when no answer has come within the time of a confirm, nor any
/// delivery. A slow link is no reason: while deliveries come, the answer may be behind them; but a single message must not take longer
/// than that on its way. Cancel-safe.
pub(crate) async fn keepalive(
    channel: &Channel,
    settings: &BrokerSettings,
    counts: &ConsumerCounters,
) -> String {
    let limit = settings.confirm_timeout;
    let mut turn = interval(settings.heartbeat.max(Duration::from_secs(1)));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut delivered = counts.delivered.get();
    loop {
        turn.tick().await;
        if delivered_since(&mut delivered, counts) {
            continue;
        }
        // Says nothing new, needs no permission, and no majority of a cluster.
        let question = channel.basic_qos(1, BasicQosOptions::default());
        let mut question = std::pin::pin!(question);
        loop {
            match timeout(limit, &mut question).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return describe(&error),
                Err(_) if delivered_since(&mut delivered, counts) => {}
                Err(_) => return format!("no answer and no delivery for {limit:?}"),
            }
        }
    }
}

fn delivered_since(delivered: &mut u64, counts: &ConsumerCounters) -> bool {
    let now = counts.delivered.get();
    now != std::mem::replace(delivered, now)
}
