//! Refused requests in the log and in the metrics: each is counted, and logged with the client's address and the user's name. The same is
//! logged once in a while with its count, and all together only so often, so that nobody can fill a disk by being refused.

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

/// For how long what repeats is only counted.
const WINDOW: Duration = Duration::from_secs(60);
/// The interval at which repeated lines are looked for.
const EVERY: Duration = Duration::from_secs(10);
/// The most kinds of refusals that are remembered.
const MAX_KINDS: usize = 1_000;
/// The most lines in a second, and at once.
const LINES: f64 = 5.0;
const LINES_AT_ONCE: f64 = 100.0;

/// The name of the user of a request, once it is known. Names keep to letters, digits, dash and underscore, and so cannot break a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedAs(Arc<OnceLock<UserName>>);

impl AskedAs {
    /// Sets the name.
    pub(crate) fn set(&self, name: &UserName) {
        // Of several the first one stays: a request is of one user.
        let _ = self.0.set(name.clone());
    }

    /// The name, if it is known.
    pub(crate) fn get(&self) -> Option<&UserName> {
        self.0.get()
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Refusal {
    /// The problem's code.
    pub(crate) code: Cow<'static, str>,
    /// The user, where that is known; at a login the name that was given.
    pub(crate) name: Option<UserName>,
    /// The client.
    pub(crate) address: IpAddr,
    /// The form of the path.
    pub(crate) route: String,
}

/// Logs and counts refusals. Clones share what they have logged.
#[derive(Debug, Clone)]
pub(crate) struct RefusalLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    lines: RateLimiter<()>,
}

#[derive(Debug, Default)]
struct Told {
    kinds: HashMap<Refusal, Repeats>,
    /// Refusals that were not logged for want of room.
    untold: u64,
}

#[derive(Debug, Clone, Copy)]
struct Repeats {
    since: Instant,
    /// Not logged yet.
    count: u64,
}

/// Tells what the metrics mean.
pub(crate) fn describe() {
    describe_counter!(
        REFUSED,
        "HTTP requests refused for want of a login, a right or room, by status and problem"
    );
    describe_counter!(
        LOGINS,
        "Passwords checked, by outcome: right, wrong, disabled"
    );
}

/// Counts a login whose password was checked.
pub(crate) fn count_login(outcome: &'static str) {
    counter!(LOGINS, "outcome" => outcome).increment(1);
}

/// Returns whether refusals with this status are logged: those that tell of guesses, of a wrong role, of limits and of outages.
pub(crate) fn is_logged(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

impl RefusalLog {
    /// Nothing was logged yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            told: Mutex::default(),
            lines: RateLimiter::new(LINES, LINES_AT_ONCE),
        }))
    }

    /// Counts a refusal, and logs it unless the same was logged a moment ago.
    pub(crate) fn tell(&self, status: StatusCode, refusal: Refusal) {
        // Codes are those of the gateway and of the roles' contracts, so there are few.
        counter!(REFUSED, "status" => status.as_u16().to_string(), "code" => refusal.code.clone())
            .increment(1);
        let now = Instant::now();
        if self.is_news(&refusal, now) {
            log(&refusal, 1);
        }
    }

    /// Logs the counts of what was repeated, for ever.
    pub(crate) async fn tell_repeated(self) {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let (repeated, untold) = self.take_repeated(Instant::now());
            for (refusal, count) in repeated {
                log(&refusal, count);
            }
            if untold > 0 {
                tracing::warn!(
                    count = untold,
                    "refused more than is logged one by one; see doorstep_http_requests_rejected_total"
                );
            }
        }
    }

    /// Returns whether this is to be logged now; otherwise it is counted for later.
    fn is_news(&self, refusal: &Refusal, now: Instant) -> bool {
        let mut told = self.lock();
        if let Some(repeats) = told.kinds.get_mut(refusal) {
            repeats.count += 1;
            return false;
        }
        if told.kinds.len() >= MAX_KINDS || self.0.lines.acquire((), now).is_err() {
            told.untold += 1;
            return false;
        }
        let since = now;
        told.kinds
            .insert(refusal.clone(), Repeats { since, count: 0 });
        true
    }

    /// The repeated lines to be logged now, and how many could not be told apart.
    fn take_repeated(&self, now: Instant) -> (Vec<(Refusal, u64)>, u64) {
        let mut told = self.lock();
        let told = &mut *told;
        let mut repeated = Vec::new();
        told.kinds.retain(|refusal, repeats| {
            if now.saturating_duration_since(repeats.since) < WINDOW {
                return true;
            }
            if repeats.count == 0 {
                return false;
            }
            if self.0.lines.acquire((), now).is_err() {
                told.untold += repeats.count;
                return false;
            }
            repeated.push((refusal.clone(), repeats.count));
            *repeats = Repeats {
                since: now,
                count: 0,
            };
            true
        });
        (repeated, std::mem::take(&mut told.untold))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(refusal: &Refusal, count: u64) {
    let Refusal {
        code,
        name,
        address,
        route,
    } = refusal;
    let name = name.as_ref().map_or("unknown", UserName::as_str);
    tracing::warn!(%code, name, %address, route, count, "refused");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(n: u32) -> Refusal {
        Refusal {
            code: "unauthorized".into(),
            name: Some("ada".parse().unwrap()),
            address: std::net::Ipv4Addr::from_bits(n).into(),
            route: "/v1/sessions".to_owned(),
        }
    }

    #[test]
    fn what_repeats_is_told_once_in_a_while_with_its_count() {
        let log = RefusalLog::new();
        let now = Instant::now();
        assert!(log.is_news(&refusal(1), now));
        for _ in 0..50 {
            assert!(!log.is_news(&refusal(1), now));
        }
        assert!(log.is_news(&refusal(2), now));
        assert_eq!(log.take_repeated(now), (Vec::new(), 0));
        let later = now + WINDOW;
        assert_eq!(log.take_repeated(later), (vec![(refusal(1), 50)], 0));
        // It goes on being counted, and is forgotten once it is over.
        assert!(!log.is_news(&refusal(1), later));
        assert_eq!(log.take_repeated(later + WINDOW).0, [(refusal(1), 1)]);
        assert_eq!(log.take_repeated(later + WINDOW * 2).0, []);
        assert!(log.is_news(&refusal(1), later + WINDOW * 2));
    }

    #[test]
    fn lines_and_what_is_remembered_are_bounded_and_nothing_is_lost_from_the_count() {
        let log = RefusalLog::new();
        let now = Instant::now();
        let all = 100_000;
        let news = (0..all).filter(|n| log.is_news(&refusal(*n), now)).count();
        assert_eq!(news, LINES_AT_ONCE as usize);
        let (repeated, untold) = log.take_repeated(now);
        assert!(repeated.is_empty());
        assert_eq!(untold + news as u64, u64::from(all));
        for second in 0..3600 {
            let _ = log.is_news(&refusal(second), now + Duration::from_secs(second.into()));
        }
        assert!(log.lock().kinds.len() <= MAX_KINDS);
    }
}
