//! When a role was asked to stop, and until when all of it has to be over: one time for every part of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// What a part gets in any case for saying good-bye, however late it comes to that.
const MIN_GRACE: Duration = Duration::from_secs(1);

/// Asks a role to stop.
#[derive(Debug, Clone)]
pub(super) struct ShutdownTrigger {
    deadline: Arc<watch::Sender<Option<Instant>>>,
    grace: Duration,
}

/// Whether a role was asked to stop.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    deadline: watch::Receiver<Option<Instant>>,
    grace: Duration,
}

impl ShutdownTrigger {
    /// For a role that may take so long to stop. The signal holds for as long as any clone of the stopper is kept.
    pub(super) fn new(grace: Duration) -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(None);
        let stopper = Self {
            deadline: Arc::new(sender),
            grace,
        };
        let stop = Shutdown {
            deadline: receiver,
            grace,
        };
        (stopper, stop)
    }

    /// Asks it. Its time runs from the first call on.
    pub(super) fn stop(&self) {
        self.deadline.send_if_modified(|deadline| {
            let is_first = deadline.is_none();
            if is_first {
                *deadline = Some(Instant::now() + self.grace);
            }
            is_first
        });
    }
}

impl Shutdown {
    /// Whether it was asked.
    pub(super) fn is_asked(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// Waits until it was asked. Cancel-safe.
    pub(super) async fn asked(&mut self) {
        // An error is the end of the role, which is as good.
        let _ = self.deadline.wait_for(Option::is_some).await;
    }

    /// Waits until it was asked and its grace is over. Cancel-safe.
    pub(super) async fn is_over(&mut self) {
        self.asked().await;
        sleep_until(self.deadline()).await;
    }

    /// Until when all has to be over. Where nobody has asked, because it fails, its time begins now.
    pub(super) fn deadline(&self) -> Instant {
        let asked = *self.deadline.borrow();
        asked.unwrap_or_else(|| Instant::now() + self.grace)
    }

    /// How much of its time is left, and a little in any case.
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
    async fn every_part_has_the_same_deadline_however_late_it_comes_to_its_end() {
        let (stopper, stop) = ShutdownTrigger::new(Duration::from_secs(600));
        assert!(!stop.is_asked());
        stopper.stop();
        let deadline = stop.deadline();
        // Asking again gives no more time.
        stopper.stop();
        assert!(stop.is_asked());
        assert_eq!(stop.deadline(), deadline);
        assert!(stop.time_remaining() <= Duration::from_secs(600));
    }

    #[tokio::test]
    async fn what_comes_too_late_still_gets_a_moment() {
        let (stopper, mut stop) = ShutdownTrigger::new(Duration::ZERO);
        stopper.stop();
        stop.asked().await;
        stop.is_over().await;
        assert_eq!(stop.time_remaining(), MIN_GRACE);
    }
}
