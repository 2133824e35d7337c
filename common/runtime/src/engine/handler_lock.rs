//! The lock between the code of the roles in one process: a crash of one engine or task crashes all.

use std::sync::Arc;

use tokio::sync::{
    Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, watch,
};

/// A process in which several engines run. Clones are the same process.
///
/// A crash interrupts all engines and tasks of a process. To blame the right event, an event that may have caused an
/// earlier crash is tried while no other handler and no task of the process runs. Of the tasks that may have caused one,
/// the process runs one at a time.
#[derive(Debug, Clone, Default)]
pub struct HandlerLock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    handlers: RwLock<()>,
    /// Locked shared by each executor whose tasks run.
    tasks: Arc<RwLock<()>>,
    /// Locked by the executor that runs a poison candidate.
    candidate: Arc<Mutex<()>>,
    /// The number of trials that wait or go on.
    trials: watch::Sender<usize>,
}

/// The lock of a trial.
#[derive(Debug)]
pub(super) struct TrialGuard<'a> {
    _handlers: RwLockWriteGuard<'a, ()>,
    _tasks: RwLockWriteGuard<'a, ()>,
    _announced: Announced<'a>,
}

/// A trial that the process's executors know of, until it is dropped.
#[derive(Debug)]
struct Announced<'a>(&'a watch::Sender<usize>);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|trials| *trials -= 1);
    }
}

impl HandlerLock {
    /// Locks for the role's own code. Waits while an event is tried alone.
    pub(super) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.0.handlers.read().await
    }

    /// Locks for an event that is tried alone, from before its crash count is raised until its outcome is written. Waits
    /// for running handlers, and until the process's executors have stopped their tasks, which they do within a bound.
    pub(super) async fn exclusive(&self) -> TrialGuard<'_> {
        let process = &*self.0;
        process.trials.send_modify(|trials| *trials += 1);
        let announced = Announced(&process.trials);
        TrialGuard {
            _tasks: process.tasks.write().await,
            _handlers: process.handlers.write().await,
            _announced: announced,
        }
    }

    /// Locks for the end of a task that may have crashed a process. Waits only for running handlers: tasks go on, since
    /// the process runs no second one meanwhile that may have crashed one.
    pub(super) async fn exclusive_of_handlers(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.handlers.write().await
    }

    /// Watches the number of trials. While it is not zero, executors stop their tasks and start none.
    pub(crate) fn watch_trials(&self) -> watch::Receiver<usize> {
        self.0.trials.subscribe()
    }

    /// Locks for tasks that run. Returns `None` while a trial waits or goes on.
    pub(crate) fn try_run_tasks(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.0.tasks).try_read_owned().ok()
    }

    /// Locks for a task that is a poison candidate. Returns `None` while another one runs.
    pub(crate) fn try_run_candidate(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.0.candidate).try_lock_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn trial_waits_for_running_tasks() {
        let process = HandlerLock::default();
        let mut trials = process.watch_trials();
        let running = process.try_run_tasks().unwrap();
        let trial = tokio::spawn({
            let process = process.clone();
            async move {
                let _alone = process.exclusive().await;
                yield_now().await;
            }
        });
        trials.wait_for(|trials| *trials == 1).await.unwrap();
        yield_now().await;
        assert!(process.try_run_tasks().is_none());
        // Handlers go on meanwhile.
        drop(process.shared().await);
        assert!(!trial.is_finished());
        drop(running);
        trial.await.unwrap();
        assert_eq!(*trials.borrow(), 0);
        assert!(process.try_run_tasks().is_some());
    }

    #[test]
    fn one_candidate_runs_at_a_time() {
        let process = HandlerLock::default();
        let first = process.try_run_candidate();
        assert!(first.is_some() && process.try_run_candidate().is_none());
        drop(first);
        assert!(process.try_run_candidate().is_some());
    }
}
