//! The requester's task: connects, declares, lets requests out, and does it all again after any error, until it is told to stop.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, ConfirmSelectOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Shared,
    cancel::{Cancel, publish_cancellation},
    liveness::monitor,
    request_sender::Channels,
};
use crate::{
    connection::{Connection, Dialer, Health, Undecodable, connection_lost, describe},
    connection_status::StatusReporter,
    declare::declare,
    error::{ConnectError, ConnectErrorKind},
    names::QueueName,
    rpc::{codec, error::CallError},
    topology::Topology,
};

/// How often confirms are looked at while there are any to come: the most that a refusal of the broker is late.
const SWEEP: Duration = Duration::from_millis(5);

/// All that the task owns. When it ends, so does everything of it.
pub(super) struct Task {
    pub(super) dialer: Dialer,
    pub(super) topology: Topology,
    pub(super) report: StatusReporter,
    pub(super) shared: Arc<Shared>,
    pub(super) cancelled: mpsc::Receiver<Cancel>,
}

impl Drop for Task {
    /// Whatever ends the task, be it a panic, nobody waits for it in vain.
    fn drop(&mut self) {
        self.shared.end_all("this requester is closed");
        self.report.closed();
    }
}

impl Shared {
    /// Lets nothing more out and ends all that is under way.
    fn end_all(&self, reason: &str) {
        self.gate.shut(reason);
        self.waiting.fail_all(&CallError::unreachable(reason));
    }
}

/// A connection that asks.
struct ClientConnection {
    connection: Connection,
    channels: Channels,
    replies: JoinSet<String>,
    created: Vec<QueueName>,
}

/// Why it ended.
enum End {
    Lost(String),
    Stopped(Duration),
}

impl Task {
    pub(super) async fn run(mut self, mut stopped: mpsc::Receiver<Duration>) {
        let mut failures = 0;
        loop {
            let connecting = async {
                self.dialer.settings().backoff_after(failures).await;
                self.connect().await
            };
            // Both arms may be cancelled: a connection that is dropped halfway is cut, and nothing was published on it.
            let connected = tokio::select! {
                connected = connecting => connected,
                _ = stopped.recv() => break,
            };
            let mut line = match connected {
                Ok(line) => line,
                Err(error) => {
                    failures += 1;
                    self.shared.gate.shut(&error.to_string());
                    self.report.lost(error);
                    continue;
                }
            };
            self.shared.gate.open(line.channels.clone());
            self.report.connected(std::mem::take(&mut line.created));
            let connected_at = Instant::now();
            match self.serve(&mut line, &mut stopped).await {
                End::Lost(reason) => {
                    let error = connection_lost(line.connection.address(), &reason);
                    self.shared.end_all(&error.to_string());
                    failures = self
                        .dialer
                        .settings()
                        .failures_after(failures, connected_at.elapsed());
                    self.report.lost(error);
                }
                End::Stopped(grace) => {
                    self.shared.gate.shut("this requester is closing");
                    self.report.draining();
                    self.drain(line, grace).await;
                    break;
                }
            }
        }
    }

    async fn connect(&self) -> Result<ClientConnection, ConnectError> {
        let limit = self.dialer.settings().connect_timeout;
        let connection = self.dialer.open().await?;
        let created = declare(&connection, &self.topology, limit).await?;
        let channels = Channels {
            confirmed: connection.channel(limit).await?,
            plain: connection.channel(limit).await?,
            user_id: self.dialer.settings().user_id_at(connection.address()),
        };
        let consume = async {
            let confirms = ConfirmSelectOptions::default();
            channels.confirmed.confirm_select(confirms).await?;
            Ok([
                consume_replies(&channels.confirmed).await?,
                consume_replies(&channels.plain).await?,
            ])
        };
        let consumers = match timeout(limit, consume).await {
            Ok(Ok(consumers)) => consumers,
            Ok(Err(error)) => return Err(connection.failure(&error)),
            Err(_) => {
                let address = connection.address();
                return Err(ConnectError::new(
                    ConnectErrorKind::Silent,
                    format!("{address} does not answer for {limit:?}"),
                ));
            }
        };
        let mut replies = JoinSet::new();
        for consumer in consumers {
            replies.spawn(deliver_reply(consumer, self.shared.clone()));
        }
        Ok(ClientConnection {
            connection,
            channels,
            replies,
            created,
        })
    }

