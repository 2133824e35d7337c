//! One broker's address: `amqp://user:password@host:port/vhost?heartbeat=10`.
//!
//! Read here rather than by the client: it would take an IPv6 address for localhost, an empty path for a virtual host without a
//! name, and quietly pass over a parameter that is misspelt.

use std::{fmt, str::FromStr};

/// Where a broker is, who we are there, and in which virtual host. `Debug` and `Display` mask the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
    /// True if the address itself has a password.
    has_password: bool,
    external: bool,
    vhost: String,
    heartbeat_seconds: Option<u16>,
}

/// What is wrong with an address. The text never holds the address itself, which holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is nothing before `://`, or something other than amqp and amqps.
    #[error(
        "an address starts with amqp:// or amqps://, such as amqp://user:password@localhost:5672/%2f"
    )]
    Scheme,
    /// There is no host.
    #[error("an address without a host, write it as in amqp://localhost")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// A `%` is not followed by two hexadecimal digits, or what comes out is not UTF-8.
    #[error("{0} holds a % that does not stand for a character, write % itself as %25")]
    Percent(&'static str),
    /// An unescaped `/` in the virtual host.
    #[error("virtual host {0:?} holds a /, write it as %2f")]
    VirtualHost(String),
    /// A parameter that nobody reads would be a setting that silently does nothing.
    #[error(
        "parameter {0:?} is unknown, only heartbeat=SECONDS and auth_mechanism=plain|external can be given"
    )]
    Parameter(String),
    /// The login is neither by password nor by certificate.
    #[error("auth_mechanism {0:?} is neither plain nor external")]
    Mechanism(String),
    /// A certificate is shown only in a TLS handshake.
    #[error(
        "auth_mechanism=external logs in by the certificate of a TLS connection: write amqps://"
    )]
    ExternalWithoutTls,
    /// One of two passwords would be ignored.
    #[error(
        "it has a password, and so has the password file: leave it out here, as in amqps://user@host"
    )]
    TwoPasswords,
    /// The heartbeat is not a number of seconds.
    #[error("heartbeat {0:?} is not a number of seconds from 1 to 65535")]
    Heartbeat(String),
}

impl Address {
    /// The host's name or address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port: 5672, or 5671 for amqps, unless given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user: guest unless given.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The virtual host: `/` unless given.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The same address in another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// The same address with this password.
    ///
    /// # Errors
    /// The address has another one already.
    pub fn with_password(mut self, password: &str) -> Result<Self, AddressError> {
        if self.has_password && self.password != password {
            return Err(AddressError::TwoPasswords);
        }
        self.password = password.to_owned();
        self.has_password = true;
        Ok(self)
    }

    /// Returns whether the login is by the certificate of the TLS connection (SASL EXTERNAL) rather than by password.
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
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = split_port(place);
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
        // `amqp://host/` and `amqp://host//` are both meant as the default virtual host, whose name is a slash.
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

/// Splits `host:port`, where the host may be `[::1]`.
fn split_port(place: &str) -> (&str, Option<&str>) {
    if let Some(rest) = place.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':'));
    }
    match place.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    }
}

#[derive(Default)]
struct Parameters {
    heartbeat_seconds: Option<u16>,
    external: bool,
}

fn parameters(query: &str) -> Result<Parameters, AddressError> {
    let mut read = Parameters::default();
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        match parameter.split_once('=') {
            Some(("heartbeat", seconds)) => match seconds.parse() {
                Ok(seconds) if seconds > 0 => read.heartbeat_seconds = Some(seconds),
                _ => return Err(AddressError::Heartbeat(seconds.to_owned())),
            },
            Some(("auth_mechanism", mechanism)) => {
                read.external = match mechanism.to_ascii_lowercase().as_str() {
                    "plain" => false,
                    "external" => true,
                    _ => return Err(AddressError::Mechanism(mechanism.to_owned())),
                };
            }
            _ => return Err(AddressError::Parameter(parameter.to_owned())),
        }
    }
    Ok(read)
}

fn percent_decode(what: &'static str, text: &str) -> Result<String, AddressError> {
    let wrong = || AddressError::Percent(what);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let high = digit().ok_or_else(wrong)?;
        let low = digit().ok_or_else(wrong)?;
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
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

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_left_out_has_its_usual_value() {
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
    fn every_part_is_read() {
        let address = read("amqp://shop:p%40ss%2Fw@[::1]:5679/my%20shop?heartbeat=7");
        assert_eq!(address.user(), "shop");
        assert_eq!(address.password(), "p@ss/w");
        assert_eq!(address.host(), "::1");
        assert_eq!(address.port(), 5679);
        assert_eq!(address.vhost(), "my shop");
        assert_eq!(address.heartbeat_seconds(), Some(7));
    }

    #[test]
    fn a_login_by_certificate_takes_tls() {
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
    fn a_password_comes_from_one_place() {
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
        for wrong in [
            "http://u:secret@h",
            "amqp://u:secret@",
            "amqp://u:secret@h:x",
            "amqp://u:secret%@h",
        ] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
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
