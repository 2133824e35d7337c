//! Rejected requests in the log and in the metrics, with the client's address and the user's name.
//!
//! Repetitions are logged at intervals with their count. All lines together have a rate limit, so rejected clients
//! cannot fill a disk.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use metrics::{counter, describe_counter};
use tokio::time::{MissedTickBehavior, interval};

use crate::domain::UserName;
use crate::limits::RateLimiter;

const REFUSED: &str = "doorstep_http_requests_rejected_total";
const LOGINS: &str = "doorstep_logins_total";

/// The time for which repetitions are only counted.
const WINDOW: Duration = Duration::from_secs(60);
/// The interval of checks for counts to log.
const EVERY: Duration = Duration::from_secs(10);
/// The limit of kinds of rejections that are remembered.
const MAX_KINDS: usize = 1_000;
/// The rate and burst of log lines, per second.
const LINES: f64 = 5.0;
const LINES_AT_ONCE: f64 = 100.0;

/// The user name of a request, once it is known. Names contain only letters, digits, dashes and underscores, and so
/// cannot break a log line.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedAs(Arc<OnceLock<UserName>>);

impl AskedAs {
    pub(crate) fn set(&self, name: &UserName) {
        // The first name stays: a request has one user.
        let _ = self.0.set(name.clone());
    }

    /// Returns the name, if it is known.
    pub(crate) fn get(&self) -> Option<&UserName> {
        self.0.get()
    }
}

/// A rejected request, as it is logged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RejectedRequest {
    /// The code of the problem.
    pub(crate) code: Cow<'static, str>,
    /// The user, if known; for a login, the given name.
    pub(crate) name: Option<UserName>,
    /// The address of the client.
    pub(crate) address: IpAddr,
    /// The pattern of the route.
    pub(crate) route: String,
}

/// Logs and counts rejections. Clones share their state.
#[derive(Debug, Clone)]
pub(crate) struct RejectionLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<LogState>,
    lines: RateLimiter<()>,
}

#[derive(Debug, Default)]
struct LogState {
    kinds: HashMap<RejectedRequest, Repetition>,
    /// Rejections that were not logged because of a limit.
    suppressed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Repetition {
    since: Instant,
    /// Repetitions since the last line.
    count: u64,
}

/// Registers the descriptions of the metrics.
pub(crate) fn describe() {
    describe_counter!(
        REFUSED,
        "HTTP requests rejected for lack of a session, a permission or capacity, by status and problem"
    );
    describe_counter!(
        LOGINS,
        "Passwords verified, by outcome: right, wrong, disabled"
    );
}

/// Counts a login whose password was verified.
pub(crate) fn count_login(outcome: &'static str) {
    counter!(LOGINS, "outcome" => outcome).increment(1);
}

/// Returns true if rejections of this status are logged: those that show guesses, a wrong role, limits and outages.
pub(crate) fn is_logged(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

impl RejectionLog {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            lines: RateLimiter::new(LINES, LINES_AT_ONCE),
        }))
    }

    /// Counts a rejection, and logs it unless an equal one was logged a moment ago.
    pub(crate) fn record(&self, status: StatusCode, rejection: RejectedRequest) {
        // Codes come from the gateway and the roles' contracts, so there are few.
        counter!(REFUSED, "status" => status.as_u16().to_string(), "code" => rejection.code.clone())
            .increment(1);
        let now = Instant::now();
        if self.is_news(&rejection, now) {
            log(&rejection, 1);
        }
    }

    /// Logs the counts of repetitions, forever.
    pub(crate) async fn log_repeated(self) {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let (repeated, untold) = self.take_repeated(Instant::now());
            for (rejection, count) in repeated {
                log(&rejection, count);
            }
            if untold > 0 {
                tracing::warn!(
                    count = untold,
                    "more rejections than log lines; see doorstep_http_requests_rejected_total"
                );
            }
        }
    }

    /// Returns true if this is to be logged now; otherwise counts it for later.
    fn is_news(&self, rejection: &RejectedRequest, now: Instant) -> bool {
        let mut told = self.lock();
        if let Some(repeats) = told.kinds.get_mut(rejection) {
            repeats.count += 1;
            return false;
        }
        if told.kinds.len() >= MAX_KINDS || self.0.lines.acquire((), now).is_err() {
            told.suppressed += 1;
            return false;
        }
        let since = now;
        told.kinds
            .insert(rejection.clone(), Repetition { since, count: 0 });
        true
    }

    /// Returns the counts to log now, and the number of rejections that were not told apart.
    fn take_repeated(&self, now: Instant) -> (Vec<(RejectedRequest, u64)>, u64) {
        let mut told = self.lock();
        let told = &mut *told;
        let mut repeated = Vec::new();
        told.kinds.retain(|rejection, repeats| {
            if now.saturating_duration_since(repeats.since) < WINDOW {
                return true;
            }
            if repeats.count == 0 {
                return false;
            }
            if self.0.lines.acquire((), now).is_err() {
                told.suppressed += repeats.count;
                return false;
            }
            repeated.push((rejection.clone(), repeats.count));
            *repeats = Repetition {
                since: now,
                count: 0,
            };
            true
        });
        (repeated, std::mem::take(&mut told.suppressed))
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(rejection: &RejectedRequest, count: u64) {
    let RejectedRequest {
        code,
        name,
        address,
        route,
    } = rejection;
    let name = name.as_ref().map_or("unknown", UserName::as_str);
    tracing::warn!(%code, name, %address, route, count, "refused");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(n: u32) -> RejectedRequest {
        RejectedRequest {
            code: "unauthorized".into(),
            name: Some("ada".parse().unwrap()),
            address: std::net::Ipv4Addr::from_bits(n).into(),
            route: "/v1/sessions".to_owned(),
        }
    }

    #[test]
    fn repeated_lines_are_counted() {
        let log = RejectionLog::new();
        let now = Instant::now();
        assert!(log.is_news(&rejection(1), now));
        for _ in 0..50 {
            assert!(!log.is_news(&rejection(1), now));
        }
        assert!(log.is_news(&rejection(2), now));
        assert_eq!(log.take_repeated(now), (Vec::new(), 0));
        let later = now + WINDOW;
        assert_eq!(log.take_repeated(later), (vec![(rejection(1), 50)], 0));
        // It is still counted, and forgotten once its window is over.
        assert!(!log.is_news(&rejection(1), later));
        assert_eq!(log.take_repeated(later + WINDOW).0, [(rejection(1), 1)]);
        assert_eq!(log.take_repeated(later + WINDOW * 2).0, []);
        assert!(log.is_news(&rejection(1), later + WINDOW * 2));
    }

    #[test]
    fn log_is_bounded_and_count_is_complete() {
        let log = RejectionLog::new();
        let now = Instant::now();
        let all = 100_000;
        let news = (0..all)
            .filter(|n| log.is_news(&rejection(*n), now))
            .count();
        assert_eq!(news, LINES_AT_ONCE as usize);
        let (repeated, untold) = log.take_repeated(now);
        assert!(repeated.is_empty());
        assert_eq!(untold + news as u64, u64::from(all));
        for second in 0..3600 {
            let _ = log.is_news(&rejection(second), now + Duration::from_secs(second.into()));
        }
        assert!(log.lock().kinds.len() <= MAX_KINDS);
    }
}
