//! The scheduling delay of the runtime itself. A test with a time limit must not blame Doorstep for a starved machine.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

/// The interval of its ticks.
const EVERY: Duration = Duration::from_millis(10);

/// Records every ten milliseconds that a task of this runtime was scheduled. Ends when it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    ticks: Arc<Mutex<Vec<Instant>>>,
    task: AbortHandle,
}

impl Watchdog {
    /// Starts on this runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        let ticks: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = ticks.clone();
        let task = tokio::spawn(async move {
            let mut timer = interval(EVERY);
            // Missed ticks stay missed: they are what it measures.
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push(Instant::now());
            }
        });
        Self {
            ticks,
            task: task.abort_handle(),
        }
    }

    /// Returns the part of a time span in which the runtime scheduled tasks: the whole span, or less if it was starved.
    #[must_use]
    pub fn awake(&self, from: Instant, to: Instant) -> Duration {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ticks.partition_point(|tick| *tick <= from);
        let last = ticks.partition_point(|tick| *tick <= to);
        EVERY * u32::try_from(last.saturating_sub(first)).unwrap_or(u32::MAX)
    }

    /// Returns the longest time without a tick.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = ticks.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.task.abort();
    }
}
