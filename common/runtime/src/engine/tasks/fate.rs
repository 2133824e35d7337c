//! The next step of a task: before its code runs, and after an attempt.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_store::{TaskDirective, TaskRow};

/// The bounds of a kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskPolicy {
    /// The maximum duration of an attempt.
    pub timeout: Duration,
    /// The maximum of tasks of the kind that run at a time, of all processes on a store.
    pub max_running: u32,
    /// The backoff before the first retry; it doubles with each further one.
    pub initial_backoff: Duration,
    pub max_backoff: Duration,
    /// The number of attempts that end with an error after which the task fails. `None`: only its age decides.
    pub max_attempts: Option<u32>,
    /// The age from which an error makes the task fail.
    pub give_up_after: Duration,
    pub on_unknown: OnUnknown,
}

/// The treatment of an attempt whose effect may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// The task waits for an operator.
    Wait,
    /// The task is tried again: a second effect does no harm, or the other side recognizes it by the task's key.
    Retry,
}

impl TaskPolicy {
    pub const DEFAULT: Self = Self {
        timeout: Duration::from_mins(1),
        max_running: 4,
        initial_backoff: Duration::from_secs(1),
        max_backoff: Duration::from_mins(10),
        max_attempts: None,
        give_up_after: Duration::from_hours(24),
        on_unknown: OnUnknown::Wait,
    };

    /// Returns the backoff after this many attempts. Its second half is jittered: `jitter` is a number from 0 to 1.
    #[must_use]
    pub fn backoff(&self, attempts: u32, jitter: f64) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1));
        let doubled = self
            .initial_backoff
            .saturating_mul(factor.unwrap_or(u32::MAX));
        let longest = doubled.min(self.max_backoff);
        longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// The step with a claimed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStep {
    /// To run its code.
    Run,
    /// To carry out a directive.
    Direct(TaskDirective),
    /// To end it as poison: it has crashed as many processes as allowed. The role hears of it.
    Poison,
    /// To end it as poison without the role, since telling the role has crashed a process as well.
    PoisonUntold,
}

/// Returns the step with a claimed task.
#[must_use]
pub fn first_step(row: &TaskRow, max_crashes: u32) -> TaskStep {
    match row.directive {
        _ if row.crashes > max_crashes => TaskStep::PoisonUntold,
        Some(directive) => TaskStep::Direct(directive),
        None if row.crashes == max_crashes => TaskStep::Poison,
        None => TaskStep::Run,
    }
}

/// The end of an attempt without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// An error that may pass.
    Retry(String),
    /// An error that may pass, with the time after which the other side allows another attempt.
    RetryAfter(Duration, String),
    TimedOut,
    /// An error that does not pass.
    Fail(String),
    Panicked(String),
    /// Its effect may have happened.
    Unknown(String),
    /// It was asked to stop and did: cancelled if the task has that directive, released otherwise.
    Stopped {
        cancelled: bool,
    },
}

/// The step after an attempt without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    Retry {
        due: Timestamp,
        error: String,
    },
    Release,
    Cancelled,
    Unknown {
        error: String,
    },
    /// It becomes a dead letter.
    Fail {
        gave_up: GaveUp,
        detail: String,
    },
}

/// The reason why a task becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// Its code has failed for good.
    Failed,
    Panicked,
    /// Its attempts or its time are used up.
    Exhausted,
    /// The role has rejected its result.
    ResultRejected,
}

