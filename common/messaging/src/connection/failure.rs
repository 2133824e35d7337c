//! The client's errors in our own words, with what can be done about them.

use std::time::Duration;

use super::wire::Wire;
use crate::{
    address::Address,
    error::{ConnectError, ConnectErrorKind, Refusal, broker_reply, reply},
};

pub(super) fn silence(address: &Address, limit: Duration) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::Silent,
        format!(
            "{address} accepts connections but has said nothing for {limit:?}: is that a RabbitMQ, and does it still run?"
        ),
    )
}

/// Puts one of the client's errors in our own words.
pub(super) fn failure(address: &Address, wire: &Wire, error: &lapin::Error) -> ConnectError {
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
