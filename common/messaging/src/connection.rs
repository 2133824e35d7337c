//! One connection to the broker: opened with a bound over the addresses in turn, watched, and closed with a bound.
//!
//! The client's own recovery stays off: it gives up silently, resends nothing and leaves half-recovered channels. Whoever holds a
//! connection here drops it on any error and opens another.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use crate::{
    address::Address,
    error::{ConnectError, ConnectErrorKind, Refusal, broker_reply, reply},
    settings::BrokerSettings,
};

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works.
    Open,
    /// The broker takes nothing from it for now, for this reason.
    Blocked(String),
    /// It is gone, for this reason.
    Lost(String),
}

/// An open connection. Dropping it cuts the wire, so that nothing is left waiting on it.
pub(crate) struct Connection {
    inner: lapin::Connection,
    wire: Wire,
    health: watch::Receiver<Health>,
    listener: AbortHandle,
    address: Address,
}

impl Connection {
    /// Tries the addresses in turn, each for at most [`BrokerSettings::connect_timeout`].
    ///
    /// # Errors
    /// None of them works; the reason is the first permanent one, else the last.
    pub(crate) async fn open(settings: &BrokerSettings, name: &str) -> Result<Self, ConnectError> {
        let mut reasons: Vec<ConnectError> = Vec::new();
        for address in &settings.addresses {
            match Self::open_one(settings, address, name).await {
                Ok(connection) => return Ok(connection),
                Err(error) => reasons.push(error),
            }
        }
        let kind = reasons
            .iter()
            .find(|e| e.is_permanent())
            .or(reasons.last())
            .map_or(ConnectErrorKind::Unreachable, ConnectError::kind);
        let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        Err(ConnectError::new(kind, texts.join("; ")))
    }

    async fn open_one(
        settings: &BrokerSettings,
        address: &Address,
        name: &str,
    ) -> Result<Self, ConnectError> {
        let wire = Wire::default();
        let limit = settings.connect_timeout;
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Doorstep".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let uri = uri(address, settings.heartbeat);
        let runtime = lapin::runtime::default_runtime().map_err(|e| failure(address, &wire, &e))?;
        let connector_wire = wire.clone();
        let opening = lapin::Connection::connector(
            uri,
            runtime,
            // Runs on the client's thread, which would otherwise wait as long as the operating system does.
            async move |uri: AMQPUri, runtime| {
                let connect = async {
                    let place = (uri.authority.host.as_str(), uri.authority.port);
                    let places: Vec<_> = tokio::net::lookup_host(place).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, places).await?;
                    if let AsyncTcpStream::Plain(socket) = &stream {
                        // An acknowledgement is a small frame that nothing follows for a while; it should not wait for company.
                        socket.get_ref().set_nodelay(true)?;
                        connector_wire.hold(socket.get_ref())?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => {
                            let tls = OwnedTLSConfig::default();
                            stream.into_tls(&uri.authority.host, tls.as_ref()).await
                        }
                    }
                };
                match timeout(limit, connect).await {
                    Ok(stream) => stream.map_err(lapin::Error::from),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            },
            properties,
        );
        // A little more than the connector has, so that its own, better reason comes first.
        let inner = match timeout(limit + Duration::from_millis(250), opening).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(failure(address, &wire, &error)),
            Err(_) => {
                // Nobody says anything: without this, the client's thread would wait for a word for good.
                wire.cut();
                return Err(silence(address, limit));
            }
        };
        let (listener, health) = listen(&inner);
        Ok(Self {
            inner,
            wire,
            health,
            listener,
            address: address.clone(),
        })
    }

    /// Where it leads, with the password masked.
    pub(crate) fn address(&self) -> &Address {
        &self.address
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
            Err(_) => Err(silence(&self.address, limit)),
        }
    }

    /// An error of this connection in our own words.
    pub(crate) fn failure(&self, error: &lapin::Error) -> ConnectError {
        failure(&self.address, &self.wire, error)
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
        self.wire.cut();
    }
}

/// A second handle on the connection's socket. Blocked or half-dead connections cannot be closed politely, and the client offers no
/// other way; once the socket is shut down its thread ends by itself.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Option<TcpStream>>>);

impl Wire {
    fn hold(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        *self.lock() = Some(TcpStream::from(socket));
        Ok(())
    }

