//! Waits for a condition, always with a timeout. The only place in this crate that sleeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

const INITIAL_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_millis(100);

/// Polls `probe` until it returns a value or `bound` has passed, which returns `None`. The intervals grow, so that a
/// fast result is seen at once and a slow one costs little.
///
/// # Errors
/// As soon as `probe` fails.
pub fn until<T>(
    bound: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let end = Instant::now() + bound;
    let mut pause = INITIAL_BACKOFF;
    loop {
        if let Some(value) = probe()? {
            return Ok(Some(value));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(MAX_BACKOFF);
    }
}
