//! The loop of a role: takes deliveries and commands, processes, commits and acks them; due events come in between.

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_event::{Timestamp, headers::Decoded};
use doorstep_messaging::{Batch, ChannelId, Delivery, OutageReasons, ProcessSpan, QueueName};
use doorstep_store::{Store, StoreError, StoreUsage};
use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Phase, ProgressWatch, ReadinessReason, ReasonName, RoleStatus, RunError,
    connections::ConnectionMonitor, intake::Intake, reply_to::QueuedCommand, shutdown::Shutdown,
    upkeep::keep_up, wall::WallClock,
};
use crate::{
    BatchCursor, BatchReport, Commands, DeliveryHistory, Engine, InboundMessage, Role,
    limits::Capacity,
    telemetry::{
        BatchInstruments, BatchSettled, BatchWorked, ClockJumped, Degraded, RequestInstruments,
        StoreFull, StoreRecovered, StoreStillUnavailable, StoreUnavailable,
    },
};

/// The interval at which the store is polled for due events: deferred events fall due by time, and by replays in other
/// processes.
const DUE_TICK: Duration = Duration::from_millis(250);
/// The interval of the remaining upkeep: overlooked rows, retention, gaps.
const HOUSEKEEPING_TICK: Duration = Duration::from_secs(15);
/// The maximum of gaps named in a degraded reason.
const GAPS_NAMED: usize = 3;
/// The maximum of kinds of dead letters named in degraded reasons.
const KINDS_NAMED: usize = 3;