    /// Looks after the connection until it is of no more use, or nobody wants it any more.
    async fn serve(
        &mut self,
        line: &mut ClientConnection,
        stopped: &mut mpsc::Receiver<Duration>,
    ) -> End {
        let Self {
            dialer,
            report,
            shared,
            cancelled,
            ..
        } = self;
        let settings = dialer.settings();
        let mut health = line.connection.health();
        // The watch only tells of changes from here on.
        if *health.borrow() != Health::Open {
            health.mark_changed();
        }
        let watch_anew = || monitor(&line.connection, shared, settings.settle_timeout);
        let mut watching = std::pin::pin!(watch_anew());
        let mut is_blocked = false;
        let (namespace, limit) = (&settings.namespace, settings.settle_timeout);
        let telling = publish_cancellation(&line.connection, namespace, cancelled, limit);
        let mut telling = std::pin::pin!(telling);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = true;
        loop {
            // Every arm only waits for something that stays true or stays where it is; what is pinned goes on where it was.
            tokio::select! {
                // While the broker reads nothing of ours it cannot be asked anything.
                reason = &mut watching, if !is_blocked => return End::Lost(reason),
                () = &mut telling => {}
                _ = sweep.tick(), if sweeps => sweeps = shared.gate.poll_confirms(shared),
                () = shared.gate.work_available(), if !sweeps => {
                    sweeps = true;
                    sweep.reset();
                }
                Some(ended) = line.replies.join_next() => {
                    return End::Lost(ended.unwrap_or_else(|e| format!("handing replies on failed: {e}")));
                }
                changed = health.changed() => {
                    if changed.is_err() {
                        return End::Lost("the connection is gone".to_owned());
                    }
                    let health = health.borrow_and_update().clone();
                    match health {
                        Health::Lost(reason) => return End::Lost(reason),
                        Health::Blocked(reason) => {
                            is_blocked = true;
                            shared.gate.block(Some(reason.clone()));
                            report.blocked(reason);
                        }
                        Health::Open => {
                            is_blocked = false;
                            watching.set(watch_anew());
                            shared.gate.block(None);
                            report.unblocked();
                        }
                    }
                }
                // Without a word everyone who held the requester is gone.
                grace = stopped.recv() => return End::Stopped(grace.unwrap_or(Duration::ZERO)),
            }
        }
    }

    /// Waits for the replies that are on their way, then hangs up.
    async fn drain(&self, mut line: ClientConnection, grace: Duration) {
        let until = Instant::now() + grace;
        let mut look = interval(SWEEP);
        let all_there = async {
            while !self.shared.waiting.is_empty() {
                tokio::select! {
                    _ = look.tick() => {}
                    // There will be no more.
                    _ = line.replies.join_next() => return,
                }
            }
        };
        let _ = timeout_at(until, all_there).await;
        let left = until.saturating_duration_since(Instant::now());
        line.connection.close(left.max(SWEEP)).await;
    }
}

/// Consumes the replies to what this channel publishes.
async fn consume_replies(channel: &Channel) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let (any_tag, none) = (ShortString::default(), FieldTable::default());
    channel
        .basic_consume(codec::REPLY_TO.into(), any_tag, options, none)
        .await
}

/// Gives every reply to whoever waits for it. Returns when none can come any more, with the reason.
async fn deliver_reply(mut consumer: Consumer, shared: Arc<Shared>) -> String {
    while let Some(received) = consumer.next().await {
        let received = match received {
            Ok(received) => received,
            Err(error) => return describe(&error),
        };
        shared.counts.heard.add(1);
        let properties = received.properties;
        let (number, answer) = match Undecodable::of(&properties) {
            None => {
                let mark = properties.correlation_id().as_ref();
                let number = mark.and_then(|mark| shared.waiting.number(mark.as_str()));
                (number, codec::read_reply(&properties, received.data))
            }
            Some(undecodable) => {
                let mark = undecodable.correlation_id();
                let number = mark.and_then(|mark| shared.waiting.number(&mark));
                (number, Err(CallError::Malformed(undecodable.reason)))
            }
        };
        if !number.is_some_and(|number| shared.waiting.complete(number, answer)) {
            shared.counts.late.add(1);
        }
    }
    "the broker brings no more replies".to_owned()
}
