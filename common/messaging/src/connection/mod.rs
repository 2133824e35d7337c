//! One connection to the broker: opened with a timeout to one of several addresses, monitored, and closed with a timeout.
//!
//! lapin's own recovery stays off: it gives up silently, resends nothing and leaves half-recovered channels. A user of a connection drops
//! it on any error and opens another.

pub(crate) mod address;
pub(crate) mod backoff;
mod dialer;
pub(crate) mod error;
mod failure;
mod health;
pub(crate) mod outage;
mod parser_guard;
pub(crate) mod probe_channel;
mod socket_guard;
pub(crate) mod status;
pub(crate) mod supervisor;
mod transport;

use std::{io, time::Duration};

use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties,
    options::ConfirmSelectOptions,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use crate::{
    connection::{
        address::Address,
        error::{ConnectError, Result},
    },
    settings::BrokerSettings,
};

pub(crate) use dialer::Dialer;
pub(crate) use failure::{connection_lost, describe, no_response, unknown_kind, wrong_user_id};
use failure::{failure, timeout_error};
use health::listen;
pub(crate) use health::{Health, changed};
pub(crate) use parser_guard::Undecodable;
pub(crate) use socket_guard::ShutdownOnDrop;
pub(crate) use transport::Transport;
use transport::{ClientRuntime, ClientStream, client_runtime};

/// An open connection. Dropping it shuts the socket down, so that no task waits on it any longer.
pub(crate) struct Connection {
    // Must drop before lapin's own handle, which may try to send.
    socket: ShutdownOnDrop,
    inner: lapin::Connection,
    health: watch::Receiver<Health>,
    listener: AbortHandle,
    address: Address,
}

impl Connection {
    /// Opens a connection to this address within [`BrokerSettings::connect_timeout`].
    async fn open(settings: &BrokerSettings, address: &Address, name: &str) -> Result<Self> {
        // The caller may be cancelled at any moment; then only this guard closes the socket.
        let socket = ShutdownOnDrop::default();
        let limit = settings.connect_timeout;
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Doorstep".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let uri = uri(address, settings.heartbeat);
        let target = address.clone();
        let tls = settings.tls.clone();
        let connector_socket = socket.0.clone();
        let opening = lapin::Connection::connector(
            uri,
            client_runtime(),
            // Runs on lapin's thread, which would otherwise wait for the operating system's timeout.
            async move |_: AMQPUri, _: ClientRuntime| {
                let connect = Transport::connect(&target, &tls, &connector_socket);
                match timeout(limit, connect).await {
                    Ok(stream) => Ok(AsyncTcpStream::Plain(ClientStream::new(stream?))),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            },
            properties,
        );
        // Slightly longer than the connector's timeout, so that its more precise error comes first.
        let inner = match timeout(limit + Duration::from_millis(250), opening).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(failure(address, &socket.0, &error)),
            // The peer is silent. Without shutting the socket down, lapin's thread would wait forever.
            Err(_) => return Err(timeout_error(address, limit)),
        };
        let (listener, health) = listen(&inner);
        Ok(Self {
            socket,
            inner,
            health,
            listener,
            address: address.clone(),
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the negotiated maximum bytes of a frame; 0 means no limit.
    pub(crate) fn frame_max(&self) -> u32 {
        self.inner.configuration().frame_max()
    }

    /// Returns a receiver of the connection's health. Its first change is the current health, unless the connection is simply open.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        let mut health = self.health.clone();
        if *health.borrow() != Health::Open {
            health.mark_changed();
        }
        health
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.health.borrow() == Health::Open
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// Fails if the connection is lost, or the broker does not respond within the limit.
    pub(crate) async fn channel(&self, limit: Duration) -> Result<Channel> {
        match timeout(limit, self.inner.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(timeout_error(&self.address, limit)),
        }
    }

    /// Waits for the response to a request on one of the connection's channels.
    ///
    /// # Errors
    /// Fails if the broker rejects the request, the connection is lost, or there is no response within the limit. `about` completes the
    /// text of that error.
    pub(crate) async fn response<T>(
        &self,
        limit: Duration,
        about: &str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T> {
        match timeout(limit, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(no_response(&self.address, limit, about)),
        }
    }

    /// Opens a channel in confirm mode.
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub(crate) async fn confirm_channel(&self, limit: Duration) -> Result<Channel> {
        let channel = self.channel(limit).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        self.response(limit, "", select).await?;
        Ok(channel)
    }

    /// Translates an error of this connection.
    pub(crate) fn failure(&self, error: &lapin::Error) -> ConnectError {
        failure(&self.address, &self.socket.0, error)
    }

    /// Closes the connection, and shuts the socket down after the limit at the latest.
    pub(crate) async fn close(self, limit: Duration) {
        // The result does not matter: dropping `self` shuts the socket down.
        let _ = timeout(limit, self.inner.close(200, "OK".into())).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn uri(address: &Address, heartbeat: Duration) -> AMQPUri {
    let seconds = heartbeat.as_secs().clamp(1, u64::from(u16::MAX)) as u16;
    AMQPUri {
        scheme: if address.uses_tls() {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: address.user().to_owned(),
                password: address.password().to_owned(),
            },
            host: address.host().to_owned(),
            port: address.port(),
        },
        vhost: address.vhost().to_owned(),
        query: AMQPQueryString {
            auth_mechanism: Some(if address.is_external() {
                SASLMechanism::External
            } else {
                SASLMechanism::Plain
            }),
            heartbeat: Some(address.heartbeat_seconds().unwrap_or(seconds)),
            ..AMQPQueryString::default()
        },
    }
}
