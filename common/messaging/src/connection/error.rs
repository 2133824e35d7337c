//! Connection errors, with a kind that says whether waiting may help.

use doorstep_tls::TlsErrorKind;

/// The result of an attempt to get a connection, channel or topology.
pub(crate) type Result<T, E = ConnectError> = std::result::Result<T, E>;

/// A failure to get a connection, channel or topology, with its reason and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    kind: ConnectErrorKind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// No process accepts connections at the address, or the connection broke.
    Unreachable,
    /// The broker rejects the login or denies a permission.
    Denied(Denial),
    Mismatch,
    Plugin,
    OtherStore,
    /// The address accepts connections, but does not respond.
    Silent,
    /// The TLS handshake fails, or the broker requires TLS.
    Tls(TlsErrorKind),
    /// The peer violates the protocol, or closes the connection.
    Protocol,
}

/// The subject of a broker's rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    Credentials,
    /// The virtual host does not exist, or the user has no access to it.
    VirtualHost,
    /// The user lacks a permission on an exchange or queue.
    Permission,
    /// The messages' user id is not the name of the connection's user.
    UserId,
}

impl ConnectError {
    pub(crate) fn new(kind: ConnectErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::Unreachable, message)
    }

    pub(crate) fn no_permission(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::Denied(Denial::Permission), message)
    }

    pub(crate) fn mismatch(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::Mismatch, message)
    }

    pub(crate) fn other_store(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::OtherStore, message)
    }

    pub(crate) fn silent(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::Silent, message)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ConnectErrorKind::Protocol, message)
    }

    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// Returns whether only a change of settings, permissions or queues can help. A starting program gives up on such errors at once. A
    /// running program keeps trying, because a broker that is being restored looks the same for a while.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            ConnectErrorKind::Denied(_)
            | ConnectErrorKind::Mismatch
            | ConnectErrorKind::Plugin
            | ConnectErrorKind::OtherStore => true,
            ConnectErrorKind::Tls(kind) => kind.is_permanent(),
            ConnectErrorKind::Unreachable
            | ConnectErrorKind::Silent
            | ConnectErrorKind::Protocol => false,
        }
    }
}

/// Returns the code and text of an error sent by the broker.
pub(crate) fn broker_reply(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(reply) => {
            Some((reply.get_id(), reply.get_message().as_str()))
        }
        _ => None,
    }
}

/// The AMQP reply codes used here.
pub(crate) mod reply {
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
}
