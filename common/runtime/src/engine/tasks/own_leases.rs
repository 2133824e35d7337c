//! The leases of this process, by its monotonic clock.

use std::time::{Duration, Instant};

/// The share of a lease after which it is renewed, and before whose end attempts are asked to stop.
const QUARTER: u32 = 4;

/// The status of a process's leases. All of them end together, since one heartbeat renews all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStatus {
    /// They hold.
    Held,
    /// They end soon: attempts are asked to stop.
    Ending,
    /// They have ended, whatever the store says: attempts are dropped.
    Ended,
}

/// The leases of this process. They hold for the lease's length after the beginning of the last heartbeat that the
/// store has confirmed: another process cannot have seen that heartbeat earlier.
#[derive(Debug)]
pub struct OwnLeases {
    length: Duration,
    /// The beginning of the last confirmed heartbeat; `None` if the process has no leases.
    renewed: Option<Instant>,
}

impl OwnLeases {
    /// Creates the record of a process that has no leases yet.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            renewed: None,
        }
    }

    /// Records a confirmed heartbeat, or a claim that returned tasks, by the time at which it began. Confirmations may
    /// arrive in any order.
    pub fn renew(&mut self, began: Instant) {
        self.renewed = self.renewed.max(Some(began));
    }

    /// Records that the store knows the holder no longer.
    pub fn lose(&mut self) {
        self.renewed = None;
    }

    /// Returns the status of the leases.
    #[must_use]
    pub fn status(&self, now: Instant) -> LeaseStatus {
        let age = self
            .renewed
            .map(|renewed| now.saturating_duration_since(renewed));
        match age {
            Some(age) if age < self.length - self.length / QUARTER => LeaseStatus::Held,
            Some(age) if age < self.length => LeaseStatus::Ending,
            _ => LeaseStatus::Ended,
        }
    }

    /// Returns the time at which the leases end, `None` if there are none.
    #[must_use]
    pub fn end(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.length)
    }

    /// Returns the time at which the next heartbeat begins, `None` if there is nothing to renew.
    #[must_use]
    pub fn next_beat(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.interval())
    }

    /// Returns the interval of heartbeats, and of looks at those of other holders.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.length / QUARTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);

    #[test]
    fn leases_hold_from_the_beginning_of_a_heartbeat() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut own = OwnLeases::new(LEASE);
        assert_eq!(
            (own.status(start), own.next_beat()),
            (LeaseStatus::Ended, None)
        );
        own.renew(at(0));
        // The time of the confirmation does not matter.
        assert_eq!(own.status(at(14)), LeaseStatus::Held);
        assert_eq!(own.status(at(15)), LeaseStatus::Ending);
        assert_eq!(own.status(at(19)), LeaseStatus::Ending);
        assert_eq!(own.status(at(20)), LeaseStatus::Ended);
        assert_eq!((own.next_beat(), own.end()), (Some(at(5)), Some(at(20))));
        own.renew(at(10));
        own.renew(at(6));
        assert_eq!(own.status(at(24)), LeaseStatus::Held);
        own.lose();
        assert_eq!(own.status(at(11)), LeaseStatus::Ended);
        own.renew(at(11));
        assert_eq!(own.status(at(12)), LeaseStatus::Held);
    }
}
