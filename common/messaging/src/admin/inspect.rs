//! Inspects queues, for status and for detecting that all messages are processed.

use std::time::Duration;

use lapin::{
    Channel,
    options::{BasicGetOptions, BasicNackOptions},
    types::FieldTable,
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    amqp::{PASSIVE_QUEUE, short_string},
    connection::{
        Connection, Dialer,
        error::{ConnectError, Result, broker_reply, reply},
        no_response,
        probe_channel::{ProbeChannel, ProbeResult},
    },
    settings::BrokerSettings,
    topology::names::QueueName,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages ready for delivery, including requeued ones.
    pub ready: u64,
    /// Consumers that receive messages. On a queue with a single active consumer, only the active one counts.
    pub consumers: u64,
}

/// The reason why a queue cannot be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("queue {0} does not exist: start the role that consumes it, which declares it")]
    Missing(QueueName),
    /// The queue exists but does not respond: it has lost its quorum or its leader.
    #[error(
        "queue {0} exists but does not respond, so its depth is unknown: it has lost its quorum or its leader, see `rabbitmq-queues quorum_status`"
    )]
    Unreadable(QueueName),
    /// The broker is unreachable, or denies permission.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A read-only connection. If it is lost, the next call reconnects.
#[derive(derive_more::Debug)]
#[debug("Inspector")]
pub struct Inspector {
    dialer: Dialer,
    open: Mutex<Option<OpenConnection>>,
}

struct OpenConnection {
    connection: Connection,
    channel: Option<Channel>,
}

impl Inspector {
    /// Connects under this name. Tries each address once.
    ///
    /// # Errors
    /// Fails if no address accepts a connection.
    pub async fn connect(settings: &BrokerSettings, name: &str) -> Result<Self> {
        let dialer = Dialer::new(settings, name);
        let inspector = Self {
            dialer,
            open: Mutex::new(None),
        };
        *inspector.open.lock().await = Some(inspector.reopened(None).await?);
        Ok(inspector)
    }

    async fn reopened(&self, open: Option<OpenConnection>) -> Result<OpenConnection> {
        match open {
            Some(open) if open.connection.is_open() => Ok(open),
            _ => Ok(OpenConnection {
                connection: self.dialer.open().await?,
                channel: None,
            }),
        }
    }

    /// Returns a queue's depth. The broker's numbers may be slightly old.
    ///
    /// # Errors
    /// Fails if the queue does not exist, or the broker is unreachable or does not respond.
    pub async fn queue_depth(&self, queue: &QueueName) -> Result<Depth, InspectError> {
        let limit = self.dialer.settings().connect_timeout;
        let mut guard = self.open.lock().await;
        // Taken out of the mutex, so that an error or a cancellation leaves no half-used state behind.
        let mut open = self.reopened(guard.take()).await?;
        let channel = match open.channel.take() {
            Some(channel) => channel,
            None => open.connection.channel(limit).await?,
        };
        let name = short_string(queue.as_str());
        let declare = channel.queue_declare(name, PASSIVE_QUEUE, FieldTable::default());
        match timeout(limit, declare).await {
            Ok(Ok(found)) => {
                open.channel = Some(channel);
                *guard = Some(open);
                Ok(Depth {
                    ready: u64::from(found.message_count()),
                    consumers: u64::from(found.consumer_count()),
                })
            }
            Ok(Err(error)) => {
                let missing =
                    broker_reply(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND);
                let failure = open.connection.failure(&error);
                // The broker closed only the channel; the connection is still usable.
                if error.is_amqp_soft_error() {
                    *guard = Some(open);
                }
                if missing {
                    return Err(InspectError::Missing(queue.clone()));
                }
                Err(failure.into())
            }
            Err(_) => {
                let about = format!(" about queue {queue}: has it lost its quorum?");
                Err(no_response(open.connection.address(), limit, &about).into())
            }
        }
    }

    /// Returns the depth of a role's queue if the queue responds. [`Inspector::queue_depth`] cannot distinguish a quorum queue without a
    /// leader from an empty queue without consumers, because the broker reports 0 for both. So such a queue gets a `basic.get`, which every
    /// queue with a single active consumer rejects once it has a leader.
    ///
    /// # Errors
    /// As [`Inspector::queue_depth`], and [`InspectError::Unreadable`].
    pub async fn certain_depth(&self, queue: &QueueName) -> Result<Depth, InspectError> {
        let depth = self.queue_depth(queue).await?;
        if depth.ready == 0 && depth.consumers == 0 && !self.has_leader(queue).await? {
            return Err(InspectError::Unreadable(queue.clone()));
        }
        Ok(depth)
    }

    async fn has_leader(&self, queue: &QueueName) -> Result<bool, InspectError> {
        let limit = self.dialer.settings().connect_timeout;
        let mut guard = self.open.lock().await;
        let open = self.reopened(guard.take()).await?;
        let mut probe = ProbeChannel::new(&open.connection, limit);
        let get = async |channel: Channel| {
            let options = BasicGetOptions { no_ack: false };
            let Some(message) = channel
                .basic_get(short_string(queue.as_str()), options)
                .await?
            else {
                return Ok(());
            };
            // Only a queue that belongs to no role returns a message here. The message is requeued.
            let requeue = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            message.nack(requeue).await.map(drop)
        };
        match probe.try_method(get).await {
            // Without read permission, nothing more can be learned.
            Ok(ProbeResult::Accepted(()) | ProbeResult::Rejected(..)) => {
                probe.close().await;
                *guard = Some(open);
                Ok(true)
            }
            // If the queue has no leader, the broker closes the connection or does not respond.
            Ok(ProbeResult::TimedOut) | Err(_) => Ok(false),
        }
    }

    /// Closes the connection within the limit.
    pub async fn close(self, limit: Duration) {
        if let Some(open) = self.open.into_inner() {
            open.connection.close(limit).await;
        }
    }
}
