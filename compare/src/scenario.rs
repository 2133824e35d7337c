//! The scenarios, the two modes, and the errors that a user may get.

use std::time::Duration;

use doorstep_messaging::PublishOutcome;
use serde::Serialize;

use crate::items::{LoadPlan, Operation, UPDATES_FOR_A_CHECKOUT};

/// The state of the consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// They work without a pause.
    Healthy,
    /// Each item takes a while, and the consumers keep up.
    Slow,
    /// Each item takes a while, and the load is several times their capacity.
    Overloaded,
    /// They were killed before the load, and start again after it.
    Down,
}

impl Scenario {
    /// All, in the order of tables.
    pub(crate) const ALL: [Self; 4] = [Self::Healthy, Self::Slow, Self::Overloaded, Self::Down];

    /// The name of the scenario in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Healthy => "well",
            Self::Slow => "slow",
            Self::Overloaded => "overloaded",
            Self::Down => "down",
        }
    }
}

/// The mode in which work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// A command over RPC: the user gets a reply once the work is done.
    Sync,
    /// An event: the broker confirms it once it is stored.
    Async,
}

impl Mode {
    /// Both, in the order of tables.
    pub(crate) const ALL: [Self; 2] = [Self::Sync, Self::Async];

    /// The name of the mode in tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

/// The error that a user got. Some of the work was done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationFailure {
    /// The role rejected the command.
    Refused,
    /// No consumer takes the commands.
    NoResponder,
    /// The deadline passed before the reply.
    TimedOut,
    /// The role is overloaded, or its queue full.
    Overloaded,
    /// The broker was not available.
    Unreachable,
    /// The reply could not be decoded.
    Malformed,
    /// No queue took the event.
    Unroutable,
    /// The queue for the event was full.
    Full,
    /// The broker did not confirm the event in time.
    Unconfirmed,
    /// The broker blocked publishing, for want of memory or disk.
    Blocked,
}

impl OperationFailure {
    /// Returns the failure of a publish outcome, `None` if it was confirmed.
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

    /// Describes the failure, to follow a number.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoResponder => "without a consumer",
            Self::TimedOut => "without a reply in time",
            Self::Overloaded => "rejected as overloaded",
            Self::Unreachable => "without a broker",
            Self::Malformed => "with an undecodable reply",
            Self::Unroutable => "without a queue",
            Self::Full => "rejected by a full queue",
            Self::Unconfirmed => "not confirmed in time",
            Self::Blocked => "blocked by the broker",
        }
    }
}

/// The offered load, and the time that work takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadProfile {
    /// Checkouts per second, if the consumers keep up.
    pub(crate) rate: u32,
    /// The time of a checkout with slow consumers.
    pub(crate) delay: Duration,
    /// The duration of the load.
    pub(crate) lasts: Duration,
}

/// The load of overloaded consumers, as a multiple of their capacity.
pub(crate) const OVERLOAD: f64 = 3.0;

impl LoadProfile {
    /// Returns the load of a scenario.
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

    /// Returns the time that an item takes. There are as many times more updates as each takes less, so both roles have
    /// the same work.
    pub(crate) fn takes(&self, scenario: Scenario, want: Operation) -> Duration {
        match (scenario, want) {
            (Scenario::Healthy | Scenario::Down, _) => Duration::ZERO,
            (_, Operation::Checkout) => self.delay,
            (_, Operation::Update) => self.delay / UPDATES_FOR_A_CHECKOUT,
        }
    }

    /// Returns the utilization of slow consumers.
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
