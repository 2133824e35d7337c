//! Addresses of mail: parsed strictly, masked wherever they are displayed.

use std::{fmt, net::Ipv4Addr, str::FromStr, sync::Arc};

use email_address::Options;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Maximum bytes of an address, by the rules of SMTP.
const MAX_BYTES: usize = 254;

/// An address that mail can be sent to, compared as bytes. `Display` and `Debug` mask it (`a***@example.com`), so that no log line and no
/// error holds one; [`EmailAddress::expose`] and serde do not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(Arc<str>);

/// The reason why a text is not an address. It holds nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmailAddressError {
    #[error("the address has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// The text contains white space, a control character, or one beyond ASCII.
    #[error(
        "the address has a character that is not printable ASCII: write a domain of another script in its form xn--"
    )]
    Character,
    #[error("the part before the @ is in quotes, which many mail servers refuse")]
    Quoted,
    /// The text does not follow the grammar of addresses.
    #[error("the address is not of the form name@example.com")]
    Malformed,
    /// The domain has an unusual character, or is an IP address.
    #[error("the part after the @ is not a domain such as example.com")]
    Domain,
}

impl EmailAddress {
    /// Parses an address without display name, brackets, quotes, comments and IP addresses. The domain needs a dot.
    ///
    /// # Errors
    /// Names the violated rule, but never the text.
    pub fn new(text: &str) -> Result<Self, EmailAddressError> {
        if text.len() > MAX_BYTES {
            return Err(EmailAddressError::TooLong(text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(EmailAddressError::Character);
        }
        if text.starts_with('"') {
            return Err(EmailAddressError::Quoted);
        }
        let options = Options::default()
            .with_required_tld()
            .without_domain_literal()
            .without_display_text();
        let parsed = email_address::EmailAddress::parse_with_options(text, options)
            .map_err(|_| EmailAddressError::Malformed)?;
        let domain = parsed.domain();
        let is_name = domain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !is_name || domain.parse::<Ipv4Addr>().is_ok() {
            return Err(EmailAddressError::Domain);
        }
        Ok(Self(text.into()))
    }

    /// Returns the address itself, for an envelope or a header of a mail.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (local, domain) = self.0.rsplit_once('@').unwrap_or_default();
        let first = local.get(..1).unwrap_or_default();
        write!(f, "{first}***@{domain}")
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EmailAddress {
    type Err = EmailAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for EmailAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EmailAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_addresses_are_valid() {
        for good in [
            "alice@example.com",
            "a.b+orders@mail.example.co.uk",
            "x_y-z@xn--bcher-kva.example",
            "o'neil@example.com",
        ] {
            assert_eq!(EmailAddress::new(good).unwrap().expose(), good);
        }
    }

    #[test]
    fn unusual_addresses_are_rejected() {
        use EmailAddressError as E;
        let long = format!("a@{}.example.com", "b.".repeat(130));
        for (bad, reason) in [
            ("", E::Malformed),
            ("alice", E::Malformed),
            ("@example.com", E::Malformed),
            ("alice@", E::Malformed),
            ("alice@localhost", E::Malformed),
            ("a@b@example.com", E::Malformed),
            ("alice@example..com", E::Malformed),
            (".alice@example.com", E::Malformed),
            ("<alice@example.com>", E::Malformed),
            ("alice@-example.com", E::Malformed),
            ("alice@[192.0.2.1]", E::Malformed),
            ("alice@192.0.2.1", E::Domain),
            ("alice@exa!mple.com", E::Domain),
            ("\"alice\"@example.com", E::Quoted),
            (" <alice@example.com", E::Character),
            (" <alice@example.com>", E::Character),
            ("Alice <alice@example.com>", E::Character),
            ("alice@example.com\r\nBcc: b@example.com", E::Character),
            ("alice@example.com\0", E::Character),
            ("al\u{ed}ce@example.com", E::Character),
            ("alice@b\u{fc}cher.example", E::Character),
        ] {
            assert_eq!(EmailAddress::new(bad), Err(reason), "{bad:?}");
        }
        assert_eq!(EmailAddress::new(&long), Err(E::TooLong(long.len())));
    }

    #[test]
    fn address_is_masked_except_where_it_is_sent() {
        let address = EmailAddress::new("alice@example.com").unwrap();
        assert_eq!(address.to_string(), "a***@example.com");
        assert_eq!(format!("{address:?}"), "a***@example.com");
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, "\"alice@example.com\"");
        assert_eq!(
            serde_json::from_str::<EmailAddress>(&json).unwrap(),
            address
        );
        let error = serde_json::from_str::<EmailAddress>("\"secret@localhost\"").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
