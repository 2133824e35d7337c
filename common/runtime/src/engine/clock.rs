//! How much later it is than the `now` that a call was given: it may wait for others and for its store before it asks a handler.

use std::time::{Duration, Instant};

use doorstep_event::Timestamp;

/// The time since a call has begun.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// Time passes since then.
    Running(Instant),
    /// Time passes only from one call to the next.
    Frozen,
}

impl Clock {
    /// A call begins.
    pub(super) fn start(&mut self) {
        if let Self::Running(began) = self {
            *began = Instant::now();
        }
    }

    /// What the time is, `now` being when the call has begun.
    pub(super) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Running(began) => now.checked_add(began.elapsed()).unwrap_or(Timestamp::MAX),
            Self::Frozen => now,
        }
    }
}

pub(super) fn saturating_sub(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

pub(super) fn saturating_add(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}
