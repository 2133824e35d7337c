//! The loop of a role: takes deliveries and commands, processes, commits and acks them; due events come in between.

mod process;
mod report;

use std::{future::ready, sync::Arc, time::Duration};

use doorstep_messaging::{Batch, OutageReasons, QueueName};
use doorstep_store::{Store, StoreUsage};
use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    ProgressWatch, ReadinessReason, RoleStatus, RunError, connections::ConnectionMonitor,
    intake::Intake, reply_to::QueuedCommand, shutdown::Shutdown, tasks::QueuedEnd,
    wall_clock::WallClock,
};
use crate::{
    Engine, Role,
    telemetry::{BatchInstruments, RequestInstruments},
};

/// The interval at which the store is polled for due events: deferred events fall due by time, and by replays in other
/// processes.
const DUE_TICK: Duration = Duration::from_millis(250);
/// The interval of the remaining upkeep: overlooked rows, retention, gaps.
const HOUSEKEEPING_TICK: Duration = Duration::from_secs(15);

pub(super) struct RoleLoop<'a, R: Role, S: Store> {
    pub(super) engine: Engine<R, S>,
    /// `None` if the role has no queue.
    pub(super) intake: Option<Intake<'a>>,
    /// Commands of local clients and of RPC clients.
    pub(super) commands: mpsc::Receiver<QueuedCommand>,
    /// `None` if the role runs no tasks.
    pub(super) tasks: Option<LoopTasks>,
    pub(super) status: &'a watch::Sender<RoleStatus>,
    pub(super) outbox_filled: &'a Arc<Notify>,
    /// The role's quarantine, where the broker puts deliveries that it has stopped redelivering.
    pub(super) quarantine: QueueName,
    pub(super) pulse: &'a ProgressWatch,
    pub(super) meters: &'a BatchInstruments,
    pub(super) requests: &'a RequestInstruments,
    pub(super) stop: Shutdown,
    pub(super) links: ConnectionMonitor,
    /// Problems of the store found by the last housekeeping.
    pub(super) findings: Vec<ReadinessReason>,
    /// The reasons of the present store outage that were already logged.
    pub(super) store_outage: OutageReasons,
    pub(super) wall: WallClock,
}

/// The loop's side of the executor of tasks.
pub(super) struct LoopTasks {
    /// Ends that the role decides.
    pub(super) ends: mpsc::Receiver<QueuedEnd>,
    /// Tells the executor of commits that have changed tasks.
    pub(super) changed: Arc<Notify>,
    /// The longest time until the next attempt of a task.
    pub(super) max_backoff: Duration,
}

