//! The sender of all mails.

use std::str::FromStr;

use doorstep_contracts::{TextError, check_text};
use lettre::{Address, message::Mailbox};

/// Maximum characters of a sender's name.
const MAX_NAME: usize = 100;

/// The sender of all mails, such as `Doorstep <doorstep@example.com>`: a name, which may be absent, and an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

/// The reason why a text is not a sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    #[error(
        "the sender is not an address: write it as doorstep@example.com or Doorstep <doorstep@example.com>"
    )]
    Address,
    #[error("the sender's name has {0} characters, more than {MAX_NAME}")]
    LongName(usize),
    #[error("the sender's name is not valid: {0}")]
    Name(#[from] TextError),
}

impl Sender {
    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.0
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0.email
    }
}

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = match text.trim().strip_suffix('>') {
            Some(rest) => rest.rsplit_once('<').ok_or(SenderError::Address)?,
            None => ("", text.trim()),
        };
        let name = name.trim().trim_matches('"');
        let length = name.chars().count();
        if length > MAX_NAME {
            return Err(SenderError::LongName(length));
        }
        check_text(name)?;
        // Stricter than the parser, which permits quotes, brackets and other scripts.
        let usual = |b: u8| b.is_ascii_graphic() && !b"\"[]<>".contains(&b);
        if !address.bytes().all(usual) {
            return Err(SenderError::Address);
        }
        let address = address.parse().map_err(|_| SenderError::Address)?;
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Ok(Self(Mailbox::new(name, address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_has_a_name_or_none() {
        for (text, name, address) in [
            ("doorstep@localhost", None, "doorstep@localhost"),
            ("<a@example.com>", None, "a@example.com"),
            (
                "Doorstep <a@example.com>",
                Some("Doorstep"),
                "a@example.com",
            ),
            (
                "\"Da Luigi, Rome\" <a@example.com>",
                Some("Da Luigi, Rome"),
                "a@example.com",
            ),
        ] {
            let sender: Sender = text.parse().unwrap();
            assert_eq!(sender.mailbox().name.as_deref(), name, "{text}");
            assert_eq!(sender.address().to_string(), address, "{text}");
        }
    }

    #[test]
    fn sender_with_anything_else_is_rejected() {
        for bad in [
            "",
            "Doorstep",
            "Doorstep <>",
            "a@example.com, b@example.com",
            "Doorstep <a@example.com> x",
            "a@example.com\r\nBcc: b@example.com",
            "Doorstep <a@[192.0.2.1]>",
        ] {
            assert_eq!(bad.parse::<Sender>(), Err(SenderError::Address), "{bad:?}");
        }
        let injected = "Door\r\nBcc: b@example.com <a@example.com>".parse::<Sender>();
        assert!(
            matches!(injected, Err(SenderError::Name(_))),
            "{injected:?}"
        );
        let long = format!("{} <a@example.com>", "n".repeat(101));
        assert_eq!(long.parse::<Sender>(), Err(SenderError::LongName(101)));
    }
}
