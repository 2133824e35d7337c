//! The time elapsed since the `now` of a call: the call may wait for locks and its store before it calls a handler.

use std::time::{Duration, Instant};

use doorstep_event::Timestamp;

/// The clock within one call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// Time passes from this instant.
    Running(Instant),
    /// Time passes only between calls.
    Frozen,
}

impl Clock {
    /// Marks the start of a call.
    pub(super) fn start(&mut self) {
        if let Self::Running(began) = self {
            *began = Instant::now();
        }
    }

    /// Returns the present time, given the `now` at the start of the call.
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
