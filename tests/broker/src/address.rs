//! The address of a broker: `amqp://user:password@host:port/vhost?parameters`.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// A parsed AMQP address. Its text form contains the password, so print it only on request.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpAddress {
    /// `amqp` or `amqps`.
    pub scheme: String,
    /// The decoded user name.
    pub user: String,
    /// The decoded password.
    pub password: String,
    /// A host name or an IP address.
    pub host: String,
    /// The port of the AMQP listener.
    pub port: u16,
    /// The decoded virtual host: `/` if the address names none.
    pub vhost: String,
    /// The unchanged text after the question mark; may be empty.
    pub parameters: String,
}

impl AmqpAddress {
    /// Parses an address.
    ///
    /// # Errors
    /// If the scheme is neither `amqp` nor `amqps`, or the port is not a number. The text of the error does not repeat
    /// the address, since that contains a password.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .context("a broker's address looks like amqp://user:password@host:5672/vhost")?;
        ensure!(
            matches!(scheme, "amqp" | "amqps"),
            "a broker's address starts with amqp:// or amqps://, not with {scheme}://"
        );
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, decoded(vhost)?),
            None => (rest, "/".to_owned()),
        };
        let (user, password, place) = login_and_place(authority)?;
        let (host, port) = host_and_port(place, if scheme == "amqps" { 5671 } else { 5672 })?;
        Ok(Self {
            scheme: scheme.to_owned(),
            user: user.unwrap_or_else(|| "guest".to_owned()),
            password: password.unwrap_or_else(|| "guest".to_owned()),
            host,
            port,
            vhost,
            parameters: parameters.to_owned(),
        })
    }

    /// Returns the same broker and user with another virtual host.
    #[must_use]
    pub fn with_vhost(&self, vhost: &str) -> Self {
        Self {
            vhost: vhost.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Display for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}:{}@{}:{}/{}",
            self.scheme,
            percent_encoded(&self.user),
            percent_encoded(&self.password),
            self.host,
            self.port,
            percent_encoded(&self.vhost),
        )?;
        if !self.parameters.is_empty() {
            write!(f, "?{}", self.parameters)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of panics and test output.
        let place = format_args!("{}:{}/{}", self.host, self.port, self.vhost);
        write!(f, "{}://{}@{place}", self.scheme, self.user)
    }
}

/// Splits `user:password@host:port` into user, password (decoded, if present) and the rest.
pub(crate) fn login_and_place(authority: &str) -> Result<(Option<String>, Option<String>, &str)> {
    let Some((login, place)) = authority.rsplit_once('@') else {
        return Ok((None, None, authority));
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    Ok((Some(decoded(user)?), Some(decoded(password)?), place))
}

/// Splits `host:port`, `host`, `[::1]:port` or `[::1]`. The brackets stay: they are part of such a host's notation.
pub(crate) fn host_and_port(place: &str, default_port: u16) -> Result<(String, u16)> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let port = match port {
        None | Some("") => default_port,
        Some(text) => text
            .parse()
            .with_context(|| format!("{text} is not a port"))?,
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Ok((host.to_owned(), port))
}

/// Encodes `text` as one segment of an address: all but letters, digits, `-`, `.`, `_` and `~` as `%XX`.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            bail!("an address has a % that two hexadecimal digits do not follow");
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).context("an address holds bytes that are not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_was_written() {
        let text = "amqp://some%20one:p%40ss@localhost:5673/a%2Fb?heartbeat=10";
        let address = AmqpAddress::parse(text).unwrap();
        assert_eq!(address.user, "some one");
        assert_eq!(address.password, "p@ss");
        assert_eq!(address.vhost, "a/b");
        assert_eq!(address.port, 5673);
        assert_eq!(address.to_string(), text);
    }

    #[test]
    fn omitted_parts_of_an_address_are_filled_in() {
        let address = AmqpAddress::parse("amqps://[::1]").unwrap();
        assert_eq!(address.host, "[::1]");
        assert_eq!(address.port, 5671);
        assert_eq!(address.vhost, "/");
        assert_eq!(address.user, "guest");
        assert_eq!(address.to_string(), "amqps://guest:guest@[::1]:5671/%2F");
    }

    #[test]
    fn a_bad_address_is_rejected_without_its_password() {
        for text in [
            "http://a:secret@h",
            "a:secret@h",
            "amqp://a:secret@h:port",
            "amqp://a:secret%2@h",
        ] {
            let error = format!("{:#}", AmqpAddress::parse(text).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let address = AmqpAddress::parse("amqp://me:secret@h/v").unwrap();
        assert_eq!(format!("{address:?}"), "amqp://me@h:5672/v");
    }
}
