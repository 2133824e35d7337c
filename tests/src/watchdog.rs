//! How late the runtime is by itself: a test that asks for something by a certain time must not blame others for a starved machine.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

/// How often it notes that it was there.
const EVERY: Duration = Duration::from_millis(10);

/// Notes every ten milliseconds that a task of this runtime had its turn. Ends when it is dropped.
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
            // Turns that were missed stay missed: that is what it is about.
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

    /// How much of the time between these two the runtime was there: never more than has passed, and less where it got no turn.
    #[must_use]
    pub fn awake(&self, from: Instant, to: Instant) -> Duration {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ticks.partition_point(|tick| *tick <= from);
        let last = ticks.partition_point(|tick| *tick <= to);
        EVERY * u32::try_from(last.saturating_sub(first)).unwrap_or(u32::MAX)
    }

    /// The longest time that it got no turn.
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
