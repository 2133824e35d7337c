//! One connection to the broker: opened with a bound over the addresses in turn, watched, and closed with a bound.
//!
//! The client's own recovery stays off: it gives up silently, resends nothing and leaves half-recovered channels. Whoever holds a
//! connection here drops it on any error and opens another.

mod dialer;
mod failure;
mod guard;
mod health;
mod socket_guard;
mod transport;

use std::{io, time::Duration};

use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism},
};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use crate::{address::Address, error::ConnectError, settings::BrokerSettings};

pub(crate) use dialer::Dialer;
pub(crate) use failure::{connection_lost, describe, unknown_kind, wrong_user_id};
use failure::{failure, timeout_error};
pub(crate) use guard::Undecodable;
pub(crate) use health::Health;
use health::listen;
pub(crate) use socket_guard::ShutdownOnDrop;
pub(crate) use transport::Transport;
use transport::{ClientRuntime, ClientStream, client_runtime};

/// An open connection. Dropping it cuts the wire, so that nothing is left waiting on it.
pub(crate) struct Connection {
    // Goes before the client's own handle does, which may want to say something.
    wire: ShutdownOnDrop,
    inner: lapin::Connection,
    health: watch::Receiver<Health>,
    listener: AbortHandle,
    address: Address,
}

impl Connection {
    /// Opens one there, in at most [`BrokerSettings::connect_timeout`].
    async fn open(
        settings: &BrokerSettings,
        address: &Address,
        name: &str,
    ) -> Result<Self, ConnectError> {
        // Whoever opens may go away at any moment, and nothing then hangs up but this.
        let wire = ShutdownOnDrop::default();
        let limit = settings.connect_timeout;
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Doorstep".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let uri = uri(address, settings.heartbeat);
        let place = address.clone();
        let tls = settings.tls.clone();
        let connector_wire = wire.0.clone();
        let opening = lapin::Connection::connector(
            uri,
            client_runtime(),
            // Runs on the client's thread, which would otherwise wait as long as the operating system does.
            async move |_: AMQPUri, _: ClientRuntime| {
                let connect = Transport::connect(&place, &tls, &connector_wire);
                match timeout(limit, connect).await {
                    Ok(stream) => Ok(AsyncTcpStream::Plain(ClientStream::new(stream?))),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            },
            properties,
        );
        // A little more than the connector has, so that its own, better reason comes first.
        let inner = match timeout(limit + Duration::from_millis(250), opening).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(failure(address, &wire.0, &error)),
            // Nobody says anything: if the wire were not cut, the client's thread would wait for a word for good.
            Err(_) => return Err(timeout_error(address, limit)),
        };
        let (listener, health) = listen(&inner);
        Ok(Self {
            wire,
            inner,
            health,
            listener,
            address: address.clone(),
        })
    }

    /// Where it leads, with the password masked.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The most bytes of a frame that both sides have agreed on; 0 is no limit.
    pub(crate) fn frame_max(&self) -> u32 {
        self.inner.configuration().frame_max()
    }

    /// How it is, from now on.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// The connection is gone, or does not answer within the limit.
    pub(crate) async fn channel(&self, limit: Duration) -> Result<Channel, ConnectError> {
        match timeout(limit, self.inner.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(timeout_error(&self.address, limit)),
        }
    }

    /// An error of this connection in our own words.
    pub(crate) fn failure(&self, error: &lapin::Error) -> ConnectError {
        failure(&self.address, &self.wire.0, error)
    }

    /// Says good-bye, and hangs up after the limit at the latest.
    pub(crate) async fn close(self, limit: Duration) {
        // The answer does not matter: whatever happens, the wire is cut when `self` is dropped.
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
