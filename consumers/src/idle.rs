//! When everything has been worked: the decision of `run --until-idle`, as a pure function over what was seen.

use std::time::{Duration, Instant};

/// What one look at a role has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleSample {
    /// Messages ready in the role's queues; `None` where they could not be looked at.
    pub(crate) ready: Option<u64>,
    /// Whether the role takes deliveries.
    pub(crate) takes: Intake,
    /// Whether another process worked the role's queues when this one joined: what that has taken is known to nobody else.
    pub(crate) beside_others: bool,
    /// Deliveries that the role has taken and not settled.
    pub(crate) unsettled: usize,
    /// Rows in the outbox.
    pub(crate) owed: u64,
    /// Held events that become due by themselves, and scheduled ones that are due.
    pub(crate) held_due: u64,
    /// The store's count of commits: another one means that something was written, perhaps by another process.
    pub(crate) commits: u64,
}

/// Whether a role takes deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// It does.
    Yes,
    /// It takes none until this table of its store has room. Whatever waits for it can wait for ever.
    Full(&'static str),
    /// Not now: it starts, is paused, or has lost its connection.
    NotNow,
}

impl RoleSample {
    fn is_quiet(&self) -> bool {
        let deliveries = match self.takes {
            Intake::Yes => self.ready == Some(0) && self.unsettled == 0,
            // Only what makes room by itself is waited for.
            Intake::Full(_) => true,
            Intake::NotNow => false,
        };
        deliveries && self.owed == 0 && self.held_due == 0
    }
}

/// One look at all roles.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it was begun.
    pub(crate) began: Instant,
    /// When it was done.
    pub(crate) ended: Instant,
    /// What it saw; `None` where a store could not be looked at.
    pub(crate) roles: Option<Vec<RoleSample>>,
}

/// How many heartbeats it takes until the broker has certainly given up a process that shows no sign of life, and what that had taken
/// is ready again: three, and a margin.
const HEARTBEATS: u32 = 4;

/// Remembers since when everything has been quiet.
#[derive(Debug)]
pub(crate) struct IdleWatch {
    window: Duration,
    window_beside_others: Duration,
    quiet: Option<QuietSince>,
}

#[derive(Debug)]
struct QuietSince {
    since: Instant,
    commits: Vec<u64>,
}

impl IdleWatch {
    /// Nothing was seen yet.
    ///
    /// A process that is alive and has taken something writes what becomes of it, which is seen. One that is frozen or cut off writes
    /// nothing until the broker has given it up and hands what it had taken to another. So beside others it has to be quiet for longer
    /// than that takes.
    pub(crate) fn new(window: Duration, heartbeat: Duration) -> Self {
        Self {
            window,
            window_beside_others: window.max(heartbeat.saturating_mul(HEARTBEATS)),
            quiet: None,
        }
    }

