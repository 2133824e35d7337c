//! When everything has been worked: the decision of `run --until-idle`, as a pure function over what was seen.

use std::time::{Duration, Instant};

/// What one look at a role has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleLook {
    /// Messages ready in the role's queues; `None` where they could not be looked at.
    pub(crate) ready: Option<u64>,
    /// Whether the role takes deliveries: one that starts, is paused or is full has not done its work.
    pub(crate) taking: bool,
    /// Deliveries that the role has taken and not settled.
    pub(crate) unsettled: usize,
    /// Rows in the outbox.
    pub(crate) owed: u64,
    /// Held events that become due by themselves, and scheduled ones that are due.
    pub(crate) held_due: u64,
    /// The store's count of commits: another one means that something was written, perhaps by another process.
    pub(crate) commits: u64,
}

impl RoleLook {
    fn is_quiet(&self) -> bool {
        self.ready == Some(0)
            && self.taking
            && self.unsettled == 0
            && self.owed == 0
            && self.held_due == 0
    }
}

/// One look at all roles.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// When it was begun.
    pub(crate) began: Instant,
    /// When it was done.
    pub(crate) ended: Instant,
    /// What it saw; `None` where a store could not be looked at.
    pub(crate) roles: Option<Vec<RoleLook>>,
}

/// Remembers since when everything has been quiet.
#[derive(Debug)]
pub(crate) struct IdleWatch {
    window: Duration,
    quiet: Option<Quiet>,
}

#[derive(Debug)]
struct Quiet {
    since: Instant,
    commits: Vec<u64>,
}

impl IdleWatch {
    /// Nothing was seen yet.
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            quiet: None,
        }
    }

    /// Takes in a look. Returns whether all was quiet, and nothing was written, for the whole window: from the end of the first quiet
    /// look to the beginning of this one.
    pub(crate) fn see(&mut self, look: &Look) -> bool {
        let Some(roles) = look
            .roles
            .as_ref()
            .filter(|roles| roles.iter().all(RoleLook::is_quiet))
        else {
            self.quiet = None;
            return false;
        };
        let commits: Vec<u64> = roles.iter().map(|role| role.commits).collect();
        match &self.quiet {
            Some(quiet) if quiet.commits == commits => {
                look.began.saturating_duration_since(quiet.since) >= self.window
            }
            _ => {
                self.quiet = Some(Quiet {
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

    fn quiet() -> RoleLook {
        RoleLook {
            ready: Some(0),
            taking: true,
            unsettled: 0,
            owed: 0,
            held_due: 0,
            commits: 7,
        }
    }

    struct Clock(Instant, IdleWatch);

    impl Clock {
        fn start() -> Self {
            Self(Instant::now(), IdleWatch::new(WINDOW))
        }

        /// A look that is begun after so many seconds and takes a tenth of one.
        fn see(&mut self, seconds: f64, roles: &[RoleLook]) -> bool {
            self.look(seconds, Some(roles.to_vec()))
        }

        fn look(&mut self, seconds: f64, roles: Option<Vec<RoleLook>>) -> bool {
            let began = self.0 + Duration::from_secs_f64(seconds);
            let ended = began + Duration::from_millis(100);
            self.1.see(&Look {
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
            RoleLook {
                ready: Some(1),
                ..quiet()
            },
            RoleLook {
                ready: None,
                ..quiet()
            },
            RoleLook {
                taking: false,
                ..quiet()
            },
            RoleLook {
                unsettled: 1,
                ..quiet()
            },
            RoleLook { owed: 1, ..quiet() },
            RoleLook {
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
    fn a_commit_by_anybody_begins_the_window_anew() {
        let mut clock = Clock::start();
        let written = RoleLook {
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
