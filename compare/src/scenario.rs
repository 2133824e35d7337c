//! What is compared: how the consumers are, the two ways to have something done, and how it may end for whoever wants it.

use std::time::Duration;

use doorstep_messaging::PublishOutcome;
use serde::Serialize;

use crate::items::{LoadPlan, Operation, UPDATES_FOR_A_CHECKOUT};

/// How the consumers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// They work without a pause.
    Healthy,
    /// Each item takes them a while, and they keep up.
    Slow,
    /// Each item takes them a while, and several times as much is offered as they can do.
    Overloaded,
    /// They were killed before, and are started again after the load.
    Down,
}

impl Scenario {
    /// All, in the order of tables.
    pub(crate) const ALL: [Self; 4] = [Self::Healthy, Self::Slow, Self::Overloaded, Self::Down];

    /// What it is called in tables.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Healthy => "well",
            Self::Slow => "slow",
            Self::Overloaded => "overloaded",
            Self::Down => "down",
        }
    }
}

/// How something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The user is answered once it is done: a command over RPC.
    Sync,
    /// The user is answered once the broker keeps it: an event, published and confirmed.
    Async,
}

impl Mode {
    /// Both, in the order of tables.
    pub(crate) const ALL: [Self; 2] = [Self::Sync, Self::Async];

    /// What it is called in tables.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

/// Why a user was told an error. Some of it was done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationFailure {
    /// The role said no.
    Refused,
    /// Nobody consumes what is asked.
    NoResponder,
    /// The deadline came before the answer.
    TimedOut,
    /// The role, or its queue, had too much to do.
    Overloaded,
    /// The broker was away.
    Unreachable,
    /// The answer could not be read.
    Malformed,
    /// No queue took the event.
    Unroutable,
    /// The queue for the event was full.
    Full,
    /// The broker did not confirm the event in time.
    Unconfirmed,
    /// The broker took nothing, for want of memory or disk.
    Blocked,
}

impl OperationFailure {
    /// What an outcome means to whoever published; `None` where all is well.
    pub(crate) fn of_outcome(outcome: PublishOutcome) -> Option<Self> {
        match outcome {
            PublishOutcome::Confirmed => None,
            PublishOutcome::Unroutable => Some(Self::Unroutable),
            PublishOutcome::Rejected | PublishOutcome::Unpublishable => Some(Self::Full),
            PublishOutcome::TimedOut => Some(Self::Unconfirmed),
            PublishOutcome::Disconnected => Some(Self::Unreachable),
            PublishOutcome::Blocked => Some(Self::Blocked),
        }
    }

    /// In words, behind a number.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoResponder => "with nobody to answer",
            Self::TimedOut => "not answered in time",
            Self::Overloaded => "turned away as too many",
            Self::Unreachable => "without a broker",
            Self::Malformed => "answered in no known form",
            Self::Unroutable => "without a queue",
            Self::Full => "refused by a full queue",
            Self::Unconfirmed => "not confirmed in time",
            Self::Blocked => "blocked by the broker",
        }
    }
}

/// How much is offered, and how long it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadProfile {
    /// Checkouts in a second, where the consumers keep up.
    pub(crate) rate: u32,
    /// What a checkout takes where the consumers are slow.
    pub(crate) delay: Duration,
    /// How long is offered.
    pub(crate) lasts: Duration,
}

/// How many times what they can do is offered to consumers that are overloaded.
pub(crate) const OVERLOAD: f64 = 3.0;

impl LoadProfile {
    /// How much is offered.
    pub(crate) fn load(&self, scenario: Scenario) -> LoadPlan {
        let capacity = 1.0 / self.delay.as_secs_f64();
        let checkouts_a_second = match scenario {
            Scenario::Overloaded => OVERLOAD * capacity,
            Scenario::Healthy | Scenario::Slow | Scenario::Down => f64::from(self.rate),
        };
        LoadPlan {
            checkouts_a_second,
            lasts: self.lasts,
        }
    }

    /// What an item takes. There are as many times more updates as each takes less, so both roles have the same to do.
    pub(crate) fn takes(&self, scenario: Scenario, want: Operation) -> Duration {
        match (scenario, want) {
            (Scenario::Healthy | Scenario::Down, _) => Duration::ZERO,
            (_, Operation::Checkout) => self.delay,
            (_, Operation::Update) => self.delay / UPDATES_FOR_A_CHECKOUT,
        }
    }

    /// How much of their time slow consumers work.
    pub(crate) fn share_of_capacity(&self) -> f64 {
        f64::from(self.rate) * self.delay.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_consumers_keep_up_and_overloaded_ones_cannot() {
        let pace = LoadProfile {
            rate: 20,
            delay: Duration::from_millis(20),
            lasts: Duration::from_secs(8),
        };
        for want in Operation::ALL {
            let times = match want {
                Operation::Checkout => 1.0,
                Operation::Update => f64::from(UPDATES_FOR_A_CHECKOUT),
            };
            let share = |scenario| {
                let takes = pace.takes(scenario, want).as_secs_f64();
                pace.load(scenario).checkouts_a_second * times * takes
            };
            assert!((share(Scenario::Slow) - pace.share_of_capacity()).abs() < 0.001);
            assert!((share(Scenario::Overloaded) - OVERLOAD).abs() < 0.001);
            assert_eq!(pace.takes(Scenario::Down, want), Duration::ZERO);
        }
    }
}
