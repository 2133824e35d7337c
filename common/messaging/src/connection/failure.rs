//! The client's errors in our own words, with what can be done about them.

use std::time::Duration;

use doorstep_tls::TlsError;

use super::socket_guard::SocketHandle;
use crate::{
    address::Address,
    error::{ConnectError, ConnectErrorKind, Refusal, broker_reply, reply},
    topology::ExchangeKind,
};

pub(super) fn timeout_error(address: &Address, limit: Duration) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::Silent,
        format!(
            "{address} accepts connections but has said nothing for {limit:?}: is that a RabbitMQ, and does it still run?"
        ),
    )
}

/// Puts one of the client's errors in our own words.
pub(super) fn failure(
    address: &Address,
    wire: &SocketHandle,
    error: &lapin::Error,
) -> ConnectError {
    use ConnectErrorKind::{Protocol, Refused, Unreachable};
    if let Some(error) = tls_error(error) {
        return ConnectError::new(
            ConnectErrorKind::Tls(error.kind()),
            format!("{address}: {error}"),
        );
    }
    let (user, vhost) = (address.user(), address.vhost());
    let Some((code, text)) = broker_reply(error) else {
        return match error.kind() {
            lapin::ErrorKind::IOError(io) if !wire.has_socket() => ConnectError::new(
                Unreachable,
                format!(
                    "{address} cannot be reached ({io}): is the broker running there, and is the address right?"
                ),
            ),
            lapin::ErrorKind::IOError(_) | lapin::ErrorKind::MissingHeartbeatError => {
                ConnectError::new(
                    Unreachable,
                    format!("the connection to {address} broke ({})", describe(error)),
                )
            }
            _ => ConnectError::new(
                Protocol,
                format!(
                    "{address} does not answer as RabbitMQ would ({})",
                    describe(error)
                ),
            ),
        };
    };
    match code {
        reply::ACCESS_REFUSED if address.is_external() && text.contains("ogin") => {
            ConnectError::new(
                Refused(Refusal::Credentials),
                format!(
                    "{address} knows no user by this program's certificate ({text}): create the user under the certificate's name, as ssl_cert_login_from says, with rabbitmqctl add_user, and enable rabbitmq_auth_mechanism_ssl"
                ),
            )
        }
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
                "{address} does not permit that to user {user:?} ({text}): grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*', or as `consumers topology permissions` shows"
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
        _ => unknown_kind(address, text).unwrap_or_else(|| {
            ConnectError::new(Protocol, format!("{address} says: {text} ({code})"))
        }),
    }
}

/// The reason, if it is one of TLS.
fn tls_error(error: &lapin::Error) -> Option<&TlsError> {
    match error.kind() {
        lapin::ErrorKind::IOError(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What the broker says of an exchange whose kind it does not know, if that is what this text says. Older ones end the connection with
/// it, newer ones the channel.
pub(crate) fn unknown_kind(address: &Address, text: &str) -> Option<ConnectError> {
    let (_, kind) = text.split_once("unknown exchange type")?;
    let plugin = ExchangeKind::ConsistentHash.plugin().unwrap_or_default();
    Some(ConnectError::new(
        ConnectErrorKind::Plugin,
        format!(
            "{address} does not know exchanges of kind {}: enable it with rabbitmq-plugins enable {plugin}",
            kind.trim()
        ),
    ))
}

/// Describes the consequence if the broker refuses a message for its user id, if that is what this text says.
pub(crate) fn wrong_user_id(address: &Address, text: &str) -> Option<ConnectError> {
    if !text.contains("user_id property set to") {
        return None;
    }
    Some(ConnectError::new(
        ConnectErrorKind::Refused(Refusal::UserId),
        format!(
            "{address} knows the connection's user by another name than the user id of its messages ({text}): set --user-id              (DOORSTEP_USER_ID) to the broker's name of the user, or to - so that messages carry none"
        ),
    ))
}

/// A connection that was there and is of no more use, for this reason in the client's words. Where the broker has ended it for want of a
/// right, that is the reason, with its remedy: it will be so again after the next attempt.
pub(crate) fn connection_lost(address: &Address, reason: &str) -> ConnectError {
    if let Some(error) = wrong_user_id(address, reason) {
        return error;
    }
    if !reason.contains("ACCESS_REFUSED") {
        return ConnectError::new(
            ConnectErrorKind::Unreachable,
            format!("the connection to {address} broke ({reason})"),
        );
    }
    ConnectError::new(
        ConnectErrorKind::Refused(Refusal::Permission),
        format!(
            "{address} does not permit that to user {:?} ({reason}): grant it with rabbitmqctl set_permissions, `consumers topology permissions` shows how",
            address.user()
        ),
    )
}

/// The client's words for an error, in lower case as all of ours.
pub(crate) fn describe(error: &lapin::Error) -> String {
    match (broker_reply(error), error.kind()) {
        (Some((code, text)), _) => format!("{text} ({code})"),
        (None, lapin::ErrorKind::IOError(io)) => io.to_string(),
        (None, _) => error.to_string(),
    }
}
