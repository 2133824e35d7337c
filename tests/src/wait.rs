//! Waits for a condition, always with a timeout. The only place in the harness that sleeps.

use std::{
    fmt::Debug,
    panic::Location,
    time::{Duration, Instant},
};

const INITIAL_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_millis(100);

/// Polls `look` until it returns true.
///
/// # Panics
/// If it does not within the limit.
#[track_caller]
pub fn wait_until(
    what: impl Into<String>,
    limit: Duration,
    mut look: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    wait_for(what, limit, async move || {
        if look().await { Ok(()) } else { Err("not so") }
    })
}

/// Polls `look` until it returns `Ok`, and returns its value; an `Err` describes the state seen instead.
///
/// # Panics
/// If it does not within the limit, with the condition and the last state seen.
#[track_caller]
pub fn wait_for<T, E: Debug>(
    what: impl Into<String>,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    let what = what.into();
    async move {
        let end = Instant::now() + limit;
        let mut pause = INITIAL_BACKOFF;
        loop {
            // A poll that hangs counts as unmet, so it has the limit, too; the last poll gets a moment more.
            let left = end.saturating_duration_since(Instant::now()) + MAX_BACKOFF;
            let seen = match tokio::time::timeout(left, look()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => format!("{seen:?}"),
                Err(_) => "the poll itself hangs".to_owned(),
            };
            assert!(
                Instant::now() < end,
                "{caller}: not within {limit:?}: {what}; seen last: {seen}"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }
}

/// Sleeps: for faults at moments that depend on nothing, and for no other purpose.
pub async fn random_moment(after: Duration) {
    tokio::time::sleep(after).await;
}