/// Returns the step after an attempt without a result. The task gives up by its age only if the wall clock `is_steady`.
#[must_use]
pub fn next_step(
    policy: &TaskPolicy,
    row: &TaskRow,
    end: AttemptEnd,
    now: Timestamp,
    is_steady: bool,
    jitter: f64,
) -> NextStep {
    let (error, least) = match end {
        AttemptEnd::Retry(error) => (error, Duration::ZERO),
        AttemptEnd::RetryAfter(least, error) => (error, least),
        AttemptEnd::TimedOut => {
            let error = format!("the attempt took longer than {:?}", policy.timeout);
            (error, Duration::ZERO)
        }
        AttemptEnd::Unknown(error) if policy.on_unknown == OnUnknown::Retry => {
            (error, Duration::ZERO)
        }
        AttemptEnd::Unknown(error) => return NextStep::Unknown { error },
        AttemptEnd::Stopped { cancelled: true } => return NextStep::Cancelled,
        AttemptEnd::Stopped { cancelled: false } => return NextStep::Release,
        AttemptEnd::Fail(detail) => {
            let gave_up = GaveUp::Failed;
            return NextStep::Fail { gave_up, detail };
        }
        AttemptEnd::Panicked(detail) => {
            let gave_up = GaveUp::Panicked;
            return NextStep::Fail { gave_up, detail };
        }
    };
    let attempts = row.attempts.saturating_add(1);
    let age = now.duration_since(row.since);
    let is_old = is_steady && Duration::try_from(age).is_ok_and(|age| age >= policy.give_up_after);
    if is_old || policy.max_attempts.is_some_and(|most| attempts >= most) {
        return NextStep::Fail {
            gave_up: GaveUp::Exhausted,
            detail: format!("{error} (attempt {attempts})"),
        };
    }
    let backoff = policy.backoff(attempts, jitter).max(least);
    let due = now.checked_add(backoff).unwrap_or(Timestamp::MAX);
    NextStep::Retry { due, error }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{EventType, Subject};
    use doorstep_store::{TaskId, TaskState};
    use proptest::prelude::*;

    use super::*;

    fn row(attempts: u32, crashes: u32) -> TaskRow {
        TaskRow {
            number: 1,
            id: TaskId::new("mail/order/1").unwrap(),
            kind: EventType::new("shop.mail.v1").unwrap(),
            subject: Subject::new("order/1").unwrap(),
            traceparent: None,
            input: bytes::Bytes::new(),
            since: Timestamp::UNIX_EPOCH,
            state: TaskState::Running,
            lease: None,
            directive: None,
            due: Timestamp::UNIX_EPOCH,
            attempts,
            crashes,
            dead: 0,
            done: 0,
            total: 0,
            reached: 0,
            note: None,
            checkpoint: None,
            error: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn failed(step: NextStep) -> GaveUp {
        match step {
            NextStep::Fail { gave_up, .. } => gave_up,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn poison_ends_without_its_code() {
        let step = |crashes| first_step(&row(0, crashes), 3);
        assert_eq!([0, 1, 2].map(step), [TaskStep::Run; 3]);
        assert_eq!(step(3), TaskStep::Poison);
        assert_eq!([4, 9].map(step), [TaskStep::PoisonUntold; 2]);
        let directed = |crashes| {
            let directive = Some(TaskDirective::Cancel);
            first_step(
                &TaskRow {
                    directive,
                    ..row(0, crashes)
                },
                3,
            )
        };
        assert_eq!(directed(3), TaskStep::Direct(TaskDirective::Cancel));
        assert_eq!(directed(4), TaskStep::PoisonUntold);
    }

    #[test]
    fn an_attempt_is_retried_until_its_bounds() {
        let policy = TaskPolicy {
            max_attempts: Some(3),
            ..TaskPolicy::DEFAULT
        };
        let error = || AttemptEnd::Retry("no connection".to_owned());
        let next = |attempts, end, now, is_steady| {
            next_step(&policy, &row(attempts, 0), end, at(now), is_steady, 1.0)
        };
        let retry = |due, error: &str| NextStep::Retry {
            due: at(due),
            error: error.to_owned(),
        };
        assert_eq!(next(0, error(), 10, true), retry(11, "no connection"));
        assert_eq!(next(1, error(), 10, true), retry(12, "no connection"));
        assert_eq!(failed(next(2, error(), 10, true)), GaveUp::Exhausted);
        let timed_out = next(0, AttemptEnd::TimedOut, 10, true);
        assert_eq!(timed_out, retry(11, "the attempt took longer than 60s"));
        let after = AttemptEnd::RetryAfter(Duration::from_hours(1), "busy".to_owned());
        assert_eq!(next(0, after, 10, true), retry(3_610, "busy"));
        // A day old, by a clock that is trusted or not.
        assert_eq!(failed(next(0, error(), 86_400, true)), GaveUp::Exhausted);
        assert_eq!(
            next(0, error(), 86_400, false),
            retry(86_401, "no connection")
        );
        // A clock that has gone back makes no age.
        assert_eq!(
            next(0, error(), -90_000, true),
            retry(-89_999, "no connection")
        );
    }

    #[test]
    fn other_ends_are_final_or_released() {
        let next = |policy: &TaskPolicy, end| next_step(policy, &row(0, 0), end, at(1), true, 0.0);
        let default = TaskPolicy::DEFAULT;
        let text = || "text".to_owned();
        let fail = next(&default, AttemptEnd::Fail(text()));
        assert_eq!(failed(fail), GaveUp::Failed);
        let panicked = next(&default, AttemptEnd::Panicked(text()));
        assert_eq!(failed(panicked), GaveUp::Panicked);
        let stopped = |cancelled| next(&default, AttemptEnd::Stopped { cancelled });
        assert_eq!(stopped(true), NextStep::Cancelled);
        assert_eq!(stopped(false), NextStep::Release);
        let unknown = || AttemptEnd::Unknown(text());
        assert_eq!(
            next(&default, unknown()),
            NextStep::Unknown { error: text() }
        );
        let again = TaskPolicy {
            on_unknown: OnUnknown::Retry,
            ..default
        };
        assert!(matches!(next(&again, unknown()), NextStep::Retry { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn backoffs_stay_within_their_bounds(attempts in 1..u32::MAX, jitter in -1.0..2.0_f64) {
            let policy = TaskPolicy::DEFAULT;
            let (backoff, longest) = (policy.backoff(attempts, jitter), policy.backoff(attempts, 1.0));
            prop_assert!(backoff >= policy.initial_backoff / 2);
            prop_assert!(backoff <= longest && longest <= policy.max_backoff);
            prop_assert!(backoff >= longest / 2);
            prop_assert!(policy.backoff(attempts.saturating_add(1), 1.0) >= longest);
        }
    }
}
