//! Sends requests that the broker may reject. A rejection closes the channel, and the next request opens another.

use std::time::Duration;

use lapin::Channel;
use tokio::time::timeout;

use crate::connection::{
    Connection,
    error::{ConnectError, Result, broker_reply},
    no_response,
};

/// Sends one request at a time.
pub(crate) struct ProbeChannel<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
    limit: Duration,
}

pub(crate) enum ProbeResult<T> {
    Accepted(T),
    /// Rejected, with the broker's reply code and text.
    Rejected(u16, String),
    /// No reply within the limit. A broker whose cluster has lost its quorum does not reply to requests that it would have to store.
    TimedOut,
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

    /// Sends a request on the open channel, or on a new one.
    ///
    /// # Errors
    /// Fails if the connection is unusable.
    pub(crate) async fn try_method<T>(
        &mut self,
        request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> Result<ProbeResult<T>> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.channel(self.limit).await?,
        };
        match timeout(self.limit, request(channel.clone())).await {
            Ok(Ok(value)) => {
                self.channel = Some(channel);
                Ok(ProbeResult::Accepted(value))
            }
            Ok(Err(error)) => match broker_reply(&error) {
                Some((code, text)) if error.is_amqp_soft_error() => {
                    Ok(ProbeResult::Rejected(code, text.to_owned()))
                }
                _ => Err(self.connection.failure(&error)),
            },
            Err(_) => Ok(ProbeResult::TimedOut),
        }
    }

    /// Returns the error for a request without a response about this object.
    pub(crate) fn timed_out(&self, object: &str) -> ConnectError {
        let about = format!(" about {object}: has its cluster lost its quorum?");
        no_response(self.connection.address(), self.limit, &about)
    }

    /// Closes the channel if it is open.
    /// Returns the error for an object whose declaration is rejected for no reason that a caller knows.
    pub(crate) fn rejected(&self, object: &str, code: u16, text: &str) -> ConnectError {
        let address = self.connection.address();
        ConnectError::protocol(format!(
            "{address} rejects the declaration of {object}: {text} ({code})"
        ))
    }

    pub(crate) async fn close(self) {
        if let Some(channel) = self.channel {
            let _ = timeout(self.limit, channel.close(200, "OK".into())).await;
        }
    }
}
