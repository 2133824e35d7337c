//! The watch over the heartbeats of other processes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use doorstep_store::{HolderRow, TaskHolder};

/// Finds holders whose heartbeat has stopped.
///
/// A holder is silent if one heartbeat was its last for a quarter longer than a lease, by this process's monotonic
/// clock. The quarter allows for clocks that run at different rates. No heartbeat of a store has the number of another,
/// so a holder that was gone and is back is never taken for a silent one.
#[derive(Debug)]
pub struct LeaseWatch {
    own: TaskHolder,
    silence: Duration,
    /// The last heartbeat seen of each other holder, with the time at which it had been seen first.
    seen: HashMap<TaskHolder, (u64, Instant)>,
}

impl LeaseWatch {
    /// Creates the watch of a process that is a holder itself, over leases of this length.
    #[must_use]
    pub fn new(own: TaskHolder, length: Duration) -> Self {
        Self {
            own,
            silence: length + length / 4,
            seen: HashMap::new(),
        }
    }

    /// Takes a reading of all holders, with the times at which the read began and ended. Returns the silent holders,
    /// each with its last heartbeat.
    ///
    /// The reading is of a moment between the two times. So a new heartbeat counts from the end of its first reading,
    /// and an old one up to the beginning of this reading.
    pub fn read(
        &mut self,
        holders: &[HolderRow],
        began: Instant,
        ended: Instant,
    ) -> Vec<(TaskHolder, u64)> {
        let mut silent = Vec::new();
        let mut seen = HashMap::with_capacity(holders.len());
        for row in holders.iter().filter(|row| row.holder != self.own) {
            let first = match self.seen.get(&row.holder) {
                Some((beat, first)) if *beat == row.beat => *first,
                _ => ended,
            };
            if began.saturating_duration_since(first) >= self.silence {
                silent.push((row.holder, row.beat));
            }
            seen.insert(row.holder, (row.beat, first));
        }
        self.seen = seen;
        silent
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{Epoch, Timestamp};
    use proptest::prelude::*;

    use super::{
        super::own_leases::{LeaseStatus, OwnLeases},
        *,
    };

    const LEASE: Duration = Duration::from_secs(20);

    fn holder(number: u64) -> TaskHolder {
        TaskHolder(Epoch::new(number, 0).unwrap())
    }

    fn row(number: u64, beat: u64) -> HolderRow {
        HolderRow {
            holder: holder(number),
            beat,
            running: 1,
            process: String::new(),
            renewed: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_unchanged_heartbeat_is_silence() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = LeaseWatch::new(holder(9), LEASE);
        let both = [row(1, 4), row(2, 5), row(9, 6)];
        assert_eq!(watch.read(&both, at(0), at(1)), []);
        assert_eq!(watch.read(&both, at(25), at(30)), []);
        let beaten = [row(1, 4), row(2, 7), row(9, 6)];
        assert_eq!(watch.read(&beaten, at(26), at(27)), [(holder(1), 4)]);
        assert_eq!(watch.read(&beaten, at(51), at(52)), [(holder(1), 4)]);
        // Each new heartbeat begins the watch anew, also that of a holder that was gone.
        assert_eq!(watch.read(&[row(2, 7)], at(52), at(53)), [(holder(2), 7)]);
        let back = [row(1, 8), row(2, 9)];
        assert_eq!(watch.read(&back, at(90), at(91)), []);
        assert_eq!(watch.read(&back, at(115), at(115)), []);
        assert_eq!(watch.read(&back, at(116), at(116)).len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the rates of two clocks and the times of reads and heartbeats are, the holder has stopped by its
        /// clock when the observer takes over by its own.
        #[test]
        fn a_holder_stops_before_a_take_over(
            (holder_rate, observer_rate) in (0.9..1.1_f64, 0.9..1.1_f64),
            beats in prop::collection::vec((1..12_000_u64, 0..5_000_u64), 1..6),
            reads in prop::collection::vec((1..9_000_u64, 0..4_000_u64), 1..30),
        ) {
            let base = Instant::now();
            let clock = |rate: f64, true_time: u64| {
                base + Duration::from_millis(true_time).mul_f64(rate)
            };
            // Each heartbeat begins at a time and reaches the store later.
            let mut written = Vec::new();
            let mut begins = 0;
            for (number, (pause, takes)) in (1_u64..).zip(beats) {
                begins += pause;
                written.push((begins + takes, begins, number));
                begins += takes;
            }
            let mut watch = LeaseWatch::new(holder(9), LEASE);
            let mut now = 0;
            for (pause, takes) in reads {
                now += pause;
                // The snapshot is of any moment of the read; the earliest is the one that sees the oldest heartbeat.
                let (began, ended) = (now, now + takes);
                now = ended;
                for snapshot in [began, ended] {
                    let last = written.iter().rev().find(|(at, ..)| *at <= snapshot);
                    let Some((_, beat_began, number)) = last else { continue };
                    let silent = watch.read(
                        &[row(1, *number)],
                        clock(observer_rate, began),
                        clock(observer_rate, ended),
                    );
                    // The take-over happens at once, and succeeds only if no later heartbeat is in the store.
                    let is_last = written.iter().all(|(at, _, other)| other <= number || *at > ended);
                    if silent.is_empty() || !is_last {
                        continue;
                    }
                    let mut own = OwnLeases::new(LEASE);
                    own.renew(clock(holder_rate, *beat_began));
                    prop_assert_eq!(own.status(clock(holder_rate, ended)), LeaseStatus::Ended);
                }
            }
        }
    }
}
