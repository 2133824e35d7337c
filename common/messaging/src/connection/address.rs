//! A broker's address: `amqp://user:password@host:port/vhost?heartbeat=10`.
//!
//! Parsed here rather than by lapin, which takes an IPv6 address for localhost and an empty path for a nameless virtual host, and silently
//! ignores misspelt parameters.

use std::{fmt, str::FromStr};

/// A broker's host and port, the user and the virtual host. `Debug` and `Display` mask the password.
#[derive(Clone, PartialEq, Eq, derive_more::Debug)]
#[debug("{self}")]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
    /// True if the address itself contains a password.
    has_password: bool,
    external: bool,
    vhost: String,
    heartbeat_seconds: Option<u16>,
}

/// An invalid address. The text never contains the address, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is missing, or neither amqp nor amqps.
    #[error(
        "an address starts with amqp:// or amqps://, such as amqp://user:password@localhost:5672/%2f"
    )]
    Scheme,
    #[error("the address has no host: write it as in amqp://localhost")]
    Host,
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// A `%` is not followed by two hexadecimal digits, or the decoded text is not UTF-8.
    #[error("{0} contains a % that does not encode a character: write % itself as %25")]
    Percent(&'static str),
    #[error("virtual host {0:?} contains a /: write it as %2f")]
    VirtualHost(String),
    /// An unknown parameter. Ignoring it would silently drop a setting.
    #[error(
        "parameter {0:?} is unknown: only heartbeat=SECONDS and auth_mechanism=plain|external are supported"
    )]
    Parameter(String),
    #[error("auth_mechanism {0:?} is neither plain nor external")]
    Mechanism(String),
    /// A client certificate is presented only in a TLS handshake.
    #[error(
        "auth_mechanism=external logs in with the client certificate of a TLS connection: write amqps://"
    )]
    ExternalWithoutTls,
    /// One of two passwords would be ignored.
    #[error(
        "the address and the password file both give a password: leave it out here, as in amqps://user@host"
    )]
    TwoPasswords,
    #[error("heartbeat {0:?} is not a number of seconds from 1 to 65535")]
    Heartbeat(String),
}

impl Address {
    /// Returns the host's name or address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; by default 5672, or 5671 for amqps.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the user; by default guest.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the virtual host; by default `/`.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Returns the same address in another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// Returns the same address with this password.
    ///
    /// # Errors
    /// Fails if the address contains another password.
    pub fn with_password(mut self, password: &str) -> Result<Self, AddressError> {
        if self.has_password && self.password != password {
            return Err(AddressError::TwoPasswords);
        }
        self.password = password.to_owned();
        self.has_password = true;
        Ok(self)
    }

    /// Returns whether the login uses the client certificate (SASL EXTERNAL) rather than a password.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.external
    }

    pub(crate) fn uses_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    pub(crate) fn heartbeat_seconds(&self) -> Option<u16> {
        self.heartbeat_seconds
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(AddressError::Scheme),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = split_port(host_port);
        if host.is_empty() {
            return Err(AddressError::Host);
        }
        let port = match port {
            None => {
                if tls {
                    5671
                } else {
                    5672
                }
            }
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(AddressError::Port(port.to_owned())),
            },
        };
        // `amqp://host/` and `amqp://host//` both mean the default virtual host, whose name is a slash.
        let vhost = match path {
            "" | "/" => "/".to_owned(),
            path if path.contains('/') => return Err(AddressError::VirtualHost(path.to_owned())),
            path => percent_decode("the virtual host", path)?,
        };
        let parameters = parameters(query)?;
        if parameters.external && !tls {
            return Err(AddressError::ExternalWithoutTls);
        }
        Ok(Self {
            tls,
            host: percent_decode("the host", host)?,
            port,
            user: or_guest(percent_decode("the user", user)?),
            password: if credentials.is_empty() {
                "guest".to_owned()
            } else {
                percent_decode("the password", password)?
            },
            has_password: credentials.contains(':'),
            external: parameters.external,
            vhost,
            heartbeat_seconds: parameters.heartbeat_seconds,
        })
    }
}

fn or_guest(user: String) -> String {
    if user.is_empty() {
        "guest".to_owned()
    } else {
        user
    }
}

/// Splits `host:port`; the host may be `[::1]`.
fn split_port(host_port: &str) -> (&str, Option<&str>) {
    if let Some(rest) = host_port.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':'));
    }
    match host_port.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host_port, None),
    }
}

