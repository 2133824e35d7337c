//! The idle check of `run --exit-when-idle`, as a pure function over samples of the roles.

use std::time::{Duration, Instant};

/// One sample of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleSample {
    /// Messages ready in the role's queues; `None` if the queues could not be read.
    pub(crate) ready: Option<u64>,
    pub(crate) takes: Intake,
    /// Set if another process consumed from the role's queues when this one joined. Its unacked deliveries cannot be
    /// seen from here.
    pub(crate) shares_queue: bool,
    /// Deliveries to the role that are unacked.
    pub(crate) unacked: usize,
    /// Rows in the outbox.
    pub(crate) outbox_rows: u64,
    /// Deferred events that become due by themselves, and scheduled ones that are due.
    pub(crate) deferred_due: u64,
    /// Tasks that are ready or running.
    pub(crate) live_tasks: u64,
    /// The store's count of commits: an increase means a write, perhaps by another process.
    pub(crate) commits: u64,
}

/// The state of a role's consuming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// It takes deliveries.
    Yes,
    /// It takes none until this table of its store has room. The messages in its queue may wait for ever.
    Full(&'static str),
    /// Not at present: it is starting, paused or disconnected.
    NotNow,
}

impl RoleSample {
    fn is_quiet(&self) -> bool {
        let deliveries = match self.takes {
            Intake::Yes => self.ready == Some(0) && self.unacked == 0,
            // A full table blocks nothing that could still drain.
            Intake::Full(_) => true,
            Intake::NotNow => false,
        };
        deliveries && self.outbox_rows == 0 && self.deferred_due == 0 && self.live_tasks == 0
    }
}

/// One sample of all roles.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The start of the sample.
    pub(crate) began: Instant,
    /// The end of the sample.
    pub(crate) ended: Instant,
    /// The samples of the roles; `None` if a store could not be read.
    pub(crate) roles: Option<Vec<RoleSample>>,
}

/// The heartbeats until the broker has certainly closed the connection of an unresponsive process and has requeued its
/// deliveries: three, and a margin.
const HEARTBEATS: u32 = 4;

/// The time since which all roles have been idle.
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
    /// Starts without any sample.
    ///
    /// A live process that has taken deliveries commits their outcomes, which shows. A frozen or disconnected process
    /// commits nothing until the broker has closed its connection and requeued its deliveries. So beside another
    /// process, all has to be quiet for longer than that takes.
    pub(crate) fn new(window: Duration, heartbeat: Duration) -> Self {
        Self {
            window,
            window_beside_others: window.max(heartbeat.saturating_mul(HEARTBEATS)),
            quiet: None,
        }
    }

    /// Adds a sample. Returns whether all roles were idle, without any commit, for the whole window: from the end of
    /// the first idle sample to the start of this one.
    pub(crate) fn observe(&mut self, look: &Sample) -> bool {
        let Some(roles) = look
            .roles
            .as_ref()
            .filter(|roles| roles.iter().all(RoleSample::is_quiet))
        else {
            self.quiet = None;
            return false;
        };
        let window = if roles.iter().any(|role| role.shares_queue) {
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
            shares_queue: false,
            unacked: 0,
            outbox_rows: 0,
            deferred_due: 0,
            live_tasks: 0,
            commits: 7,
        }
    }

    struct Clock(Instant, IdleWatch);

    impl Clock {
        fn start() -> Self {
            Self(Instant::now(), IdleWatch::new(WINDOW, HEARTBEAT))
        }

        /// Adds a sample that starts after this many seconds and takes a tenth of one.
        fn observe_all(&mut self, seconds: f64, roles: &[RoleSample]) -> bool {
            self.sample_at(seconds, Some(roles.to_vec()))
        }

        fn sample_at(&mut self, seconds: f64, roles: Option<Vec<RoleSample>>) -> bool {
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
        assert!(!clock.observe_all(0.0, &[quiet(), quiet()]));
        assert!(!clock.observe_all(2.0, &[quiet(), quiet()]));
        assert!(
            !clock.observe_all(3.0, &[quiet(), quiet()]),
            "counted from the end of the first sample"
        );
        assert!(clock.observe_all(3.1, &[quiet(), quiet()]));
    }

    #[test]
    fn pending_work_restarts_the_window() {
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
                unacked: 1,
                ..quiet()
            },
            RoleSample {
                outbox_rows: 1,
                ..quiet()
            },
            RoleSample {
                deferred_due: 1,
                ..quiet()
            },
            RoleSample {
                live_tasks: 1,
                ..quiet()
            },
        ];
        for busy in busy {
            let mut clock = Clock::start();
            assert!(!clock.observe_all(0.0, &[quiet(), quiet()]));
            assert!(
                !clock.observe_all(2.0, &[quiet(), busy.clone()]),
                "{busy:?}"
            );
            assert!(!clock.observe_all(4.0, &[quiet(), quiet()]), "{busy:?}");
            assert!(!clock.observe_all(6.0, &[quiet(), quiet()]), "{busy:?}");
            assert!(clock.observe_all(7.2, &[quiet(), quiet()]), "{busy:?}");
        }
    }

    #[test]
    fn other_processes_extend_the_idle_window() {
        let beside = RoleSample {
            shares_queue: true,
            ..quiet()
        };
        let mut clock = Clock::start();
        let roles = [quiet(), beside];
        assert!(!clock.observe_all(0.0, &roles));
        assert!(!clock.observe_all(39.9, &roles));
        assert!(clock.observe_all(40.1, &roles));
    }

    #[test]
    fn full_role_is_idle_without_drainable_work() {
        let full = RoleSample {
            ready: Some(12),
            takes: Intake::Full("dead letters"),
            unacked: 2_000,
            ..quiet()
        };
        for busy in [
            RoleSample {
                outbox_rows: 1,
                ..full.clone()
            },
            RoleSample {
                deferred_due: 1,
                ..full
            },
        ] {
            let mut clock = Clock::start();
            assert!(!clock.observe_all(0.0, std::slice::from_ref(&busy)));
            assert!(!clock.observe_all(9.0, &[busy]));
        }
        let mut clock = Clock::start();
        assert!(!clock.observe_all(0.0, std::slice::from_ref(&full)));
        assert!(clock.observe_all(3.1, &[full]));
    }

    #[test]
    fn a_commit_by_anybody_begins_the_window_anew() {
        let mut clock = Clock::start();
        let written = RoleSample {
            commits: 8,
            ..quiet()
        };
        assert!(!clock.observe_all(0.0, &[quiet()]));
        assert!(!clock.observe_all(4.0, std::slice::from_ref(&written)));
        assert!(!clock.observe_all(6.0, std::slice::from_ref(&written)));
        assert!(clock.observe_all(7.2, &[written]));
    }

    #[test]
    fn unreadable_store_is_not_idle() {
        let mut clock = Clock::start();
        assert!(!clock.observe_all(0.0, &[quiet()]));
        assert!(!clock.sample_at(3.5, None));
        assert!(!clock.observe_all(4.0, &[quiet()]));
    }
}
