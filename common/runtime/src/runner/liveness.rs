//! Signs of life of a running role, for whoever has to decide whether it is one that works.
//!
//! A loop that waits for deliveries is well, however long it waits. One that has begun something and does not finish it is not: a
//! handler that never returns, a store or a broker that neither answers nor fails. So each loop notes when it begins a step and when
//! that step is over, in whatever way; a step that fails and is tried again is over each time.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use doorstep_messaging::{ConnectionStatus, ConsumerStats, PublisherStats, RpcServerStats};
use tokio::sync::watch;

/// The signs of life of one role.
#[derive(Debug)]
pub struct Liveness {
    /// The loop that works batches.
    pub engine: ProgressWatch,
    /// The loop that sends the outbox.
    pub relay: ProgressWatch,
    links: OnceLock<RoleConnections>,
}

/// A role's ways to the broker.
#[derive(Debug, Clone)]
pub struct RoleConnections {
    /// The connection that publishes.
    pub publish: watch::Receiver<ConnectionStatus>,
    /// The connection that consumes, where the role has a queue.
    pub consume: Option<watch::Receiver<ConnectionStatus>>,
    /// The connection that consumes from the quarantine, where the role has a queue.
    pub quarantine: Option<watch::Receiver<ConnectionStatus>>,
    /// The connection that answers requests, where it has one.
    pub answer: Option<watch::Receiver<ConnectionStatus>>,
    /// What has been published.
    pub published: PublisherStats,
    /// What has been delivered and settled, where the role has a queue.
    pub consumed: Option<ConsumerStats>,
    /// The same of the quarantine.
    pub quarantined: Option<ConsumerStats>,
    /// What has been asked and answered, where it answers.
    pub answered: Option<RpcServerStats>,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self {
            engine: ProgressWatch::new(),
            relay: ProgressWatch::new(),
            links: OnceLock::new(),
        }
    }

    pub(super) fn linked(&self, links: RoleConnections) {
        // A role is run once.
        let _ = self.links.set(links);
    }

    /// Its ways to the broker, once it has begun to look for one.
    #[must_use]
    pub fn links(&self) -> Option<&RoleConnections> {
        self.links.get()
    }
}

/// Whether a loop is amid a step, and since when.
#[derive(Debug)]
pub struct ProgressWatch {
    born: Instant,
    /// Milliseconds from birth to the beginning of the step, plus one; 0 between two steps.
    began: AtomicU64,
}

impl ProgressWatch {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            began: AtomicU64::new(0),
        }
    }

    /// How long the present step has taken so far; `None` between two steps.
    #[must_use]
    pub fn busy_for(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::Relaxed).checked_sub(1)?;
        Some(
            self.born
                .elapsed()
                .saturating_sub(Duration::from_millis(began)),
        )
    }

    /// Begins a step, which lasts until what is returned is dropped.
    pub(super) fn step(&self) -> StepGuard<'_> {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.began.store(now + 1, Ordering::Relaxed);
        StepGuard(self)
    }
}

/// A step that is being done.
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
    fn a_loop_is_busy_from_the_beginning_of_a_step_to_its_end() {
        let pulse = ProgressWatch::new();
        assert_eq!(pulse.busy_for(), None);
        let step = pulse.step();
        assert!(pulse.busy_for().is_some());
        drop(step);
        assert_eq!(pulse.busy_for(), None);
    }
}
