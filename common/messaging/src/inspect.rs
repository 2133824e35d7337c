//! Looking at queues, for status and for knowing when everything has been worked.

use std::time::Duration;

use lapin::{
    Channel,
    options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    connection::{Connection, Dialer, Health},
    error::{ConnectError, ConnectErrorKind, broker_reply, reply},
    message::short_string,
    names::QueueName,
    probe_channel::{ProbeChannel, ProbeResult},
    settings::BrokerSettings,
};

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that no consumer has been given, or that have come back.
    pub ready: u64,
    /// Consumers that are given messages: of several on a queue with a single active consumer, the active one alone.
    pub consumers: u64,
}

/// Why a queue could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// There is no such queue.
    #[error("queue {0} does not exist, it is declared by the role that works it")]
    Missing(QueueName),
    /// The broker has the queue, and the queue does not answer: it has lost its majority or its leader.
    #[error(
        "queue {0} exists and does not answer, so what is in it is unknown: it has lost its majority or its leader, see `rabbitmq-queues quorum_status`"
    )]
    Unreadable(QueueName),
    /// There is no connection, or the broker does not let us.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A connection that only looks. It connects again by itself when it is asked after it was lost.
pub struct Inspector {
    dialer: Dialer,
    line: Mutex<Option<Line>>,
}

struct Line {
    connection: Connection,
    channel: Option<Channel>,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector")
            .field("name", &self.dialer.name())
            .finish_non_exhaustive()
    }
}

impl Inspector {
    /// Connects under this name.
    ///
    /// # Errors
    /// There is no connection to be had; one attempt is made on each address.
    pub async fn connect(settings: &BrokerSettings, name: &str) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(settings, name);
        let connection = dialer.open().await?;
        Ok(Self {
            dialer,
            line: Mutex::new(Some(Line {
                connection,
                channel: None,
            })),
        })
    }

    /// How full a queue is. The broker's numbers may be a moment old.
    ///
    /// # Errors
    /// The queue does not exist, or the broker cannot be reached or does not answer.
    pub async fn queue_depth(&self, queue: &QueueName) -> Result<Depth, InspectError> {
        let limit = self.dialer.settings().connect_timeout;
        let mut held = self.line.lock().await;
        // Taken out, so that whatever goes wrong, or is cancelled, leaves nothing half-used behind.
        let mut line = match held.take() {
            Some(line) if *line.connection.health().borrow() == Health::Open => line,
            _ => Line {
                connection: self.dialer.open().await?,
                channel: None,
            },
        };
        let channel = match line.channel.take() {
            Some(channel) => channel,
            None => line.connection.channel(limit).await?,
        };
        let passive = QueueDeclareOptions {
            passive: true,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let look =
            channel.queue_declare(short_string(queue.as_str()), passive, FieldTable::default());
        match timeout(limit, look).await {
            Ok(Ok(found)) => {
                line.channel = Some(channel);
                *held = Some(line);
                Ok(Depth {
                    ready: u64::from(found.message_count()),
                    consumers: u64::from(found.consumer_count()),
                })
            }
            Ok(Err(error)) => {
                let missing = broker_reply(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND);
                let failure = line.connection.failure(&error);
                // The broker has closed the channel; the connection is as good as before.
                if error.is_amqp_soft_error() {
                    *held = Some(line);
                }
                if missing {
                    return Err(InspectError::Missing(queue.clone()));
                }
                Err(failure.into())
            }
            Err(_) => Err(ConnectError::new(
                ConnectErrorKind::Silent,
                format!(
                    "{} has not answered for {limit:?} about queue {queue}: has it lost its majority?",
                    line.connection.address()
                ),
            )
            .into()),
        }
    }

    /// Returns how full a queue of a role is, if the queue answers. [`Inspector::queue_depth`] cannot tell a quorum queue without a leader
    /// from an empty one without consumers, since the broker reports both as 0. Such a queue is asked itself, by a request that every
    /// queue with a single active consumer refuses once it has a leader.
    ///
    /// # Errors
    /// As [`Inspector::queue_depth`], and [`InspectError::Unreadable`].
    pub async fn certain_depth(&self, queue: &QueueName) -> Result<Depth, InspectError> {
        let depth = self.queue_depth(queue).await?;
        if depth.ready == 0 && depth.consumers == 0 && !self.answers(queue).await? {
            return Err(InspectError::Unreadable(queue.clone()));
        }
        Ok(depth)
    }

    async fn answers(&self, queue: &QueueName) -> Result<bool, InspectError> {
        let limit = self.dialer.settings().connect_timeout;
        let mut held = self.line.lock().await;
        let line = match held.take() {
            Some(line) if *line.connection.health().borrow() == Health::Open => line,
            _ => Line {
                connection: self.dialer.open().await?,
                channel: None,
            },
        };
        let mut asker = ProbeChannel::new(&line.connection, limit);
        let get = async |channel: Channel| {
            let options = BasicGetOptions { no_ack: false };
            let Some(got) = channel
                .basic_get(short_string(queue.as_str()), options)
                .await?
            else {
                return Ok(());
            };
            // Only a queue that is not a role's gives out a message here; it gets the message back.
            let back = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            got.nack(back).await.map(drop)
        };
        match asker.try_method(get).await {
            // A user without the right to read learns no more.
            Ok(ProbeResult::Yes(()) | ProbeResult::No(..)) => {
                asker.close().await;
                *held = Some(line);
                Ok(true)
            }
            // The broker ends the connection, or says nothing, if the queue has no leader.
            Ok(ProbeResult::Silence) | Err(_) => Ok(false),
        }
    }

    /// Hangs up, within the limit.
    pub async fn close(self, limit: Duration) {
        if let Some(line) = self.line.into_inner() {
            line.connection.close(limit).await;
        }
    }
}
