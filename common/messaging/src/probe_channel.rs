//! Asking the broker for something that it may refuse: it closes the channel then, and the next question opens another.

use std::time::Duration;

use lapin::Channel;
use tokio::time::timeout;

use crate::{
    connection::Connection,
    error::{ConnectError, broker_reply},
};

/// Asks one thing after the other.
pub(crate) struct ProbeChannel<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
    limit: Duration,
}

/// How one request went.
pub(crate) enum ProbeResult<T> {
    Yes(T),
    /// Refused with this code, in these words.
    No(u16, String),
    /// No answer within the limit. A broker whose cluster has lost its majority answers so to whatever it would have to write down.
    Silence,
}

impl<'a> ProbeChannel<'a> {
    pub(crate) fn new(connection: &'a Connection, limit: Duration) -> Self {
        Self {
            connection,
            channel: None,
            limit,
        }
    }

    pub(crate) fn connection(&self) -> &'a Connection {
        self.connection
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks on the open channel, or on a new one.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(crate) async fn try_method<T>(
        &mut self,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<ProbeResult<T>, ConnectError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.channel(self.limit).await?,
        };
        match timeout(self.limit, request(channel.clone())).await {
            Ok(Ok(answer)) => {
                self.channel = Some(channel);
                Ok(ProbeResult::Yes(answer))
            }
            Ok(Err(error)) => match broker_reply(&error) {
                Some((code, text)) if error.is_amqp_soft_error() => {
                    Ok(ProbeResult::No(code, text.to_owned()))
                }
                _ => Err(self.connection.failure(&error)),
            },
            Err(_) => Ok(ProbeResult::Silence),
        }
    }

    /// Closes the channel that is open, if one is.
    pub(crate) async fn close(self) {
        if let Some(channel) = self.channel {
            let _ = timeout(self.limit, channel.close(200, "OK".into())).await;
        }
    }
}
