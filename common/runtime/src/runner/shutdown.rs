//! The stop of a role: one signal and one deadline for every part of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The minimum time that each part gets to close, however late it starts to.
const MIN_GRACE: Duration = Duration::from_secs(1);

/// The trigger of a role's stop.
#[derive(Debug, Clone)]
pub(super) struct ShutdownTrigger {
    deadline: Arc<watch::Sender<Option<Instant>>>,
    shutdown_timeout: Duration,
}

/// The stop signal of a role, with its deadline.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    deadline: watch::Receiver<Option<Instant>>,
    shutdown_timeout: Duration,
}

impl ShutdownTrigger {
    /// Creates the signal for a role with this shutdown timeout. It holds for as long as any clone of the trigger is kept.
    pub(super) fn new(shutdown_timeout: Duration) -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(None);
        let stopper = Self {
            deadline: Arc::new(sender),
            shutdown_timeout,
        };
        let stop = Shutdown {
            deadline: receiver,
            shutdown_timeout,
        };
        (stopper, stop)
    }

    /// Triggers the stop. The shutdown timeout runs from the first call on.
    pub(super) fn stop(&self) {
        self.deadline.send_if_modified(|deadline| {
            let is_first = deadline.is_none();
            if is_first {
                *deadline = Some(Instant::now() + self.shutdown_timeout);
            }
            is_first
        });
    }
}

impl Shutdown {
    /// Returns whether the stop was triggered.
    pub(super) fn is_requested(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// Waits until the stop is triggered. Cancel-safe.
    pub(super) async fn requested(&mut self) {
        // An error means the end of the role, which counts as a stop.
        let _ = self.deadline.wait_for(Option::is_some).await;
    }

    /// Waits until the stop is triggered and its shutdown timeout is over. Cancel-safe.
    pub(super) async fn is_over(&mut self) {
        self.requested().await;
        sleep_until(self.deadline()).await;
    }

    /// Returns the deadline of the stop. If none was triggered because the role fails, the shutdown timeout starts now.
    pub(super) fn deadline(&self) -> Instant {
        let requested = *self.deadline.borrow();
        requested.unwrap_or_else(|| Instant::now() + self.shutdown_timeout)
    }

    /// Returns the time until the deadline, and never less than [`MIN_GRACE`].
    pub(super) fn time_remaining(&self) -> Duration {
        self.deadline()
            .saturating_duration_since(Instant::now())
            .max(MIN_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_part_shares_one_deadline() {
        let (stopper, stop) = ShutdownTrigger::new(Duration::from_secs(600));
        assert!(!stop.is_requested());
        stopper.stop();
        let deadline = stop.deadline();
        // A second call gives no more time.
        stopper.stop();
        assert!(stop.is_requested());
        assert_eq!(stop.deadline(), deadline);
        assert!(stop.time_remaining() <= Duration::from_secs(600));
    }

    #[tokio::test]
    async fn late_part_still_gets_a_moment() {
        let (stopper, mut stop) = ShutdownTrigger::new(Duration::ZERO);
        stopper.stop();
        stop.requested().await;
        stop.is_over().await;
        assert_eq!(stop.time_remaining(), MIN_GRACE);
    }
}