impl<R: Role, S: Store> RoleLoop<'_, R, S> {
    /// Runs until the role is asked to stop. Everything taken by then is processed and acked, unless the store cannot
    /// be used.
    pub(super) async fn run(mut self, mut usage: StoreUsage) -> Result<(), RunError> {
        let limits = self.engine.limits().clone();
        let (events, bytes) = (limits.batch_size, limits.batch_bytes);
        // Copied references, so that waiting for deliveries does not borrow the loop.
        let intake = self.intake;
        let mut due = interval(DUE_TICK);
        let mut housekeeping = interval(HOUSEKEEPING_TICK);
        for timer in [&mut due, &mut housekeeping] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut turn = Turn::Unknown { soon: false };
        loop {
            let full = self.publish_capacity(&usage);
            let mut commands = Vec::new();
            let mut ends = Vec::new();
            // Every arm may be cancelled: a batch leaves the subscription only if its arm wins, and ticks and the stop
            // signal stay in their timer and channel.
            let next = tokio::select! {
                biased;
                () = self.stop.requested() => Next::Stop,
                _ = housekeeping.tick() => Next::Housekeeping,
                changed = self.links.changed() => match changed {
                    Ok(()) => Next::Links,
                    Err(_) => return Err(RunError::Broken(self.engine.role().name())),
                },
                _ = due.tick(), if matches!(turn, Turn::Unknown { .. }) => Next::Due,
                () = ready(()), if turn == Turn::Due => Next::Due,
                // Few, so that they keep nothing else from its turn.
                1.. = next_ends(&mut self.tasks, &mut ends, limits.batch_commands) => Next::Work(None),
                1.. = self.commands.recv_many(&mut commands, limits.batch_commands) => Next::Work(None),
                batch = next_batch(intake, events, bytes), if !full => match batch {
                    Some(batch) => Next::Work(Some(batch)),
                    // The loop itself never closes it.
                    None => return Err(RunError::Broken(self.engine.role().name())),
                },
                () = ready(()), if matches!(turn, Turn::Others | Turn::Unknown { soon: true }) => Next::Due,
            };
            let worked = match next {
                Next::Stop => return self.drain().await,
                Next::Links => {
                    if let Some(error) = self.links.other_store() {
                        return Err(error.into());
                    }
                    self.publish_degraded();
                    continue;
                }
                Next::Housekeeping => {
                    self.housekeeping(&usage).await;
                    // Counted from now on, so that other work gets its turn however long housekeeping took.
                    housekeeping.reset();
                    continue;
                }
                Next::Due => {
                    let worked = self.work_due(&mut usage).await?;
                    due.reset();
                    // If neither store nor broker ever waits, such as in memory, other tasks would wait for the end of
                    // a replay.
                    tokio::task::consume_budget().await;
                    turn = match worked {
                        Some(_) => Turn::Others,
                        None => Turn::Unknown { soon: false },
                    };
                    worked
                }
                Next::Work(_) if full && ends.is_empty() => {
                    for command in commands {
                        command.caller.reject_overloaded(limits.retry_after);
                    }
                    turn = turn.after_others(false);
                    continue;
                }
                Next::Work(batch) => {
                    // What came meanwhile is processed in the same commit. Ends of tasks are processed even if the store
                    // is full, since they make room.
                    if ends.is_empty() {
                        ends = self.waiting_ends();
                    }
                    if commands.is_empty() && !full {
                        commands = self.waiting_commands();
                    }
                    let waiting = || next_batch(intake, events, bytes).now_or_never();
                    let batch = match full {
                        true => None,
                        false => batch.or_else(|| waiting().flatten()),
                    };
                    let worked = self.process_batch(batch, commands, ends, usage).await?;
                    let Some(worked) = worked else {
                        return Ok(());
                    };
                    turn = turn.after_others(worked.usage.deferred.rows > 0);
                    Some(worked)
                }
            };
            let Some(worked) = worked else { continue };
            usage = worked.usage;
            self.record_progress(&worked);
        }
    }

    /// Returns the waiting commands, up to the bound of a batch.
    fn waiting_commands(&mut self) -> Vec<QueuedCommand> {
        let mut commands = Vec::new();
        while commands.len() < self.engine.limits().batch_commands
            && let Ok(next) = self.commands.try_recv()
        {
            commands.push(next);
        }
        commands
    }

    /// Returns the waiting ends of tasks, up to the bound of a batch.
    fn waiting_ends(&mut self) -> Vec<QueuedEnd> {
        let mut ends = Vec::new();
        if let Some(tasks) = &mut self.tasks {
            while ends.len() < self.engine.limits().batch_commands
                && let Ok(next) = tasks.ends.try_recv()
            {
                ends.push(next);
            }
        }
        ends
    }

    /// Takes no more commands and executes the waiting ones, whose senders count on a reply. Decides the ends of tasks
    /// until the executor has no more.
    async fn drain(&mut self) -> Result<(), RunError> {
        self.commands.close();
        loop {
            let commands = self.waiting_commands();
            let mut ends = self.waiting_ends();
            if commands.is_empty() && ends.is_empty() {
                let most = self.engine.limits().batch_commands;
                let Some(tasks) = &mut self.tasks else {
                    return Ok(());
                };
                // Either may be cancelled: an end that is not received stays in the channel.
                let received = tokio::select! {
                    received = tasks.ends.recv_many(&mut ends, most) => received,
                    () = self.stop.is_over() => 0,
                };
                if received == 0 {
                    return Ok(());
                }
            }
            let usage = StoreUsage::default();
            let worked = self.process_batch(None, commands, ends, usage).await?;
            let Some(worked) = worked else {
                return Ok(());
            };
            self.record_progress(&worked);
        }
    }
}

/// The kind of work that comes first. Alternating keeps one kind from waiting for the end of the other: a replay of
/// thousands takes many slices, and clients may call without a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Commands and deliveries, if there are any: due work has just had a slice, and there may be more of it.
    Others,
    /// Due work: commands and deliveries have had a slice since.
    Due,
    /// Anything that comes. Due work is polled at each tick and, if `soon`, as soon as there is nothing else to do.
    Unknown {
        /// Set if a batch may have made deferred events next, or changed the entities that they wait for.
        soon: bool,
    },
}

impl Turn {
    /// Returns the turn after a slice of commands and deliveries. `holds`: the store has deferred events.
    fn after_others(self, holds: bool) -> Self {
        match self {
            Self::Others | Self::Due => Self::Due,
            Self::Unknown { .. } => Self::Unknown { soon: holds },
        }
    }
}

enum Next {
    Stop,
    Links,
    Housekeeping,
    Due,
    /// Ends of tasks, commands, or deliveries.
    Work(Option<Batch>),
}

/// Receives ends of tasks; waits for ever if the role runs none. Returns 0 once the executor has ended. Cancel-safe.
async fn next_ends(tasks: &mut Option<LoopTasks>, ends: &mut Vec<QueuedEnd>, most: usize) -> usize {
    match tasks {
        Some(tasks) => tasks.ends.recv_many(ends, most).await,
        None => std::future::pending().await,
    }
}

/// Returns the next batch of a role's queues; waits for ever if it has none. Cancel-safe.
async fn next_batch(intake: Option<Intake<'_>>, events: usize, bytes: usize) -> Option<Batch> {
    match intake {
        Some(intake) => intake.next_batch(events, bytes).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
