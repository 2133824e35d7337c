//! The wall clock, checked against the monotonic clock, so that a wrong wall clock neither prunes nor expires anything
//! at once.

use std::time::{Duration, Instant};

use doorstep_event::Timestamp;
use jiff::SignedDuration;

use crate::limits::MAX_CLOCK_SKEW;

/// The difference between the two clocks that counts as a jump. A few smaller ones together stay within
/// [`MAX_CLOCK_SKEW`].
const MIN_JUMP: SignedDuration = SignedDuration::from_mins(10);
/// The time for which the wall clock must have run evenly before it prunes or expires anything.
const STEADY: Duration = Duration::from_hours(1);
/// The same while a table is half full. Longer than any command waits in its process for its reply.
const STEADY_IF_CROWDED: Duration = Duration::from_mins(1);

/// The wall clock of a process.
#[derive(Debug)]
pub(super) struct WallClock {
    /// A reading of both clocks at one moment. Renewed regularly, so that slow corrections do not add up to a jump.
    anchor: (Timestamp, Instant),
    steady_since: Instant,
    /// The last reading of the monotonic clock.
    read: Instant,
    /// The last jump, unless the clock has run evenly since.
    jump: Option<SignedDuration>,
}

impl WallClock {
    pub(super) fn new(now: Timestamp, at: Instant) -> Self {
        Self {
            anchor: (now, at),
            steady_since: at,
            read: at,
            jump: None,
        }
    }

    /// Takes a reading of both clocks. Returns the distance by which the wall clock has jumped, forwards or back, if it
    /// has.
    pub(super) fn read(&mut self, now: Timestamp, at: Instant) -> Option<SignedDuration> {
        self.read = at;
        let elapsed = at.saturating_duration_since(self.anchor.1);
        let expected = self.anchor.0.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        let off = now.duration_since(expected);
        let jump = (off.abs() > MIN_JUMP).then_some(off);
        if jump.is_some() {
            self.steady_since = at;
            self.jump = jump;
        }
        if jump.is_some() || elapsed > MAX_CLOCK_SKEW {
            self.anchor = (now, at);
        }
        if self.is_steady() {
            self.jump = None;
        }
        jump
    }

    /// Returns whether deferred events may expire by it.
    pub(super) fn is_steady(&self) -> bool {
        self.steady_for() >= STEADY
    }

    /// Returns whether seen ids and replies may be pruned by it; later if there is room for them.
    pub(super) fn may_prune(&self, is_crowded: bool) -> bool {
        let least = if is_crowded {
            STEADY_IF_CROWDED
        } else {
            STEADY
        };
        self.steady_for() >= least
    }

    /// Describes the last jump and its consequences, until the clock has run evenly again.
    pub(super) fn degraded_reason(&self) -> Option<String> {
        let jump = self.jump?;
        let direction = if jump.is_positive() { "ahead" } else { "back" };
        let hours = jump.abs().as_hours();
        let minutes = jump.abs().as_mins() % 60;
        Some(format!(
            "the clock has jumped {direction} by {hours} h {minutes} min, or this machine was suspended: until it has run evenly for an hour, \
             nothing is pruned and no waiting event expires; if it is wrong, set it right"
        ))
    }

    fn steady_for(&self) -> Duration {
        self.read.saturating_duration_since(self.steady_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// A pair of clocks that a test advances by hand.
    struct Clocks {
        wall: Timestamp,
        at: Instant,
        clock: WallClock,
    }

    impl Clocks {
        fn new() -> Self {
            let (wall, at) = ("2026-11-23T10:00:00Z".parse().unwrap(), Instant::now());
            let clock = WallClock::new(wall, at);
            Self { wall, at, clock }
        }

        /// Advances both clocks by this many minutes.
        fn run(&mut self, minutes: u32) {
            for _ in 0..minutes {
                self.at += MINUTE;
                self.wall = self.wall.checked_add(MINUTE).unwrap();
                assert_eq!(self.clock.read(self.wall, self.at), None);
            }
        }

        /// Sets the wall clock.
        fn set(&mut self, by: SignedDuration) -> Option<SignedDuration> {
            self.wall = self.wall.checked_add(by).unwrap();
            self.clock.read(self.wall, self.at)
        }
    }

    #[test]
    fn fresh_start_neither_prunes_nor_expires() {
        let mut clocks = Clocks::new();
        assert!(!clocks.clock.may_prune(true));
        clocks.run(1);
        assert!(clocks.clock.may_prune(true) && !clocks.clock.may_prune(false));
        clocks.run(58);
        assert!(!clocks.clock.is_steady());
        clocks.run(1);
        assert!(clocks.clock.is_steady() && clocks.clock.may_prune(false));
        assert_eq!(clocks.clock.degraded_reason(), None);
    }

    #[test]
    fn jump_either_way_counts_until_the_clock_steadies() {
        for (days, direction) in [(10, "ahead by 240 h"), (-10, "back by 240 h")] {
            let mut clocks = Clocks::new();
            clocks.run(300);
            let jump = SignedDuration::from_hours(24 * days);
            assert_eq!(clocks.set(jump), Some(jump));
            assert!(!clocks.clock.is_steady() && !clocks.clock.may_prune(true));
            let trouble = clocks.clock.degraded_reason().unwrap();
            assert!(trouble.contains(direction), "{trouble}");
            clocks.run(30);
            assert!(clocks.clock.degraded_reason().is_some());
            // Setting it right is a jump, too.
            assert_eq!(clocks.set(-jump), Some(-jump));
            clocks.run(59);
            assert!(!clocks.clock.is_steady());
            clocks.run(1);
            assert!(clocks.clock.is_steady());
            assert_eq!(clocks.clock.degraded_reason(), None);
        }
    }

    #[test]
    fn small_corrections_are_no_jump() {
        let mut clocks = Clocks::new();
        for _ in 0..500 {
            clocks.run(60);
            assert_eq!(clocks.set(SignedDuration::from_secs(4)), None);
        }
        assert!(clocks.clock.is_steady());
    }

    #[test]
    fn many_small_steps_add_up_to_a_jump() {
        let mut clocks = Clocks::new();
        clocks.run(10);
        let step = SignedDuration::from_mins(4);
        assert_eq!((clocks.set(step), clocks.set(step)), (None, None));
        assert!(clocks.set(step).is_some());
    }
}
