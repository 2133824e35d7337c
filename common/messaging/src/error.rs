//! Why there is no connection to the broker, as a type that says whether waiting may help.

use std::fmt;

use doorstep_tls::TlsErrorKind;

/// No connection, channel or topology, with the reason and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    message: String,
}

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// Nobody answers there, or the connection broke.
    Unreachable,
    /// The broker answers and does not let us.
    Refused(Refusal),
    /// A queue or exchange exists with other arguments.
    Mismatch,
    /// The broker lacks a plugin.
    Plugin,
    /// The role's queues belong to another store.
    OtherStore,
    /// The address accepts connections and then says nothing.
    Silent,
    /// The TLS handshake fails, or would be needed.
    Tls(TlsErrorKind),
    /// The broker, or whatever it is, answers what does not fit the protocol, or ends the conversation.
    Protocol,
}

/// What the broker does not let us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// User and password do not fit.
    Credentials,
    /// The virtual host does not exist, or is not ours.
    VirtualHost,
    /// The user may not do that to that exchange or queue.
    Permission,
    /// The user id that messages carry is not the name of the connection's user.
    UserId,
}

impl ConnectError {
    pub(crate) fn new(kind: ConnectErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What kind of reason it is.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// Whether it stays so until somebody changes settings, permissions or queues. A program that starts gives up on these at
    /// once; one that was already running keeps trying, since a broker that is being restored looks the same for a while.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            ConnectErrorKind::Refused(_)
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

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectError {}

/// The reply code of an error that the broker sent, and its words.
pub(crate) fn broker_reply(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(reply) => {
            Some((reply.get_id(), reply.get_message().as_str()))
        }
        _ => None,
    }
}

/// AMQP's reply codes that we tell apart.
pub(crate) mod reply {
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
}
