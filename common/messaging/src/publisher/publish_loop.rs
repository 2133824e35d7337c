//! Publishing on one channel, for as long as it lasts.

use std::time::Duration;

use lapin::{
    Channel, PublisherConfirm,
    options::{BasicPublishOptions, BasicQosOptions},
    types::ShortString,
};
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
};
use crate::{
    connection::Health,
    connection_status::StatusReporter,
    counts::PublisherCounters,
    message::{Parts, Sent},
    settings::BrokerSettings,
};

/// Why it ended.
pub(super) enum LoopExit {
    /// The connection is of no more use, for this reason.
    Lost(String),
    /// The broker has closed the channel over one of its messages; the connection is well.
    ChannelClosed,
    /// All is done that was asked for, or the time for it is over. So much is left to say good-bye.
    Stopped(Duration),
}

/// What publishing on a channel needs.
pub(super) struct PublishLoop<'a> {
    pub(super) channel: &'a Channel,
    pub(super) settings: &'a BrokerSettings,
    pub(super) health: watch::Receiver<Health>,
    pub(super) report: &'a StatusReporter,
    pub(super) counts: &'a PublisherCounters,
    pub(super) inbox: &'a mut mpsc::Receiver<PublishCall>,
    pub(super) stopped: &'a mut mpsc::Receiver<Duration>,
    pub(super) jobs: &'a mut PublishCalls,
    pub(super) events_exchange: &'a str,
    pub(super) user_id: Option<&'a ShortString>,
}

/// A message under way.
struct InFlight {
    place: MessageIndex,
    sent: Sent,
    /// Where its time begins: when it was handed over, or when the broker took messages again after that.
    since: Instant,
    handed_over: Instant,
}

/// Returned to the publisher if no queue wants it.
const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

