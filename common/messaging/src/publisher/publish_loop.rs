//! Publishes on one channel while it lasts.

use std::time::Duration;

use lapin::{Channel, PublisherConfirm, options::BasicQosOptions, types::ShortString};
use tokio::{
    sync::{
        mpsc::{self, error::TryRecvError},
        watch,
    },
    task::coop::consume_budget,
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{
    PublishOutcome,
    calls::{MessageIndex, PublishCall, PublishCalls},
    confirms::{Confirms, Ended, Verdict},
    sequence_map::SequenceMap,
    stats::PublisherCounters,
};
use crate::{
    amqp::MANDATORY,
    connection::{
        Health, changed,
        status::StatusReporter,
        supervisor::{Exit, StopReceiver},
    },
    publisher::message::{Parts, Sent},
    settings::BrokerSettings,
};

/// State for publishing on a channel.
pub(super) struct PublishLoop<'a> {
    pub(super) channel: &'a Channel,
    pub(super) settings: &'a BrokerSettings,
    pub(super) health: watch::Receiver<Health>,
    pub(super) report: &'a StatusReporter,
    pub(super) counters: &'a PublisherCounters,
    pub(super) inbox: &'a mut mpsc::Receiver<PublishCall>,
    pub(super) stop: &'a mut StopReceiver,
    pub(super) calls: &'a mut PublishCalls,
    pub(super) events_exchange: &'a str,
    pub(super) user_id: Option<&'a ShortString>,
}

struct InFlight {
    position: MessageIndex,
    sent: Sent,
    /// Start of its timeout: when it was handed over, or when the broker last unblocked publishing.
    since: Instant,
    handed_over: Instant,
}

/// Publishes until the channel breaks, everything is done, or the grace period is over. On return no message is in flight. Returns `None`
/// if the broker closed the channel because of one of its messages; the connection is usable then.
///
/// The publisher's loop: feed lapin, wait for an event, decide completed messages.
pub(super) async fn run(run: PublishLoop<'_>) -> Option<Exit> {
    let channel = run.channel;
    let settings = run.settings;
    let mut confirms = Confirms::new();
    let mut state = LoopState::new(run);
    let mut tick = tokio::time::interval(tick_length(settings));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let end = loop {
        // Confirms may arrive endlessly; let other tasks of this thread run.
        consume_budget().await;

        // 1. Feed.
        state.feed(&mut confirms, |parts| send(channel, parts));
        if state.is_done() {
            break Some(state.clock.stopped());
        }

        // 2. Decide the messages whose confirms have completed.
        if let Some(end) = state.decide(&mut confirms) {
            break end;
        }

        // Deciding may have made room for a call that is already here, which no notification reports.
        let has_room = state.has_room(confirms.pending());
        if has_room && !state.run.calls.wants_more() {
            state.clock.now = Instant::now();
            continue;
        }

        state.count();

        // 3. Wait. Each arm is cancel-safe: completed confirms stay in the set, a call is received or stays in the channel, a watch keeps
        //    its change, and the interval keeps its time.
        let room = has_room && state.inbox_open;
        let LoopState { run, clock, .. } = &mut state;
        tokio::select! {
            () = confirms.some_completed() => clock.now = Instant::now(),
            call = run.inbox.recv(), if room || clock.is_rejecting(settings) => {
                clock.now = Instant::now();
                match call {
                    Some(call) => run.calls.start(call),
                    None => state.inbox_open = false,
                }
            }
            health = changed(&mut run.health) => {
                clock.now = Instant::now();
                if let Health::Lost(reason) = health {
                    break Some(Exit::Lost(reason));
                }
                state.observe(health);
            }
            grace = run.stop.recv(), if clock.stop_at.is_none() => {
                clock.now = Instant::now();
                clock.stop_at = Some(clock.now + grace.unwrap_or(settings.confirm_timeout));
                run.inbox.close();
                run.report.draining();
            }
            _ = tick.tick() => clock.now = Instant::now(),
        }

        // 4. Time out overdue messages.
        if let Some(reason) = state.time_out(confirms.pending()) {
            break Some(Exit::Lost(reason));
        }
        if state
            .clock
            .stop_at
            .is_some_and(|stop_at| stop_at < state.clock.now)
        {
            break Some(state.clock.stopped());
        }
    };
    state.finish(end).await
}

