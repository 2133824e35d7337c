//! Processes batches, commands and due events, and acks committed deliveries.

use std::time::Instant;

use doorstep_event::Timestamp;
use doorstep_messaging::{Batch, ChannelId, Delivery, ProcessSpan, QueueName};
use doorstep_store::{Store, StoreUsage};
use tokio::{sync::oneshot, time::sleep};

use super::RoleLoop;
use crate::runner::{
    RunError,
    intake::Intake,
    reply_to::{PendingReply, QueuedCommand},
    tasks::{Decision, QueuedEnd},
};
use crate::{BatchCursor, BatchReport, Commands, DeliveryHistory, InboundMessage, Role, telemetry};

impl<R: Role, S: Store> RoleLoop<'_, R, S> {
    /// Processes a batch, commands and ends of tasks, even if the store fails in between. Then acks the finished part of
    /// the batch, replies to the commands, and tells the executor of the decided ends. Returns `None` if a stop or an end came first. If there is nothing to do, since no
    /// client waits, it returns the given usage.
    pub(super) async fn process_batch(
        &mut self,
        batch: Option<Batch>,
        commands: Vec<QueuedCommand>,
        ends: Vec<QueuedEnd>,
        usage: StoreUsage,
    ) -> Result<Option<BatchReport>, RunError> {
        let mut span = batch.as_ref().map(ProcessSpan::begin);
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
        let mut requests = Vec::with_capacity(commands.len());
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
            requests.push((request, past));
        }
        let (finished, mut executor): (Vec<_>, Vec<_>) = ends
            .into_iter()
            .map(|end| (end.finished, Some(end.decided)))
            .unzip();
        let mut commands = self.engine.read_commands(requests).with_ends(finished);
        drop(reading);
        let mut worked = BatchReport {
            usage,
            ..BatchReport::default()
        };
        loop {
            // Each may take long, and clients that wait for the next one may be gone by then.
            let is_gone =
                |place: usize| matches!(callers.get(place), Some(Some(caller)) if caller.is_gone());
            for place in commands.give_up(is_gone) {
                if let Some(caller) = callers.get_mut(place).and_then(Option::take) {
                    caller.forget();
                }
            }
            if read.is_done() && commands.is_done() {
                return Ok(Some(worked));
            }
            let before = read.done();
            match self.work(&mut read, &mut commands).await? {
                Some(done) => worked = done,
                None => {
                    if let Some(span) = &mut span {
                        span.failed("stopped");
                    }
                    return Ok(None);
                }
            }
            self.report_decided(&mut commands, &mut callers, &mut executor);
            let committed = Instant::now();
            let events = read.done().saturating_sub(before);
            let took = committed.duration_since(began);
            self.meters.processed(events, worked.conflicts, took);
            if read.done() > before {
                self.ack_leading(&delivered, read.done(), committed).await;
            }
            if read.is_done() && commands.is_done() {
                return Ok(Some(worked));
            }
            self.record_progress(&worked);
            // Poison candidates may take many steps; those not started go back to the broker.
            if self.stop.is_requested() {
                return Ok(None);
            }
            began = Instant::now();
        }
    }

    /// Replies to decided commands, and tells the executor of decided ends. All of them are durable by now.
    fn report_decided(
        &self,
        commands: &mut Commands<R::Command>,
        callers: &mut [Option<PendingReply>],
        executor: &mut [Option<oneshot::Sender<Decision>>],
    ) {
        for (place, decided) in commands.take_decided() {
            if let Some(end) = place.checked_sub(callers.len()) {
                let waiting = executor.get_mut(end).and_then(Option::take);
                if let (Some(waiting), Some(decision)) = (waiting, Decision::from_result(&decided))
                {
                    // The executor may have ended with the role.
                    let _ = waiting.send(decision);
                }
            } else if let Some(caller) = callers.get_mut(place).and_then(Option::take) {
                caller.reply(decided, self.requests);
            }
        }
    }

    /// Acks this many leading deliveries.
    async fn ack_leading(&self, delivered: &Delivered, done: usize, committed: Instant) {
        let (Some(intake), Some((queue, channel))) = (self.intake, &delivered.by) else {
            return;
        };
        // Only now is every event up to here durably applied, deferred, dead-lettered or dropped. If the channel is
        // gone, its deliveries come back on another one and are recognised.
        if let Some(up_to) = done
            .checked_sub(1)
            .and_then(|last| delivered.tags.get(last))
        {
            let outcome = intake.ack(queue, *channel, *up_to).await;
            self.meters.acked(outcome, committed.elapsed());
        }
    }

    /// Runs the next step of a batch and commands.
    async fn work(
        &mut self,
        read: &mut BatchCursor<R::Payload>,
        commands: &mut Commands<R::Command>,
    ) -> Result<Option<BatchReport>, RunError> {
        for failures in 1_u32.. {
            let step = self.pulse.step();
            let now = self.now();
            let worked = self
                .engine
                .process_with_commands(read, commands, now, rand::random())
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
                () = self.stop.requested() => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(super) async fn work_due(
        &mut self,
        usage: &mut StoreUsage,
    ) -> Result<Option<BatchReport>, RunError> {
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
    pub(super) fn now(&mut self) -> Timestamp {
        let now = Timestamp::now();
        if let Some(by) = self.wall.read(now, Instant::now()) {
            let role = self.engine.role().name();
            telemetry::clock_jumped(role, by);
        }
        self.engine.trust_clock(self.wall.is_steady());
        now
    }

    pub(super) fn record_progress(&self, worked: &BatchReport) {
        if worked.pending > 0 {
            self.outbox_filled.notify_one();
        }
        if worked.task_changes > 0
            && let Some(tasks) = &self.tasks
        {
            tasks.changed.notify_one();
        }
        let unacked = self.intake.map_or(0, Intake::unacked);
        self.status.send_modify(|status| {
            status.unacked = unacked;
            status.usage = worked.usage;
            status.done.add(&worked.tally);
        });
    }
}

/// The deliveries of a batch, reduced to their delivery tags.
#[derive(Default)]
struct Delivered {
    by: Option<(QueueName, ChannelId)>,
    tags: Vec<u64>,
}

fn incoming(delivery: Delivery) -> InboundMessage {
    InboundMessage {
        decoded: delivery.decoded,
        headers: delivery.headers_json.unwrap_or_default(),
        id: delivery.id,
        sender: delivery.sender,
    }
}