    /// Whether the address accepted the connection.
    fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    fn cut(&self) {
        if let Some(socket) = self.lock().take() {
            // Fails if the peer has hung up before, which is just as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the one listener that a connection has: the client's listeners compete for events rather than each hearing all.
fn listen(connection: &lapin::Connection) -> (AbortHandle, watch::Receiver<Health>) {
    let mut events = Box::pin(connection.events_listener());
    let status = connection.status();
    // Events from before there was a listener are not kept, so the state is looked at once it is there.
    let now = if !status.connected() {
        Health::Lost("the broker closed the connection".to_owned())
    } else if status.blocked() {
        Health::Blocked("the broker is short of resources".to_owned())
    } else {
        Health::Open
    };
    let (sender, receiver) = watch::channel(now);
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let health = match event {
                lapin::Event::ConnectionBlocked(reason) => Health::Blocked(reason),
                lapin::Event::ConnectionUnblocked => Health::Open,
                // The end of a channel, such as the answer to asking for a queue that does not exist. Whoever uses the channel hears
                // of it there.
                lapin::Event::Error(error) if error.is_amqp_soft_error() => continue,
                lapin::Event::Error(error) => Health::Lost(words(&error)),
                _ => continue,
            };
            // What is lost stays lost.
            sender.send_if_modified(|old| {
                let change = !matches!(old, Health::Lost(_)) && *old != health;
                if change {
                    *old = health;
                }
                change
            });
        }
    });
    (task.abort_handle(), receiver)
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
            heartbeat: Some(address.heartbeat_seconds().unwrap_or(seconds)),
            ..AMQPQueryString::default()
        },
    }
}

fn silence(address: &Address, limit: Duration) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::Silent,
        format!(
            "{address} accepts connections but has said nothing for {limit:?}: is that a RabbitMQ, and does it still run?"
        ),
    )
}

/// Puts one of the client's errors in our own words.
fn failure(address: &Address, wire: &Wire, error: &lapin::Error) -> ConnectError {
    use ConnectErrorKind::{Protocol, Refused, Unreachable};
    let (user, vhost) = (address.user(), address.vhost());
    let Some((code, text)) = broker_reply(error) else {
        return match error.kind() {
            lapin::ErrorKind::IOError(io) if !wire.is_held() => ConnectError::new(
                Unreachable,
                format!(
                    "{address} cannot be reached ({io}): is the broker running there, and is the address right?"
                ),
            ),
            lapin::ErrorKind::IOError(_) | lapin::ErrorKind::MissingHeartbeatError => {
                ConnectError::new(
                    Unreachable,
                    format!("the connection to {address} broke ({})", words(error)),
                )
            }
            _ => ConnectError::new(
                Protocol,
                format!(
                    "{address} does not answer as RabbitMQ would ({})",
                    words(error)
                ),
            ),
        };
    };
    match code {
        reply::ACCESS_REFUSED if text.contains("Login was refused") || text.contains("login") => {
            ConnectError::new(
                Refused(Refusal::Credentials),
                format!(
                    "{address} refuses user {user:?} with this password: correct them, or create the user with rabbitmqctl add_user"
                ),
            )
        }
        reply::ACCESS_REFUSED => ConnectError::new(
            Refused(Refusal::Permission),
            format!(
                "{address} does not permit that to user {user:?} ({text}): grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'"
            ),
        ),
        reply::NOT_ALLOWED if text.contains("not found") => ConnectError::new(
            Refused(Refusal::VirtualHost),
            format!(
                "virtual host {vhost} does not exist on {address}: create it with rabbitmqctl add_vhost {vhost}, or change the address's path"
            ),
        ),
        reply::NOT_ALLOWED if text.contains("refused for user") => ConnectError::new(
            Refused(Refusal::VirtualHost),
            format!(
                "{address} lets user {user:?} not into virtual host {vhost}: grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'"
            ),
        ),
        _ => ConnectError::new(Protocol, format!("{address} says: {text} ({code})")),
    }
}

/// The client's words for an error, in lower case as all of ours.
pub(crate) fn words(error: &lapin::Error) -> String {
    match (broker_reply(error), error.kind()) {
        (Some((code, text)), _) => format!("{text} ({code})"),
        (None, lapin::ErrorKind::IOError(io)) => io.to_string(),
        (None, _) => error.to_string(),
    }
}