#[derive(Default)]
struct Parameters {
    heartbeat_seconds: Option<u16>,
    external: bool,
}

fn parameters(query: &str) -> Result<Parameters, AddressError> {
    let mut parsed = Parameters::default();
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        match parameter.split_once('=') {
            Some(("heartbeat", seconds)) => match seconds.parse() {
                Ok(seconds) if seconds > 0 => parsed.heartbeat_seconds = Some(seconds),
                _ => return Err(AddressError::Heartbeat(seconds.to_owned())),
            },
            Some(("auth_mechanism", mechanism)) => {
                parsed.external = match mechanism.to_ascii_lowercase().as_str() {
                    "plain" => false,
                    "external" => true,
                    _ => return Err(AddressError::Mechanism(mechanism.to_owned())),
                };
            }
            _ => return Err(AddressError::Parameter(parameter.to_owned())),
        }
    }
    Ok(parsed)
}

fn percent_decode(part: &'static str, text: &str) -> Result<String, AddressError> {
    let invalid = || AddressError::Percent(part);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let high = digit().ok_or_else(invalid)?;
        let low = digit().ok_or_else(invalid)?;
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let vhost = self.vhost.replace('%', "%25").replace('/', "%2f");
        write!(
            f,
            "{scheme}://{}:***@{open}{}{close}:{}/{vhost}",
            self.user, self.host, self.port,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn omitted_parts_have_defaults() {
        let address = read("amqp://localhost");
        assert_eq!(
            (address.user(), address.password(), address.port()),
            ("guest", "guest", 5672)
        );
        assert_eq!(address.vhost(), "/");
        assert_eq!(read("amqps://broker").port(), 5671);
        assert_eq!(read("amqp://broker/").vhost(), "/");
        assert_eq!(read("amqp://broker/%2f").vhost(), "/");
        assert_eq!(read("amqp://broker//").vhost(), "/");
    }

    #[test]
    fn every_part_is_parsed() {
        let address = read("amqp://shop:p%40ss%2Fw@[::1]:5679/my%20shop?heartbeat=7");
        assert_eq!(address.user(), "shop");
        assert_eq!(address.password(), "p@ss/w");
        assert_eq!(address.host(), "::1");
        assert_eq!(address.port(), 5679);
        assert_eq!(address.vhost(), "my shop");
        assert_eq!(address.heartbeat_seconds(), Some(7));
    }

    #[test]
    fn certificate_login_requires_tls() {
        assert!(read("amqps://broker?auth_mechanism=external").is_external());
        assert!(!read("amqps://broker?auth_mechanism=PLAIN").is_external());
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(
            error("amqp://broker?auth_mechanism=external"),
            AddressError::ExternalWithoutTls
        );
        assert_eq!(
            error("amqps://broker?auth_mechanism=none"),
            AddressError::Mechanism("none".into())
        );
    }

    #[test]
    fn a_password_has_one_source() {
        let with = |text: &str| read(text).with_password("from file");
        assert_eq!(with("amqp://shop@a").unwrap().password(), "from file");
        assert_eq!(with("amqp://a").unwrap().password(), "from file");
        assert!(with("amqp://shop:from%20file@a").is_ok());
        assert_eq!(with("amqp://shop:pw@a"), Err(AddressError::TwoPasswords));
    }

    #[test]
    fn a_password_is_never_printed() {
        let address = read("amqp://shop:secret@host/v");
        assert_eq!(address.to_string(), "amqp://shop:***@host:5672/v");
        assert!(!format!("{address:?}").contains("secret"));
        for invalid in [
            "http://u:secret@h",
            "amqp://u:secret@",
            "amqp://u:secret@h:x",
            "amqp://u:secret%@h",
        ] {
            let error = invalid.parse::<Address>().unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_invalid_part() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("localhost:5672"), AddressError::Scheme);
        assert_eq!(error("amqp://"), AddressError::Host);
        assert_eq!(error("amqp://h:0"), AddressError::Port("0".into()));
        assert_eq!(
            error("amqp://h/a/b"),
            AddressError::VirtualHost("a/b".into())
        );
        assert_eq!(
            error("amqp://h?hartbeat=1"),
            AddressError::Parameter("hartbeat=1".into())
        );
        assert_eq!(
            error("amqp://h?heartbeat=soon"),
            AddressError::Heartbeat("soon".into())
        );
    }
}
