//! Polls the broker and the stores: for the number of consumers, and for the ages of waiting rows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_event::Timestamp;
use doorstep_messaging::{BrokerSettings, InspectError, Inspector, QueueName};
use doorstep_store::{Store, Summary};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{MonitoredRole, ProcessHealth};

/// The interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The time limit for reading a store.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// The results of the last poll of a role.
#[derive(Debug, Clone)]
pub(super) struct Polled {
    /// The broker's count.
    pub(super) consumers: ConsumerCount,
    /// Requests in the role's queue that no server has taken. If the broker is unreachable, the last known number.
    pub(super) waiting: Option<u64>,
    /// The contents of the store, as of the last time that it could be read.
    pub(super) summary: Option<Summary>,
    pub(super) ages: Ages,
}

/// The times since which this process has known the waiting rows of a store. A clock that is set back makes no row
/// younger than that.
#[derive(Debug, Clone, Default)]
pub(super) struct Ages {
    outbox: Known,
    deferred: Known,
    ahead: Known,
    dead: Known,
}

/// Rows of one date, and the time since which they have been known.
#[derive(Debug, Clone, Default)]
struct Known(Option<(Timestamp, Instant)>);

impl Known {
    /// Returns for how many milliseconds rows of this date have been known.
    fn age_ms(&mut self, date: Option<Timestamp>, now: Instant) -> Option<u64> {
        self.0 = date.map(|date| match self.0 {
            Some((known, since)) if known == date => (date, since),
            _ => (date, now),
        });
        let (_, since) = self.0?;
        let known = now.saturating_duration_since(since);
        Some(u64::try_from(known.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Ages {
    /// Raises the ages to the times known here.
    fn correct(&mut self, summary: &mut Summary, now: Instant) {
        let outbox = self.outbox.age_ms(summary.oldest_outbox, now);
        summary.oldest_outbox_ms = summary.oldest_outbox_ms.max(outbox);
        let deferred = self.deferred.age_ms(summary.oldest_deferred, now);
        // The oldest by date need not be the oldest if some rows are dated ahead.
        let ahead = (summary.dated_ahead > 0).then_some(Timestamp::MIN);
        let ahead = self.ahead.age_ms(ahead, now).filter(|_| deferred.is_some());
        summary.oldest_held_ms = summary.oldest_held_ms.max(deferred).max(ahead);
        let dead = self.dead.age_ms(summary.oldest_dead, now);
        summary.oldest_dead_ms = summary.oldest_dead_ms.max(dead);
    }
}

/// The broker's count of a role's consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConsumerCount {
    /// The counts of the role's queue and of its quarantine.
    Known {
        /// Consumers of the role's queue.
        queue: u64,
        /// Consumers of its quarantine.
        quarantine: u64,
    },
    /// The role has no queue.
    NoQueue,
    /// The broker could not be asked since then, for this reason.
    Unknown {
        /// The time of the first failure.
        since: Instant,
        reason: String,
    },
}

impl Polled {
    pub(super) fn nothing_yet() -> Self {
        Self {
            consumers: ConsumerCount::Unknown {
                since: Instant::now(),
                reason: "it was not polled yet".to_owned(),
            },
            waiting: None,
            summary: None,
            ages: Ages::default(),
        }
    }
}

/// Polls all roles.
pub(super) async fn poll_loop(process: Arc<ProcessHealth>, broker: BrokerSettings) {
    let mut inspector = None;
    let mut timer = interval(POLL_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        for role in &process.roles {
            poll_store(role).await;
            let links = role.liveness.links();
            if links.is_some_and(|links| links.consume.is_none()) {
                role.polled().consumers = ConsumerCount::NoQueue;
                continue;
            }
            let counted = count(role, &broker, &mut inspector).await;
            let waiting = waiting(role, &broker, inspector.as_ref()).await;
            let mut polled = role.polled();
            polled.waiting = waiting.or(polled.waiting);
            polled.consumers = match counted {
                Ok((queue, quarantine)) => ConsumerCount::Known { queue, quarantine },
                Err(reason) => {
                    let since = match polled.consumers {
                        ConsumerCount::Unknown { since, .. } => since,
                        ConsumerCount::Known { .. } | ConsumerCount::NoQueue => Instant::now(),
                    };
                    ConsumerCount::Unknown { since, reason }
                }
            };
        }
    }
}

async fn poll_store(role: &MonitoredRole) {
    let summary = timeout(STORE_LIMIT, role.store.summary(Timestamp::now())).await;
    // A store that cannot be read shows in the role's own phase.
    if let Ok(Ok(mut summary)) = summary {
        let mut polled = role.polled();
        polled.ages.correct(&mut summary, Instant::now());
        polled.summary = Some(summary);
    }
}

async fn count(
    role: &MonitoredRole,
    broker: &BrokerSettings,
    inspector: &mut Option<Inspector>,
) -> Result<(u64, u64), String> {
    if inspector.is_none() {
        let name = format!("{} health: counts consumers", broker.namespace);
        let connected = Inspector::connect(broker, &name).await;
        *inspector = Some(connected.map_err(|e| e.to_string())?);
    }
    let Some(inspector) = inspector else {
        return Err("there is no connection".to_owned());
    };
    let queue = consumers(inspector, &broker.namespace.role_queue(role.name, 0)).await?;
    let quarantine = consumers(inspector, &broker.namespace.quarantine_queue(role.name)).await?;
    Ok((queue, quarantine))
}

async fn waiting(
    role: &MonitoredRole,
    broker: &BrokerSettings,
    inspector: Option<&Inspector>,
) -> Option<u64> {
    role.liveness.links()?.serve.as_ref()?;
    let queue = broker.namespace.rpc_queue(role.name);
    let depth = inspector?.queue_depth(&queue).await;
    depth.ok().map(|depth| depth.ready)
}

async fn consumers(inspector: &Inspector, queue: &QueueName) -> Result<u64, String> {
    match inspector.queue_depth(queue).await {
        Ok(depth) => Ok(depth.consumers),
        // A missing queue has no consumers.
        Err(InspectError::Missing(_)) => Ok(0),
        Err(e @ (InspectError::Connect(_) | InspectError::Unreadable(_))) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_dated_ahead_grow_older_too() {
        let (mut ages, start) = (Ages::default(), Instant::now());
        let date = |text: &str| Some(text.parse().unwrap());
        let mut ages_ms = |outbox, deferred, dated_ahead, seconds| {
            let mut summary = Summary {
                oldest_outbox_ms: Some(0),
                oldest_held_ms: Some(3_000),
                oldest_outbox: outbox,
                oldest_deferred: deferred,
                dated_ahead,
                ..Summary::default()
            };
            ages.correct(&mut summary, start + Duration::from_secs(seconds));
            (summary.oldest_outbox_ms, summary.oldest_held_ms)
        };
        let ahead = date("2027-01-01T00:00:00Z");
        let (first, second) = (date("2026-01-01T00:00:00Z"), date("2026-01-02T00:00:00Z"));
        assert_eq!(ages_ms(ahead, first, 1, 0), (Some(0), Some(3_000)));
        assert_eq!(ages_ms(ahead, first, 1, 60), (Some(60_000), Some(60_000)));
        // Others are the oldest by date, but those dated ahead are still there.
        assert_eq!(ages_ms(first, second, 1, 90), (Some(0), Some(90_000)));
        assert_eq!(ages_ms(first, second, 0, 95), (Some(5_000), Some(5_000)));
        // Another row has begun to wait.
        assert_eq!(ages_ms(second, first, 0, 99), (Some(0), Some(3_000)));
    }

    #[test]
    fn dead_letters_age_under_a_clock_set_back() {
        let (mut ages, start) = (Ages::default(), Instant::now());
        let mut ages_ms = |oldest_dead_ms, seconds| {
            let mut summary = Summary {
                oldest_dead_ms: Some(oldest_dead_ms),
                oldest_dead: Some(Timestamp::UNIX_EPOCH),
                ..Summary::default()
            };
            ages.correct(&mut summary, start + Duration::from_secs(seconds));
            summary.oldest_dead_ms
        };
        assert_eq!(ages_ms(7_000, 0), Some(7_000));
        assert_eq!(ages_ms(0, 60), Some(60_000));
    }
}
