//! The address of the management API, and the login there.

use std::{borrow::Cow, fmt, path::PathBuf};

use clap::Args;
use doorstep_messaging::{Address, BrokerSettings};
use doorstep_telemetry::{HttpLogin, HttpUrl};
use percent_encoding::percent_decode_str;

use super::Management;
use crate::{SettingsErrors, parse::password};

/// The user of a fresh RabbitMQ, and its password.
const GUEST: &str = "guest";

/// RabbitMQ's port of the management API without TLS.
const PLAIN_PORT: u16 = 15672;
const TLS_PORT: u16 = 15671;

/// The management API's address and login. `Debug` leaves the address out, since it may hold a password.
#[derive(Args)]
#[command(next_help_heading = "Broker")]
pub struct ManagementArgs {
    /// RabbitMQ's management API, http or https, with its user: for bindings, policies and topic permissions, which AMQP does not show
    /// [default: not asked]. The user needs the tag management and any permission in the virtual host.
    #[arg(
        long,
        env = "DOORSTEP_MANAGEMENT_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub management_url: Option<String>,

    /// A file with the password for that address, which then has none; the end of its line does not count.
    #[arg(long, env = "DOORSTEP_MANAGEMENT_PASSWORD_FILE", value_name = "FILE")]
    pub management_password_file: Option<PathBuf>,
}

impl fmt::Debug for ManagementArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementArgs").finish_non_exhaustive()
    }
}

const URL: &str = "--management-url (DOORSTEP_MANAGEMENT_URL)";
const PASSWORD: &str = "--management-password-file (DOORSTEP_MANAGEMENT_PASSWORD_FILE)";

impl ManagementArgs {
    /// Validates them, even if the broker's settings are invalid. Without an address, the API is not used. Over https,
    /// the API's certificate is checked as the broker's is.
    pub fn check(
        &self,
        wrong: &mut SettingsErrors,
        broker: Option<&BrokerSettings>,
    ) -> Option<Option<Management>> {
        let file = self.management_password_file.as_deref().map(password);
        let file = wrong.check(PASSWORD, file.transpose());
        let Some(text) = self.management_url.as_deref().filter(|t| !t.is_empty()) else {
            if self.management_password_file.is_some() {
                let alone: Result<(), _> =
                    Err("is for an address that is not given: give --management-url, too");
                wrong.check(PASSWORD, alone);
                return None;
            }
            return Some(None);
        };
        let (url, login) = wrong.check(URL, read(text, file?))?;
        let broker = broker?;
        let vhost = broker.addresses.first().map_or("/", Address::vhost);
        let url = url.with_tls(broker.tls.clone());
        Some(Some(Management::new(url, login, vhost)))
    }
}

/// Parses `http://user:password@host:15672`. Errors never contain the text, which may hold a password.
fn read(text: &str, file: Option<String>) -> Result<(HttpUrl, HttpLogin), &'static str> {
    const MALFORMED: &str = "is not an address such as http://user:password@localhost:15672 or https://user@broker.example:15671";
    let (scheme, rest) = text.split_once("://").ok_or(MALFORMED)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let has_port = place
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let port = match scheme {
        _ if has_port => String::new(),
        "https" => format!(":{TLS_PORT}"),
        _ => format!(":{PLAIN_PORT}"),
    };
    let url: Result<HttpUrl, _> = format!("{scheme}://{place}{port}{path}").parse();
    let url = url.map_err(|_| MALFORMED)?;
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let password = match (password, file) {
        (Some(_), Some(_)) => {
            return Err(
                "has a password, and so has the password file: leave it out here, as in https://user@host",
            );
        }
        (None, Some(password)) => password,
        (Some(password), None) => decoded(password)?,
        (None, None) if user.is_empty() => GUEST.to_owned(),
        (None, None) => {
            return Err(
                "has a user without a password: write user:password@, or name --management-password-file",
            );
        }
    };
    let user = match decoded(user)? {
        user if user.is_empty() => GUEST.to_owned(),
        user if user.contains(':') => {
            return Err("has a user with a colon, which HTTP's logins do not carry");
        }
        user => user,
    };
    Ok((url, HttpLogin { user, password }))
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| "has a login that is not UTF-8: write % itself as %25")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_parts(
        text: &str,
        file: Option<&str>,
    ) -> Result<(String, String, String), &'static str> {
        let (url, login) = read(text, file.map(str::to_owned))?;
        Ok((url.to_string(), login.user, login.password))
    }

    #[test]
    fn address_defaults_to_the_api_login_and_port() {
        let whole = |url: &str, user: &str, password: &str| {
            Ok((url.to_owned(), user.to_owned(), password.to_owned()))
        };
        let url = "http://a%40b:p%3Aw@127.0.0.1:21001";
        assert_eq!(
            read_parts(url, None),
            whole("http://127.0.0.1:21001", "a@b", "p:w")
        );
        assert_eq!(
            read_parts("https://ops@[::1]/rabbit/", Some("word")),
            whole("https://[::1]:15671/rabbit", "ops", "word")
        );
        assert_eq!(
            read_parts("http://localhost", None),
            whole("http://localhost:15672", "guest", "guest")
        );
    }

    #[test]
    fn a_wrong_address_is_rejected_without_its_password() {
        for (text, file, part) in [
            ("localhost:15672", None, "not an address"),
            ("amqp://ops:secret@localhost", None, "not an address"),
            ("http://ops:secret@localhost:x", None, "not an address"),
            ("http://ops:secret@", None, "not an address"),
            ("http://ops:secret@localhost", Some("word"), "password file"),
            ("http://ops@localhost", None, "without a password"),
            ("http://a%3Ab:secret@localhost", None, "colon"),
            ("http://ops:%ff@localhost", None, "UTF-8"),
        ] {
            let error = read_parts(text, file).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