/// The state of a running loop.
struct LoopState<'a> {
    run: PublishLoop<'a>,
    /// Maximum messages without a confirm.
    window: usize,
    in_flight: SequenceMap<InFlight>,
    clock: Clock,
    inbox_open: bool,
}

impl<'a> LoopState<'a> {
    fn new(run: PublishLoop<'a>) -> Self {
        Self {
            window: run.settings.publish_window.max(1),
            run,
            in_flight: SequenceMap::new(),
            clock: Clock::new(),
            inbox_open: true,
        }
    }

    /// Returns whether a message may be fed. Not while blocked: lapin buffers unwritten messages without a bound.
    fn has_room(&self, pending: usize) -> bool {
        self.clock.blocked_since.is_none() && pending < self.window
    }

    /// Hands messages to lapin while there is room.
    fn feed<F: Future<Output = lapin::Result<PublisherConfirm>>>(
        &mut self,
        confirms: &mut Confirms<F>,
        send: impl Fn(Parts) -> F,
    ) {
        while self.has_room(confirms.pending()) {
            if self.run.calls.wants_more() {
                match self.run.inbox.try_recv() {
                    Ok(call) => self.run.calls.start(call),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.inbox_open = false;
                        break;
                    }
                }
            }
            if let Some((position, message)) = self.run.calls.next_message() {
                let (parts, sent) = message.into_parts(self.run.events_exchange, self.run.user_id);
                let number = self.in_flight.push(InFlight {
                    position,
                    sent,
                    since: self.clock.now,
                    handed_over: self.clock.now,
                });
                confirms.push(number, send(parts));
            }
        }
    }

    /// Returns whether everything is published and nothing more will come.
    fn is_done(&self) -> bool {
        let drained = self.run.calls.is_empty() && self.run.inbox.is_empty();
        drained && (!self.inbox_open || self.clock.stop_at.is_some())
    }

    /// Resolves completed messages. Returns the result of [`run`] if the channel broke.
    fn decide<F: Future<Output = lapin::Result<PublisherConfirm>>>(
        &mut self,
        confirms: &mut Confirms<F>,
    ) -> Option<Option<Exit>> {
        let Self {
            run,
            in_flight,
            clock,
            ..
        } = self;
        let mut broken: Option<(String, Ended)> = None;
        let mut broken_positions: Vec<MessageIndex> = Vec::new();
        confirms.decide(
            run.channel,
            in_flight,
            |returns, in_flight, (number, confirmation)| {
                let Some(message) = in_flight.take(number) else {
                    // The message has timed out before.
                    return;
                };
                match returns.verdict(number, &message.sent, confirmation) {
                    Verdict::Confirmed(outcome) => {
                        clock.last_verdict = clock.now;
                        run.calls.resolve(message.position, outcome);
                    }
                    Verdict::Broken(reason, ended) => {
                        broken_positions.push(message.position);
                        broken.get_or_insert((reason, ended));
                    }
                }
            },
        );
        let (reason, ended_by) = broken?;
        if ended_by != Ended::Connection {
            run.counters.channels_closed.add(1);
        }
        if ended_by == Ended::OverMessage {
            run.counters.channels_closed_over_message.add(1);
        }
        // If the message was alone on the channel, it is the reason. Among several, the culprit is unknown.
        let was_alone =
            broken_positions.len() == 1 && in_flight.is_empty() && confirms.pending() == 0;
        let outcome = if ended_by == Ended::OverMessage && was_alone {
            run.report.unpublishable(&reason);
            PublishOutcome::Unpublishable
        } else {
            PublishOutcome::Disconnected
        };
        for position in broken_positions {
            run.calls.resolve(position, outcome);
        }
        Some((ended_by != Ended::OverMessage).then_some(Exit::Lost(reason)))
    }

    fn count(&self) {
        let oldest = self.in_flight.oldest().map(|m| m.handed_over);
        self.run.counters.unconfirmed(self.in_flight.len(), oldest);
    }

    /// Applies a change of the health of an open connection.
    fn observe(&mut self, health: Health) {
        let Self {
            run,
            in_flight,
            clock,
            ..
        } = self;
        match health {
            Health::Lost(_) => {}
            Health::Blocked(reason) => {
                clock.blocked_since.get_or_insert(clock.now);
                run.report.blocked(reason);
            }
            Health::Open => {
                clock.blocked_since = None;
                // Messages that waited while the broker blocked get their full timeout again.
                clock.last_verdict = clock.now;
                in_flight.for_each(|message| message.since = clock.now);
                run.report.unblocked();
            }
        }
    }

    /// Resolves overdue messages. Returns the reason if the connection is bad.
    fn time_out(&mut self, pending: usize) -> Option<String> {
        let Self {
            run,
            in_flight,
            clock,
            window,
            ..
        } = self;
        let confirm_timeout = run.settings.confirm_timeout;
        if clock.is_rejecting(run.settings) {
            run.calls.resolve_waiting(PublishOutcome::Blocked);
            while let Some(message) = in_flight.take_oldest() {
                run.calls.resolve(message.position, PublishOutcome::Blocked);
            }
            return None;
        }
        if clock.blocked_since.is_some() {
            return None;
        }
        let mut late = false;
        while in_flight
            .oldest()
            .is_some_and(|message| message.since + confirm_timeout < clock.now)
        {
            if let Some(message) = in_flight.take_oldest() {
                run.calls
                    .resolve(message.position, PublishOutcome::TimedOut);
                late = true;
            }
        }
        // One queue that does not confirm affects only its messages. A channel without any confirm, or a window full of timed-out
        // messages, means that the connection is bad: rebuild it.
        let silent = clock.last_verdict + confirm_timeout < clock.now;
        let given_up = pending.saturating_sub(in_flight.len());
        (late && (silent || given_up * 2 > *window))
            .then(|| format!("messages were not confirmed within {confirm_timeout:?}"))
    }

    /// Resolves the messages in flight and, when stopping, waits for the last frames to be written.
    async fn finish(mut self, end: Option<Exit>) -> Option<Exit> {
        self.run.counters.unconfirmed(0, None);
        // Callers may resend: consumers recognize duplicates by the id.
        while let Some(message) = self.in_flight.take_oldest() {
            self.run
                .calls
                .resolve(message.position, PublishOutcome::Disconnected);
        }
        if let Some(Exit::Stopped(left)) = end {
            // Frames written just before a connection closes may be lost. So send a request first: its response comes after all
            // earlier frames.
            let round_trip = self.run.channel.basic_qos(1, BasicQosOptions::default());
            let _ = timeout(left, round_trip).await;
        } else if self.clock.stop_at.is_none() {
            return end;
        }
        // The publisher is stopping, so no reconnect follows.
        Some(self.clock.stopped())
    }
}

