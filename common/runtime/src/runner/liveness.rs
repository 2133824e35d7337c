//! The liveness of a running role, read by its health endpoint.
//!
//! A waiting loop is healthy, however long it waits. A step that never finishes is not: a handler that never returns,
//! or a store or broker that neither answers nor fails. So each loop records the start and the end of every step,
//! whether it succeeds or fails; a step that fails and is retried ends each time.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorstep_messaging::{
    ConnectionStatus, ConsumerStats, Publisher, PublisherStats, RpcServerStats,
};
use tokio::sync::watch;

/// The liveness of one role.
#[derive(Debug)]
pub struct Liveness {
    /// The loop that processes batches.
    pub engine: ProgressWatch,
    /// The loop that publishes the outbox.
    pub relay: ProgressWatch,
    /// The heartbeats that keep the leases of tasks.
    pub tasks: ProgressWatch,
    links: OnceLock<RoleConnections>,
}

/// A role's connections to the broker.
#[derive(Debug, Clone)]
pub struct RoleConnections {
    /// The connection that publishes.
    pub publish: watch::Receiver<ConnectionStatus>,
    /// The connection that consumes, if the role has a queue.
    pub consume: Option<watch::Receiver<ConnectionStatus>>,
    /// The connection that consumes from the quarantine, if the role has a queue.
    pub quarantine: Option<watch::Receiver<ConnectionStatus>>,
    /// The connection that serves requests, if there is one.
    pub serve: Option<watch::Receiver<ConnectionStatus>>,
    /// Counters of publishing.
    pub published: PublisherStats,
    /// Counters of deliveries and acks, if the role has a queue.
    pub consumed: Option<ConsumerStats>,
    /// The same for the quarantine.
    pub quarantined: Option<ConsumerStats>,
    /// Counters of requests and replies, if the role serves any.
    pub served: Option<RpcServerStats>,
}

impl RoleConnections {
    /// Returns the connection of this publisher, without any other.
    pub(super) fn publishing(publisher: &Publisher) -> Self {
        Self {
            publish: publisher.status(),
            consume: None,
            quarantine: None,
            serve: None,
            published: publisher.stats(),
            consumed: None,
            quarantined: None,
            served: None,
        }
    }
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self {
            engine: ProgressWatch::new(),
            relay: ProgressWatch::new(),
            tasks: ProgressWatch::new(),
            links: OnceLock::new(),
        }
    }

    pub(super) fn linked(&self, links: RoleConnections) {
        // A role is run only once.
        let _ = self.links.set(links);
    }

    /// Returns its connections to the broker, once they exist.
    #[must_use]
    pub fn links(&self) -> Option<&RoleConnections> {
        self.links.get()
    }
}

/// A loop's present step, with the time since its start.
#[derive(Debug)]
pub struct ProgressWatch {
    born: Instant,
    /// Milliseconds from creation to the start of the step, plus one; 0 between two steps.
    began: AtomicU64,
}

impl ProgressWatch {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// Returns the duration of the present step so far; `None` between two steps.
    #[must_use]
    pub fn busy_for(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.born
                .elapsed()
                .saturating_sub(Duration::from_millis(began)),
        )
    }

    /// Starts a step, which lasts until the returned guard is dropped.
    pub(super) fn step(&self) -> StepGuard<'_> {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.began.store(now + 1, Ordering::Relaxed);
        StepGuard(self)
    }
}

/// A running step.
#[derive(Debug)]
pub(super) struct StepGuard<'a>(&'a ProgressWatch);

impl Drop for StepGuard<'_> {
    fn drop(&mut self) {
        self.0.began.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_is_busy_for_the_whole_step() {
        let pulse = ProgressWatch::new();
        assert_eq!(pulse.busy_for(), None);
        let step = pulse.step();
        assert!(pulse.busy_for().is_some());
        drop(step);
        assert_eq!(pulse.busy_for(), None);
    }
}
