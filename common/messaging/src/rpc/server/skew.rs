//! Noticing that the clocks of those who ask and those who answer differ. A deadline is a time of day, so a server whose clock is ahead
//! takes requests for late that are not; dropped in silence, all of them would look like a server that is slow.

use std::time::{Duration, Instant};

use doorstep_event::{Rejection, Request, Timestamp};

/// How late a request may come without a doubt about the clocks: the broker drops what is late, by the time that is left, but a message
/// may be under way for a moment.
const TRANSIT_TOLERANCE: Duration = Duration::from_millis(500);
/// How often the log is told, at most.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Whether it was told that clocks differ.
#[derive(Debug, Default)]
pub(super) struct Skew {
    last_logged: Option<Instant>,
}

/// What to make of a request that comes after its deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// Nobody waits for it any more.
    Expired,
    /// Its caller may well wait, and is told this.
    Skewed(Rejection),
}

impl Skew {
    /// Judges a request that comes after its deadline. One that has come before may have been with another server until then.
    pub(super) fn judge(&mut self, request: &Request, redelivered: bool, now: Timestamp) -> Late {
        let over = now.duration_since(request.deadline);
        let over = Duration::try_from(over).unwrap_or_default();
        if redelivered || over <= TRANSIT_TOLERANCE {
            return Late::Expired;
        }
        let deadline = request.deadline;
        if self
            .last_logged
            .is_none_or(|told| told.elapsed() >= LOG_INTERVAL)
        {
            self.last_logged = Some(Instant::now());
            tracing::warn!(
                role = request.role(),
                caller = request.caller.as_str(),
                deadline = %deadline,
                now = %now,
                "a request was late when it came, although the broker drops what is late: if this machine was not held up, its clock \
                 and the caller's differ, set them"
            );
        }
        let detail = format!(
            "its deadline, {deadline}, was over when it came, at {now} by the clock of whoever was to answer: set the clocks"
        );
        Late::Skewed(Rejection::new(Rejection::CLOCK_SKEW, detail))
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{EventType, Idempotency, RequestId, RequestKind, Source};

    use super::*;

    #[test]
    fn what_comes_late_for_the_first_time_shows_that_clocks_differ() {
        let deadline: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let request = Request {
            id: RequestId::new("1").unwrap(),
            caller: Source::new("shop/1").unwrap(),
            kind: EventType::new("payments.authorize.v1").unwrap(),
            act: RequestKind::Command,
            time: deadline,
            deadline,
            idempotency: Idempotency::Retryable,
            traceparent: None,
            data: "{}".into(),
        };
        let mut skew = Skew::default();
        let moment = deadline + TRANSIT_TOLERANCE;
        let long = moment + Duration::from_millis(1);
        assert_eq!(skew.judge(&request, false, deadline), Late::Expired);
        assert_eq!(skew.judge(&request, false, moment), Late::Expired);
        assert_eq!(skew.judge(&request, true, long), Late::Expired);
        assert!(skew.last_logged.is_none());
        let Late::Skewed(refused) = skew.judge(&request, false, long) else {
            panic!("not noticed");
        };
        assert_eq!(refused.code, Rejection::CLOCK_SKEW);
        for time in [deadline, long] {
            assert!(
                refused.detail.contains(&time.to_string()),
                "{}",
                refused.detail
            );
        }
        assert!(skew.last_logged.is_some());
    }
}