    /// Takes in a look. Returns whether all was quiet, and nothing was written, for the whole window: from the end of the first quiet
    /// look to the beginning of this one.
    pub(crate) fn observe(&mut self, look: &Sample) -> bool {
        let Some(roles) = look
            .roles
            .as_ref()
            .filter(|roles| roles.iter().all(RoleSample::is_quiet))
        else {
            self.quiet = None;
            return false;
        };
        let window = if roles.iter().any(|role| role.beside_others) {
            self.window_beside_others
        } else {
            self.window
        };
        let commits: Vec<u64> = roles.iter().map(|role| role.commits).collect();
        match &self.quiet {
            Some(quiet) if quiet.commits == commits => {
                look.began.saturating_duration_since(quiet.since) >= window
            }
            _ => {
                self.quiet = Some(QuietSince {
                    since: look.ended,
                    commits,
                });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(3);
    const HEARTBEAT: Duration = Duration::from_secs(10);

    fn quiet() -> RoleSample {
        RoleSample {
            ready: Some(0),
            takes: Intake::Yes,
            beside_others: false,
            unsettled: 0,
            owed: 0,
            held_due: 0,
            commits: 7,
        }
    }

    struct Clock(Instant, IdleWatch);

    impl Clock {
        fn start() -> Self {
            Self(Instant::now(), IdleWatch::new(WINDOW, HEARTBEAT))
        }

        /// A look that is begun after so many seconds and takes a tenth of one.
        fn see(&mut self, seconds: f64, roles: &[RoleSample]) -> bool {
            self.look(seconds, Some(roles.to_vec()))
        }

        fn look(&mut self, seconds: f64, roles: Option<Vec<RoleSample>>) -> bool {
            let began = self.0 + Duration::from_secs_f64(seconds);
            let ended = began + Duration::from_millis(100);
            self.1.observe(&Sample {
                began,
                ended,
                roles,
            })
        }
    }

    #[test]
    fn quiet_for_the_whole_window_is_idle() {
        let mut clock = Clock::start();
        assert!(!clock.see(0.0, &[quiet(), quiet()]));
        assert!(!clock.see(2.0, &[quiet(), quiet()]));
        assert!(
            !clock.see(3.0, &[quiet(), quiet()]),
            "not since the first look's end"
        );
        assert!(clock.see(3.1, &[quiet(), quiet()]));
    }

    #[test]
    fn whatever_is_still_to_be_done_begins_the_window_anew() {
        let busy = [
            RoleSample {
                ready: Some(1),
                ..quiet()
            },
            RoleSample {
                ready: None,
                ..quiet()
            },
            RoleSample {
                takes: Intake::NotNow,
                ..quiet()
            },
            RoleSample {
                unsettled: 1,
                ..quiet()
            },
            RoleSample { owed: 1, ..quiet() },
            RoleSample {
                held_due: 1,
                ..quiet()
            },
        ];
        for busy in busy {
            let mut clock = Clock::start();
            assert!(!clock.see(0.0, &[quiet(), quiet()]));
            assert!(!clock.see(2.0, &[quiet(), busy.clone()]), "{busy:?}");
            assert!(!clock.see(4.0, &[quiet(), quiet()]), "{busy:?}");
            assert!(!clock.see(6.0, &[quiet(), quiet()]), "{busy:?}");
            assert!(clock.see(7.2, &[quiet(), quiet()]), "{busy:?}");
        }
    }

    #[test]
    fn beside_others_it_has_to_be_quiet_until_the_broker_has_given_up_whoever_is_dead() {
        let beside = RoleSample {
            beside_others: true,
            ..quiet()
        };
        let mut clock = Clock::start();
        let roles = [quiet(), beside];
        assert!(!clock.see(0.0, &roles));
        assert!(!clock.see(39.9, &roles));
        assert!(clock.see(40.1, &roles));
    }

    #[test]
    fn a_full_role_is_idle_once_nothing_makes_room_by_itself() {
        let full = RoleSample {
            ready: Some(12),
            takes: Intake::Full("dead letters"),
            unsettled: 2_000,
            ..quiet()
        };
        for busy in [
            RoleSample {
                owed: 1,
                ..full.clone()
            },
            RoleSample {
                held_due: 1,
                ..full
            },
        ] {
            let mut clock = Clock::start();
            assert!(!clock.see(0.0, std::slice::from_ref(&busy)));
            assert!(!clock.see(9.0, &[busy]));
        }
        let mut clock = Clock::start();
        assert!(!clock.see(0.0, std::slice::from_ref(&full)));
        assert!(clock.see(3.1, &[full]));
    }

    #[test]
    fn a_commit_by_anybody_begins_the_window_anew() {
        let mut clock = Clock::start();
        let written = RoleSample {
            commits: 8,
            ..quiet()
        };
        assert!(!clock.see(0.0, &[quiet()]));
        assert!(!clock.see(4.0, std::slice::from_ref(&written)));
        assert!(!clock.see(6.0, std::slice::from_ref(&written)));
        assert!(clock.see(7.2, &[written]));
    }

    #[test]
    fn a_store_that_cannot_be_looked_at_is_not_idle() {
        let mut clock = Clock::start();
        assert!(!clock.see(0.0, &[quiet()]));
        assert!(!clock.look(3.5, None));
        assert!(!clock.see(4.0, &[quiet()]));
    }
}
