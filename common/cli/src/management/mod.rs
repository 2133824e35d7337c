//! The broker's management API, read only: for what AMQP does not show. It is optional everywhere, and decides nothing:
//! only operators' commands and `/readyz` show its results.
//!
//! - [`ManagementArgs`]: the address and the login.
//! - [`bindings`]: missing and surplus bindings of Doorstep's queues.
//! - [`policies`]: effective policies that can lose messages.
//! - [`granted`]: the permissions of users, for administrators.

mod args;
pub mod bindings;
pub mod granted;
pub mod policies;

use std::{fmt, time::Duration};

use doorstep_messaging::QueueName;
use doorstep_telemetry::{HttpLogin, HttpUrl};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

pub use args::ManagementArgs;

/// The time limit of one request. A broker under load serves this API last.
const LIMIT: Duration = Duration::from_secs(15);
/// The maximum of characters that an error quotes from the broker.
const MAX_WORDS: usize = 200;
/// All characters but those that RFC 3986 leaves unescaped.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A login to the management API, for one virtual host. Each request is a connection of its own. `Debug` leaves the
/// password out.
#[derive(Debug, Clone)]
pub struct Management {
    url: HttpUrl,
    login: HttpLogin,
    vhost: String,
}

/// A failed request to the management API. The text has the address, the reason and the remedy, and no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementError {
    /// No response over HTTP.
    #[error(
        "the management API at {0} does not answer ({1}): check --management-url (DOORSTEP_MANAGEMENT_URL), and that the plugin rabbitmq_management is enabled"
    )]
    Unreachable(String, String),
    /// The login, or its tags, are not sufficient.
    #[error(
        "the management API at {url} refuses user {user} ({words}): check its password, and give it the tag {tag} and a permission in virtual host {vhost} (rabbitmqctl set_user_tags {user} {tag})"
    )]
    Refused {
        url: String,
        user: String,
        vhost: String,
        /// The API's own reason.
        words: String,
        /// The least tag that is sufficient.
        tag: &'static str,
    },
    /// An unexpected response.
    #[error(
        "the management API at {0} answers with {1}: check that this is the address of RabbitMQ's management API"
    )]
    Unexpected(String, String),
}

impl Management {
    /// Creates a client for this virtual host. Sends nothing yet.
    #[must_use]
    pub fn new(url: HttpUrl, login: HttpLogin, vhost: &str) -> Self {
        Self {
            url,
            login,
            vhost: vhost.to_owned(),
        }
    }

    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Reads a property of a queue; `None` if there is no such queue. `part` is the part of the path after its name.
    async fn of_queue<T: DeserializeOwned + Send + 'static>(
        &self,
        queue: &QueueName,
        part: &str,
    ) -> Result<Option<T>, ManagementError> {
        let (vhost, queue) = (encoded(&self.vhost), encoded(queue.as_str()));
        let path = format!("/api/queues/{vhost}/{queue}{part}");
        self.get(path, "management").await
    }

    /// Reads a list of the virtual host that only administrators may see.
    async fn of_vhost<T: DeserializeOwned + Send + 'static>(
        &self,
        list: &str,
    ) -> Result<Vec<T>, ManagementError> {
        let path = format!("/api/vhosts/{}/{list}", encoded(&self.vhost));
        Ok(self.get(path, "administrator").await?.unwrap_or_default())
    }

    /// Reads the resource at a path; `None` if there is none. `tag` is the least of RabbitMQ's user tags that this
    /// needs. Cancel-safe: the request ends by its limit.
    async fn get<T: DeserializeOwned + Send + 'static>(
        &self,
        path: String,
        tag: &'static str,
    ) -> Result<Option<T>, ManagementError> {
        let (url, login) = (self.url.clone().join(&path), self.login.clone());
        let shown = self.url.to_string();
        let asked = spawn_blocking(move || url.ask_as(&login, LIMIT)).await;
        let (status, body) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(ManagementError::Unreachable(shown, error.to_string()));
            }
            Err(error) => return Err(ManagementError::Unreachable(shown, error.to_string())),
        };
        match status {
            200..=299 => serde_json::from_str(&body)
                .map(Some)
                .map_err(|error| ManagementError::Unexpected(shown, error.to_string())),
            404 => Ok(None),
            401 | 403 => Err(ManagementError::Refused {
                url: shown,
                user: self.login.user.clone(),
                vhost: self.vhost.clone(),
                words: error_reason(&body),
                tag,
            }),
            status => Err(ManagementError::Unexpected(
                shown,
                format!("status {status} ({})", error_reason(&body)),
            )),
        }
    }
}

impl fmt::Display for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Returns the API's own reason, or else the beginning of its response.
fn error_reason(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let reason = json.as_ref().and_then(|json| json["reason"].as_str());
    let text = reason.unwrap_or(body).trim();
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_WORDS)
        .collect()
}

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(encoded("/"), "%2F");
        assert_eq!(encoded("a/b c%?#"), "a%2Fb%20c%25%3F%23");
        assert_eq!(encoded("doorstep.orders.0"), "doorstep.orders.0");
    }

    #[test]
    fn rejection_reason_is_shown_shortened() {
        let body = r#"{"error":"not_authorised","reason":"Not administrator user"}"#;
        assert_eq!(error_reason(body), "Not administrator user");
        assert_eq!(error_reason("<html>\n"), "<html>");
        assert_eq!(error_reason(&"x".repeat(1000)).len(), MAX_WORDS);
    }
}
