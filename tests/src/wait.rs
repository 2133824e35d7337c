//! Waiting for a condition, always under a limit. The only place of the harness that sleeps.

use std::{
    fmt::Debug,
    panic::Location,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `look` says yes.
///
/// # Panics
/// If it has not said so within the limit.
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

/// Looks again and again until `look` gives `Ok`, and returns what it gave; an `Err` tells what was seen instead.
///
/// # Panics
/// If it has given none within the limit, with what was waited for and what was seen last.
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
        let mut pause = FIRST_PAUSE;
        loop {
            // A look that hangs is a condition that does not come true, hence the limit on it, too; the last one gets a moment.
            let left = end.saturating_duration_since(Instant::now()) + LONGEST_PAUSE;
            let seen = match tokio::time::timeout(left, look()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => format!("{seen:?}"),
                Err(_) => "the look itself hangs".to_owned(),
            };
            assert!(
                Instant::now() < end,
                "{caller}: waited {limit:?} in vain until {what}; seen last: {seen}"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Lets so much time pass: for disturbances that are to come at a moment that depends on nothing, and for no other purpose.
pub async fn random_moment(after: Duration) {
    tokio::time::sleep(after).await;
}