pub(super) struct RoleLoop<'a, R: Role, S: Store> {
    pub(super) engine: Engine<R, S>,
    /// `None` if the role has no queue.
    pub(super) intake: Option<Intake<'a>>,
    /// Commands of local clients and of RPC clients.
    pub(super) commands: mpsc::Receiver<QueuedCommand>,
    pub(super) status: &'a watch::Sender<RoleStatus>,
    pub(super) owed: &'a Arc<Notify>,
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
            // Every arm may be cancelled: a batch leaves the subscription only if its arm wins, and ticks and the stop
            // signal stay in their timer and channel.
            let next = tokio::select! {
                biased;
                () = self.stop.asked() => Next::Stop,
                _ = housekeeping.tick() => Next::Housekeeping,
                changed = self.links.changed() => match changed {
                    Ok(()) => Next::Links,
                    Err(_) => return Err(RunError::Broken(self.engine.role().name())),
                },
                _ = due.tick(), if matches!(turn, Turn::Unknown { .. }) => Next::Due,
                () = ready(()), if turn == Turn::Due => Next::Due,
                1.. = self.commands.recv_many(&mut commands, limits.batch_commands) => Next::Commands,
                batch = next_batch(intake, events, bytes), if !full => match batch {
                    Some(batch) => Next::Batch(batch),
                    // The loop itself never closes it.
                    None => return Err(RunError::Broken(self.engine.role().name())),
                },
                () = ready(()), if matches!(turn, Turn::Others | Turn::Unknown { soon: true }) => Next::Due,
            };
            let worked = match next {
                Next::Stop => return self.drain_commands().await,
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
                Next::Commands if full => {
                    for command in commands {
                        command.caller.reject_overloaded(limits.retry_after);
                    }
                    turn = turn.after_others(false);
                    continue;
                }
                Next::Commands => {
                    // Deliveries that came meanwhile are processed in the same commit.
                    let batch = next_batch(intake, events, bytes);
                    let batch = batch.now_or_never().flatten();
                    let Some(worked) = self.process_batch(batch, commands, usage).await? else {
                        return Ok(());
                    };
                    turn = turn.after_others(worked.usage.deferred.rows > 0);
                    Some(worked)
                }
                Next::Batch(batch) => {
                    let commands = self.waiting_commands();
                    let Some(worked) = self.process_batch(Some(batch), commands, usage).await?
                    else {
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

    /// Takes no more commands and executes the waiting ones, whose senders count on a reply.
    async fn drain_commands(&mut self) -> Result<(), RunError> {
        self.commands.close();
        loop {
            let commands = self.waiting_commands();
            if commands.is_empty() {
                return Ok(());
            }
            let usage = StoreUsage::default();
            if self.process_batch(None, commands, usage).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Processes a batch and commands, even if the store fails in between. Then acks the finished part of the batch and
    /// replies to the commands. Returns `None` if a stop or an end came first. If there is nothing to do, since no
    /// client waits, it returns the given usage.
    async fn process_batch(
        &mut self,
        batch: Option<Batch>,
        commands: Vec<QueuedCommand>,
        usage: StoreUsage,
    ) -> Result<Option<BatchReport>, RunError> {
        let mut span = batch.as_ref().map(ProcessSpan::begin);
        let role = self.engine.role().name();
        let mut began = Instant::now();
        let reading = self.pulse.step();
        let mut delivered = Delivered::default();
        let mut read = match batch {
            None => self.engine.read_deliveries([]),
            Some(batch) => {
                delivered.tags = batch.deliveries.iter().map(|d| d.tag).collect();
                let given_up = batch.queue == self.quarantine;
                delivered.by = Some((batch.queue, batch.channel));
                let deliveries = batch.deliveries.into_iter().map(|delivery| {
                    let past = match (given_up, delivery.redelivered) {
                        (true, _) => DeliveryHistory::LimitExceeded,
                        (false, true) => DeliveryHistory::Redelivered,
                        (false, false) => DeliveryHistory::First,
                    };
                    (incoming(delivery), past)
                });
                self.engine.read_deliveries(deliveries)
            }
        };
        let mut callers = Vec::with_capacity(commands.len());
        let mut asked = Vec::with_capacity(commands.len());
        for QueuedCommand {
            request,
            past,
            caller,
        } in commands
        {
            if caller.is_gone() {
                caller.forget();
                continue;
            }
            callers.push(Some(caller));
            asked.push((request, past));
        }
        let mut asked = self.engine.read_commands(asked);
        drop(reading);
        let mut worked = BatchReport {
            usage,
            ..BatchReport::default()
        };
        loop {
            // Each may take long, and clients that wait for the next one may be gone by then.
            let is_gone =
                |place: usize| matches!(callers.get(place), Some(Some(caller)) if caller.is_gone());
            for place in asked.give_up(is_gone) {
                if let Some(caller) = callers.get_mut(place).and_then(Option::take) {
                    caller.forget();
                }
            }
            if read.is_done() && asked.is_done() {
                return Ok(Some(worked));
            }
            let before = read.done();
            match self.work(&mut read, &mut asked).await? {
                Some(done) => worked = done,
                None => {
                    if let Some(span) = &mut span {
                        span.failed("stopped");
                    }
                    return Ok(None);
                }
            }
            // Every decided command is durable by now.
            for (place, decided) in asked.take_decided() {
                if let Some(caller) = callers.get_mut(place).and_then(Option::take) {
                    caller.reply(decided, self.requests);
                }
            }
            let committed = Instant::now();
            BatchWorked {
                role,
                meters: self.meters,
                events: read.done().saturating_sub(before),
                conflicts: worked.conflicts,
                took: committed.duration_since(began),
            }
            .tell();
            if read.done() > before {
                self.settle(&delivered, read.done(), committed).await;
            }
            if read.is_done() && asked.is_done() {
                return Ok(Some(worked));
            }
            self.record_progress(&worked);
            // Poison candidates may take many steps; those not started go back to the broker.
            if self.stop.is_asked() {
                return Ok(None);
            }
            began = Instant::now();
        }
    }

    /// Acks this many leading deliveries.
    async fn settle(&self, delivered: &Delivered, done: usize, committed: Instant) {
        let (Some(intake), Some((queue, channel))) = (self.intake, &delivered.by) else {
            return;
        };
        // Only now is every event up to here durably applied, deferred, dead-lettered or dropped. If the channel is
        // gone, its deliveries come back on another one and are recognised.
        if let Some(up_to) = done
            .checked_sub(1)
            .and_then(|last| delivered.tags.get(last))
        {
            let settled = intake.settle(queue, *channel, *up_to).await;
            BatchSettled {
                role: self.engine.role().name(),
                meters: self.meters,
                settled,
                took: committed.elapsed(),
            }
            .tell();
        }
    }

    /// Runs the next step of a batch and commands.
    async fn work(
        &mut self,
        read: &mut BatchCursor<R::Payload>,
        asked: &mut Commands<R::Command>,
    ) -> Result<Option<BatchReport>, RunError> {
        for failures in 1_u32.. {
            let step = self.pulse.step();
            let now = self.now();
            let worked = self
                .engine
                .process_with_commands(read, asked, now, rand::random())
                .await;
            drop(step);
            match worked {
                Ok(worked) => {
                    self.resume();
                    return Ok(Some(worked));
                }
                Err(e) => self.pause(e)?,
            }
            // The batch stays taken and unacked, and no attempt is counted. A stop gives it back to the broker.
            tokio::select! {
                () = sleep(self.engine.limits().retry_backoff(failures, rand::random())) => {}
                () = self.stop.asked() => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn work_due(&mut self, usage: &mut StoreUsage) -> Result<Option<BatchReport>, RunError> {
        let step = self.pulse.step();
        let now = self.now();
        let worked = self.engine.process_due(now, rand::random()).await;
        drop(step);
        match worked {
            Ok(worked) => {
                self.resume();
                if worked.is_none() && *usage != StoreUsage::default() {
                    // Another process may have replayed, skipped or relayed, so the store's own figures decide.
                    if let Ok(now) = self.engine.store().usage().await {
                        *usage = now;
                    }
                }
                Ok(worked)
            }
            Err(e) => {
                self.pause(e)?;
                Ok(None)
            }
        }
    }

    /// Returns the time, after a check of the clock's progress.
    fn now(&mut self) -> Timestamp {
        let now = Timestamp::now();
        if let Some(by) = self.wall.read(now, Instant::now()) {
            let role = self.engine.role().name();
            ClockJumped { role, by }.tell();
        }
        self.engine.trust_clock(self.wall.is_steady());
        now
    }

    /// Looks after overlooked rows, retention and gaps. No batch depends on it, so a failure is left to the next turn.
    async fn housekeeping(&mut self, usage: &StoreUsage) {
        let now = self.now();
        let limits = self.engine.limits().clone();
        let store = self.engine.store();
        let gaps_since = now.checked_sub(limits.gap_age).unwrap_or(Timestamp::MIN);
        let may_prune = self.wall.may_prune(limits.is_crowded(usage));
        let looked = async {
            keep_up(store, &limits, may_prune, now).await?;
            let kept_log = store.trim_log().await?;
            let streamless = store.streamless(limits.large_kind(), KINDS_NAMED).await?;
            let gaps = store.gaps(gaps_since, now, GAPS_NAMED + 1).await?;
            Ok::<_, StoreError>((gaps, kept_log, streamless))
        };
        let Ok((gaps, kept_log, streamless)) = looked.await else {
            return;
        };
        let mut degraded: Vec<ReadinessReason> = gaps
            .iter()
            .take(GAPS_NAMED)
            .map(|gap| {
                let message = format!(
                    "missing {}..{} of {} ({} held)",
                    gap.from, gap.to, gap.stream, gap.held
                );
                ReadinessReason::new(ReasonName::StreamGap, message)
            })
            .collect();
        if gaps.len() > GAPS_NAMED {
            degraded.push(ReadinessReason::new(ReasonName::StreamGap, "further gaps"));
        }
        if let Capacity::NearLimit(table) | Capacity::Full(table) = limits.capacity(usage) {
            degraded.push(ReadinessReason::new(
                ReasonName::StoreNearlyFull,
                format!("the store's {table} are at 80 % of their bound or more"),
            ));
        }
        let named = |name| move |message| ReadinessReason::new(name, message);
        let kept_log = kept_log.map(|log| log.to_string());
        degraded.extend(kept_log.map(named(ReasonName::StoreLogKept)));
        degraded.extend(self.wall.trouble().map(named(ReasonName::ClockJump)));
        let overflowing = limits.streamless_findings(&streamless).into_iter();
        degraded.extend(overflowing.map(named(ReasonName::DeadLetterOverflow)));
        self.findings = degraded;
        self.publish_degraded();
    }

    /// Publishes every reason why the role is degraded. A new reason is logged once, unless it was logged where it was
    /// noticed.
    fn publish_degraded(&mut self) {
        let mut degraded = self.links.possible_losses();
        degraded.extend_from_slice(&self.findings);
        self.status.send_if_modified(|status| {
            for line in degraded
                .iter()
                .filter(|line| !status.degraded.contains(line))
            {
                Degraded {
                    role: self.engine.role().name(),
                    reason: &line.message,
                }
                .tell();
            }
            degraded.extend(self.links.issues());
            let changed = status.degraded != degraded;
            if changed {
                status.degraded = degraded;
            }
            changed
        });
    }

    /// Publishes the fill level of the store. Returns whether deliveries must wait.
    fn publish_capacity(&self, usage: &StoreUsage) -> bool {
        let fullness = self.engine.limits().capacity(usage);
        self.status.send_if_modified(|status| {
            // Also while nothing is processed, since other processes make room by publishing or resolving rows.
            status.usage = *usage;
            let phase = match (&status.phase, fullness) {
                (Phase::Paused { .. } | Phase::Stopping | Phase::Stopped, _) => return false,
                (_, Capacity::Full(table)) => Phase::Full { table },
                (_, Capacity::Ok | Capacity::NearLimit(_)) => Phase::Consuming,
            };
            let changed = status.phase != phase;
            if changed && let Phase::Full { table } = &phase {
                StoreFull {
                    role: self.engine.role().name(),
                    table,
                }
                .tell();
            }
            status.phase = phase;
            changed
        });
        matches!(fullness, Capacity::Full(_))
    }

    fn record_progress(&self, worked: &BatchReport) {
        if worked.owed > 0 {
            self.owed.notify_one();
        }
        let unsettled = self.intake.map_or(0, Intake::unsettled);
        self.status.send_modify(|status| {
            status.unsettled = unsettled;
            status.usage = worked.usage;
            status.add(&worked.tally);
        });
    }

    /// Pauses for an unusable store. Each kind of reason is logged once per outage.
    fn pause(&mut self, error: StoreError) -> Result<(), RunError> {
        let role = self.engine.role().name();
        match error {
            StoreError::Unusable { .. } => Err(error.into()),
            StoreError::Unavailable { .. } => {
                self.status.send_if_modified(|status| {
                    let reason = error.to_string();
                    let error = &error;
                    let is_new = self.store_outage.is_new(&reason);
                    match status.phase {
                        Phase::Paused { .. } if is_new => {
                            StoreStillUnavailable { role, error }.tell();
                        }
                        Phase::Paused { .. } => {}
                        _ => StoreUnavailable { role, error }.tell(),
                    }
                    status.phase = Phase::Paused { reason };
                    true
                });
                Ok(())
            }
        }
    }

    fn resume(&mut self) {
        self.store_outage.clear();
        self.status.send_if_modified(|status| {
            let paused = matches!(status.phase, Phase::Paused { .. });
            if paused {
                StoreRecovered {
                    role: self.engine.role().name(),
                }
                .tell();
                status.phase = Phase::Consuming;
            }
            paused
        });
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
    Commands,
    Batch(Batch),
}

/// The deliveries of a batch, reduced to their delivery tags.
#[derive(Default)]
struct Delivered {
    by: Option<(QueueName, ChannelId)>,
    tags: Vec<u64>,
}

/// Returns the next batch of a role's queues; waits for ever if it has none. Cancel-safe.
async fn next_batch(intake: Option<Intake<'_>>, events: usize, bytes: usize) -> Option<Batch> {
    match intake {
        Some(intake) => intake.next_batch(events, bytes).await,
        None => std::future::pending().await,
    }
}

fn incoming(delivery: Delivery) -> InboundMessage {
    let sender = delivery.sender;
    match delivery.decoded {
        Decoded::Valid(event) => InboundMessage::Event {
            event,
            defect: None,
            sender,
        },
        Decoded::Invalid(event, defect) => InboundMessage::Event {
            event,
            defect: Some(defect),
            sender,
        },
        Decoded::Undecodable { defect, body } => InboundMessage::Unreadable {
            body,
            headers: delivery.headers_json.unwrap_or_default(),
            id: delivery.id,
            defect,
        },
    }
}

#[cfg(test)]
mod tests;
