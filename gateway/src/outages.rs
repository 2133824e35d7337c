//! Logs and counts outages of the broker and of the store, when they begin and when they end. Nothing else in this
//! program logs those of the broker.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, describe_counter};
use tokio::time::{MissedTickBehavior, interval};

use crate::{app::AppState, routes::troubles};

const OUTAGES: &str = "doorstep_backend_outages_total";

const EVERY: Duration = Duration::from_secs(1);
/// The number of failed checks in a row that make an outage: a new connection takes a moment.
const LOOKS: u32 = 3;

/// Registers the descriptions of the metrics.
pub(super) fn describe() {
    describe_counter!(
        OUTAGES,
        "Periods in which the gateway was degraded or unready, by reason"
    );
}

struct Outage {
    since: Instant,
    looks: u32,
}

/// Logs outages as they begin and end, forever.
pub(super) async fn log_outages(app: Arc<AppState>) {
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outages = BTreeMap::new();
    loop {
        timer.tick().await;
        observe(&mut outages, &troubles(&app), Instant::now());
    }
}

fn observe(outages: &mut BTreeMap<&'static str, Outage>, seen: &[&'static str], now: Instant) {
    outages.retain(|reason, outage| {
        let goes_on = seen.contains(reason);
        if !goes_on && outage.looks >= LOOKS {
            let lasted = now.saturating_duration_since(outage.since);
            tracing::warn!(reason, seconds = lasted.as_secs(), "an outage has ended");
        }
        goes_on
    });
    for reason in seen {
        let outage = outages.entry(*reason).or_insert(Outage {
            since: now,
            looks: 0,
        });
        outage.looks = outage.looks.saturating_add(1);
        if outage.looks == LOOKS {
            tracing::warn!(reason, "an outage has begun");
            counter!(OUTAGES, "reason" => *reason).increment(1);
        }
    }
}