struct Clock {
    /// Read once per iteration: messages fed in one iteration have the same age.
    now: Instant,
    blocked_since: Option<Instant>,
    /// Latest confirm or rejection by the broker.
    last_verdict: Instant,
    stop_at: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            blocked_since: None,
            last_verdict: now,
            stop_at: None,
        }
    }

    /// Returns the exit with the time left to close: the rest of the grace period, but at least a moment.
    fn stopped(&self) -> Exit {
        const MIN_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
        let stop_at = self.stop_at.unwrap_or(self.now);
        let left = stop_at.saturating_duration_since(Instant::now());
        Exit::Stopped(left.max(MIN_CLOSE_TIMEOUT))
    }

    /// Returns whether the broker has blocked for so long that callers get an outcome at once.
    fn is_rejecting(&self, settings: &BrokerSettings) -> bool {
        self.blocked_since
            .is_some_and(|since| since + settings.outage_timeout <= self.now)
    }
}

/// Returns the interval of checking for overdue messages without other events.
fn tick_length(settings: &BrokerSettings) -> Duration {
    let shortest = settings.confirm_timeout.min(settings.outage_timeout);
    (shortest / 10).clamp(Duration::from_millis(10), Duration::from_millis(500))
}

/// Hands a message to lapin on the first poll, and completes when it is written.
async fn send(channel: &Channel, parts: Parts) -> lapin::Result<PublisherConfirm> {
    channel
        .basic_publish(
            parts.exchange,
            parts.routing_key,
            MANDATORY,
            &parts.body,
            parts.properties,
        )
        .await
}
