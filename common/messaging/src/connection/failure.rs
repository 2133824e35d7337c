//! Translates lapin's errors into [`ConnectError`], each with its remedy.

use std::time::Duration;

use doorstep_tls::TlsError;

use super::socket_guard::SocketHandle;
use crate::{
    connection::{
        address::Address,
        error::{ConnectError, ConnectErrorKind, Denial, broker_reply, reply},
    },
    topology::ExchangeKind,
};

pub(super) fn timeout_error(address: &Address, limit: Duration) -> ConnectError {
    ConnectError::silent(format!(
        "{address} accepts connections but has said nothing for {limit:?}: is RabbitMQ listening there, and does it still run?"
    ))
}

/// Returns the error for a request without a response; `about` names the request, or is empty.
pub(crate) fn no_response(address: &Address, limit: Duration, about: &str) -> ConnectError {
    ConnectError::silent(format!("{address} has not responded for {limit:?}{about}"))
}

/// Translates one of lapin's errors.
pub(super) fn failure(
    address: &Address,
    socket: &SocketHandle,
    error: &lapin::Error,
) -> ConnectError {
    use ConnectErrorKind::Denied;
    if let Some(error) = tls_error(error) {
        return ConnectError::new(
            ConnectErrorKind::Tls(error.kind()),
            format!("{address}: {error}"),
        );
    }
    let (user, vhost) = (address.user(), address.vhost());
    let Some((code, text)) = broker_reply(error) else {
        return match error.kind() {
            lapin::ErrorKind::IOError(io) if !socket.has_socket() => {
                ConnectError::unreachable(format!(
                    "{address} cannot be reached ({io}): is the broker running there, and is the address right?"
                ))
            }
            lapin::ErrorKind::IOError(_) | lapin::ErrorKind::MissingHeartbeatError => {
                ConnectError::unreachable(format!(
                    "the connection to {address} broke ({})",
                    describe(error)
                ))
            }
            _ => ConnectError::protocol(format!(
                "{address} does not respond as RabbitMQ would ({})",
                describe(error)
            )),
        };
    };
    match code {
        reply::ACCESS_REFUSED if address.is_external() && text.contains("ogin") => {
            ConnectError::new(
                Denied(Denial::Credentials),
                format!(
                    "{address} knows no user for this program's certificate ({text}): create the user under the certificate's name, as ssl_cert_login_from defines it, with rabbitmqctl add_user, and enable rabbitmq_auth_mechanism_ssl"
                ),
            )
        }
        reply::ACCESS_REFUSED if text.contains("Login was refused") || text.contains("login") => {
            ConnectError::new(
                Denied(Denial::Credentials),
                format!(
                    "{address} rejects user {user:?} with this password: correct them, or create the user with rabbitmqctl add_user"
                ),
            )
        }
        reply::ACCESS_REFUSED => ConnectError::no_permission(format!(
            "{address} denies user {user:?} a permission ({text}): grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*', or as `consumers topology permissions` prints"
        )),
        reply::NOT_ALLOWED if text.contains("not found") => ConnectError::new(
            Denied(Denial::VirtualHost),
            format!(
                "virtual host {vhost} does not exist on {address}: create it with rabbitmqctl add_vhost {vhost}, or change the address's path"
            ),
        ),
        reply::NOT_ALLOWED if text.contains("refused for user") => ConnectError::new(
            Denied(Denial::VirtualHost),
            format!(
                "{address} denies user {user:?} access to virtual host {vhost}: grant it with rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'"
            ),
        ),
        _ => unknown_kind(address, text).unwrap_or_else(|| {
            ConnectError::protocol(format!("{address} replies: {text} ({code})"))
        }),
    }
}

/// Returns the error as a TLS error, if it is one.
fn tls_error(error: &lapin::Error) -> Option<&TlsError> {
    match error.kind() {
        lapin::ErrorKind::IOError(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Translates a text about an unknown exchange type; `None` for any other text. Older brokers close the connection with it, newer ones the
/// channel.
pub(crate) fn unknown_kind(address: &Address, text: &str) -> Option<ConnectError> {
    let (_, kind) = text.split_once("unknown exchange type")?;
    let plugin = ExchangeKind::ConsistentHash.plugin().unwrap_or_default();
    Some(ConnectError::new(
        ConnectErrorKind::Plugin,
        format!(
            "{address} does not know exchanges of type {}: enable the plugin with rabbitmq-plugins enable {plugin}",
            kind.trim()
        ),
    ))
}

/// Translates a text about a rejected user id; `None` for any other text.
pub(crate) fn wrong_user_id(address: &Address, text: &str) -> Option<ConnectError> {
    if !text.contains("user_id property set to") {
        return None;
    }
    Some(ConnectError::new(
        ConnectErrorKind::Denied(Denial::UserId),
        format!(
            "{address} knows the connection's user by another name than the user id of its messages ({text}): set --user-id              (DOORSTEP_USER_ID) to the broker's name of the user, or to - so that messages carry none"
        ),
    ))
}

/// Returns the error for a lost connection; `reason` is lapin's text. If the broker closed it for a missing permission, the error says so
/// with its remedy, because the next attempt will fail too.
pub(crate) fn connection_lost(address: &Address, reason: &str) -> ConnectError {
    if let Some(error) = wrong_user_id(address, reason) {
        return error;
    }
    if !reason.contains("ACCESS_REFUSED") {
        return ConnectError::unreachable(format!("the connection to {address} broke ({reason})"));
    }
    ConnectError::no_permission(format!(
        "{address} denies user {:?} a permission ({reason}): grant it with rabbitmqctl set_permissions, see `consumers topology permissions`",
        address.user()
    ))
}

/// Formats lapin's error in lower case, like all error texts here.
pub(crate) fn describe(error: &lapin::Error) -> String {
    match (broker_reply(error), error.kind()) {
        (Some((code, text)), _) => format!("{text} ({code})"),
        (None, lapin::ErrorKind::IOError(io)) => io.to_string(),
        (None, _) => error.to_string(),
    }
}
