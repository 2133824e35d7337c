//! Detects differing clocks of clients and servers. A deadline is a wall-clock time, so a server whose clock is ahead considers punctual
//! requests expired. If it dropped them silently, it would look like a slow server.

use std::time::{Duration, Instant};

use doorstep_event::{Rejection, Request, Timestamp};

/// Lateness of a request that does not suggest clock skew. The broker drops late requests by their remaining time, but a message may be in
/// transit for a moment.
const TRANSIT_TOLERANCE: Duration = Duration::from_millis(500);
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Detects clock skew, and limits its log lines.
#[derive(Debug, Default)]
pub(super) struct Skew {
    last_logged: Option<Instant>,
}

/// The verdict on a request that arrives after its deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The caller no longer waits.
    Expired,
    /// The caller may still wait, and gets this rejection.
    Skewed(Rejection),
}

impl Skew {
    /// Judges a request that arrives after its deadline. A redelivered one may have been at another server until then.
    pub(super) fn classify(
        &mut self,
        request: &Request,
        redelivered: bool,
        now: Timestamp,
    ) -> Late {
        let over = now.duration_since(request.deadline);
        let over = Duration::try_from(over).unwrap_or_default();
        if redelivered || over <= TRANSIT_TOLERANCE {
            return Late::Expired;
        }
        let deadline = request.deadline;
        if self
            .last_logged
            .is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL)
        {
            self.last_logged = Some(Instant::now());
            tracing::warn!(
                role = request.role(),
                caller = request.caller.as_str(),
                deadline = %deadline,
                now = %now,
                "a request arrived late, although the broker drops late ones: unless this machine was stalled, its clock \
                 and the caller's differ; synchronize them"
            );
        }
        let detail = format!(
            "it arrived at {now} by the server's clock, after its deadline {deadline}: synchronize the clocks"
        );
        Late::Skewed(Rejection::new(Rejection::CLOCK_SKEW, detail))
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{EventType, Idempotency, RequestId, RequestKind, Source};

    use super::*;

    #[test]
    fn a_late_first_delivery_indicates_skew() {
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
        assert_eq!(skew.classify(&request, false, deadline), Late::Expired);
        assert_eq!(skew.classify(&request, false, moment), Late::Expired);
        assert_eq!(skew.classify(&request, true, long), Late::Expired);
        assert!(skew.last_logged.is_none());
        let Late::Skewed(rejection) = skew.classify(&request, false, long) else {
            panic!("skew not detected");
        };
        assert_eq!(rejection.code, Rejection::CLOCK_SKEW);
        for time in [deadline, long] {
            assert!(
                rejection.detail.contains(&time.to_string()),
                "{}",
                rejection.detail
            );
        }
        assert!(skew.last_logged.is_some());
    }
}