/// Publishes until the channel breaks or everything is done. On return nothing is under way any more.
///
/// This is the publisher's loop: feed the client, wait for something to happen, decide what completed.
pub(super) async fn run(mut served: PublishLoop<'_>) -> LoopExit {
    let channel = served.channel;
    let settings = served.settings;
    let window = settings.publish_window.max(1);
    let mut under_way: SequenceMap<InFlight> = SequenceMap::new();
    let mut confirms = Confirms::new();
    let mut clock = Clock::new();
    let mut inbox_open = true;
    let mut broken: Option<String> = None;
    let mut ended_by = Ended::Connection;
    let mut broken_places: Vec<MessageIndex> = Vec::new();
    let mut tick = tokio::time::interval(tick_length(settings));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The watch only tells of changes from here on.
    if *served.health.borrow() != Health::Open {
        served.health.mark_changed();
    }

    let end = loop {
        // There may be no end of confirms; others on this thread have their turn.
        consume_budget().await;

        // 1. Feed. Not while blocked: what the client cannot write it keeps, without a bound.
        while clock.blocked_since.is_none() && confirms.pending() < window {
            if served.jobs.wants_more() {
                match served.inbox.try_recv() {
                    Ok(job) => served.jobs.take_in(job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        inbox_open = false;
                        break;
                    }
                }
            }
            if let Some((place, message)) = served.jobs.next_message() {
                let (parts, sent) = message.into_parts(served.events_exchange, served.user_id);
                let number = under_way.push(InFlight {
                    place,
                    sent,
                    since: clock.now,
                    handed_over: clock.now,
                });
                confirms.push(number, send(channel, parts));
            }
        }
        let drained = served.jobs.is_empty() && served.inbox.is_empty();
        if drained && (!inbox_open || clock.stop_at.is_some()) {
            break LoopExit::Stopped(clock.time_remaining());
        }

        // 2. Decide what has completed.
        confirms.decide(
            channel,
            &mut under_way,
            |returns, under_way, (number, word)| {
                let Some(message) = under_way.take(number) else {
                    // Given up on before.
                    return;
                };
                match returns.verdict(number, &message.sent, word) {
                    Verdict::Confirmed(outcome) => {
                        clock.last_word = clock.now;
                        served.jobs.resolve(message.place, outcome);
                    }
                    Verdict::Broken(reason, ended) => {
                        broken_places.push(message.place);
                        if broken.is_none() {
                            broken = Some(reason);
                            ended_by = ended;
                        }
                    }
                }
            },
        );
        if let Some(reason) = broken.take() {
            if ended_by != Ended::Connection {
                served.counts.channels_ended.add(1);
            }
            if ended_by == Ended::OverMessage {
                served.counts.channels_refused.add(1);
            }
            // A message that was alone on the channel is the reason. Among several it cannot be told.
            let was_alone =
                broken_places.len() == 1 && under_way.is_empty() && confirms.pending() == 0;
            let outcome = if ended_by == Ended::OverMessage && was_alone {
                served.report.unpublishable(&reason);
                PublishOutcome::Unpublishable
            } else {
                PublishOutcome::Disconnected
            };
            for place in broken_places {
                served.jobs.resolve(place, outcome);
            }
            break if ended_by == Ended::OverMessage {
                LoopExit::ChannelClosed
            } else {
                LoopExit::Lost(reason)
            };
        }

        // What was decided may have made room for what is here already, and nobody would tell of that.
        let has_room = clock.blocked_since.is_none() && confirms.pending() < window;
        if has_room && !served.jobs.wants_more() {
            clock.now = Instant::now();
            continue;
        }

        let oldest = under_way.oldest().map(|m| m.handed_over.into_std());
        served.counts.outstanding(under_way.len(), oldest);

        // 3. Wait. Each arm only waits, and loses nothing when another is quicker: completed confirms stay in the set, a job is
        // either received or still in the channel, a watch remembers, the interval keeps its time.
        let room = clock.blocked_since.is_none()
            && served.jobs.wants_more()
            && inbox_open
            && confirms.pending() < window;
        tokio::select! {
            () = confirms.some_completed() => clock.now = Instant::now(),
            job = served.inbox.recv(), if room || clock.is_refusing(settings) => {
                clock.now = Instant::now();
                match job {
                    Some(job) => served.jobs.take_in(job),
                    None => inbox_open = false,
                }
            }
            changed = served.health.changed() => {
                clock.now = Instant::now();
                let health = match changed {
                    Ok(()) => served.health.borrow_and_update().clone(),
                    Err(_) => Health::Lost("the connection is gone".to_owned()),
                };
                match health {
                    Health::Lost(reason) => break LoopExit::Lost(reason),
                    Health::Blocked(reason) => {
                        clock.blocked_since.get_or_insert(clock.now);
                        served.report.blocked(reason);
                    }
                    Health::Open => {
                        clock.blocked_since = None;
                        // What waited for the broker to take messages again has its full time before it.
                        clock.last_word = clock.now;
                        under_way.each(|message| message.since = clock.now);
                        served.report.unblocked();
                    }
                }
            }
            grace = served.stopped.recv(), if clock.stop_at.is_none() => {
                clock.now = Instant::now();
                clock.stop_at = Some(clock.now + grace.unwrap_or(settings.confirm_timeout));
                served.inbox.close();
                served.report.draining();
            }
            _ = tick.tick() => clock.now = Instant::now(),
        }

        // 4. Give up on what takes too long.
        if clock.is_refusing(settings) {
            served.jobs.resolve_waiting(PublishOutcome::Blocked);
            while let Some(message) = under_way.take_oldest() {
                served.jobs.resolve(message.place, PublishOutcome::Blocked);
            }
        } else if clock.blocked_since.is_none() {
            let mut late = false;
            while under_way
                .oldest()
                .is_some_and(|message| message.since + settings.confirm_timeout < clock.now)
            {
                if let Some(message) = under_way.take_oldest() {
                    served.jobs.resolve(message.place, PublishOutcome::TimedOut);
                    late = true;
                }
            }
            // One queue that does not confirm is that queue's trouble. A channel without a word, or a window full of messages that
            // nobody waits for any more, is ours: a fresh connection is the cure.
            let silent = clock.last_word + settings.confirm_timeout < clock.now;
            let given_up = confirms.pending().saturating_sub(under_way.len());
            if late && (silent || given_up * 2 > window) {
                break LoopExit::Lost(format!(
                    "messages were not confirmed within {:?}",
                    settings.confirm_timeout
                ));
            }
        }
        if clock.stop_at.is_some_and(|stop_at| stop_at < clock.now) {
            break LoopExit::Stopped(clock.time_remaining());
        }
    };

    served.counts.outstanding(0, None);
    // Whoever still waits sends again: the id tells.
    while let Some(message) = under_way.take_oldest() {
        served
            .jobs
            .resolve(message.place, PublishOutcome::Disconnected);
    }
    match end {
        // Nobody wants it back.
        LoopExit::Lost(_) | LoopExit::ChannelClosed if clock.stop_at.is_some() => {
            LoopExit::Stopped(clock.time_remaining())
        }
        LoopExit::Lost(_) | LoopExit::ChannelClosed => end,
        LoopExit::Stopped(_) => {
            // What is handed over just before a connection is closed may be lost on the way, so the channel is asked something first:
            // its answer comes after all that went before.
            let round_trip = channel.basic_qos(1, BasicQosOptions::default());
            let _ = timeout(clock.time_remaining(), round_trip).await;
            LoopExit::Stopped(clock.time_remaining())
        }
    }
}

/// The times that the loop goes by.
struct Clock {
    /// Read once a round: messages fed in one round are as old as each other.
    now: Instant,
    blocked_since: Option<Instant>,
    /// When the broker last confirmed or refused anything.
    last_word: Instant,
    stop_at: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            blocked_since: None,
            last_word: now,
            stop_at: None,
        }
    }

    /// How much time is left for saying good-bye: what is left of the grace, and a little in any case.
    fn time_remaining(&self) -> Duration {
        const MIN_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
        let stop_at = self.stop_at.unwrap_or(self.now);
        stop_at
            .saturating_duration_since(Instant::now())
            .max(MIN_CLOSE_TIMEOUT)
    }

    /// Whether we have been blocked for so long that nobody is kept waiting.
    fn is_refusing(&self, settings: &BrokerSettings) -> bool {
        self.blocked_since
            .is_some_and(|since| since + settings.outage_timeout <= self.now)
    }
}

/// How often to look for what takes too long, when nothing else happens.
fn tick_length(settings: &BrokerSettings) -> Duration {
    let shortest = settings.confirm_timeout.min(settings.outage_timeout);
    (shortest / 10).clamp(Duration::from_millis(10), Duration::from_millis(500))
}

/// Hands a message to the client on the first poll, and completes when it is written.
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
