//! Signed links: everybody who has one may use it, for one purpose, until it expires.
//!
//! The gateway stores no links. A link names its subject and its expiry, and the key signs both together with the
//! purpose. So a link is valid for nothing but what it was made for.

use std::time::Duration;

use doorstep_event::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::signing_key::SigningKey;

/// Bytes of a signature in its text form.
const SIGNATURE_BYTES: usize = 64;

/// The use of a link. Its text is signed with each link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkPurpose {
    /// Fetches the files of a report.
    Report,
    /// Confirms the address of a user.
    EmailConfirmation,
}

impl LinkPurpose {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Report => b"doorstep report link v1\n",
            Self::EmailConfirmation => b"doorstep email confirmation v1\n",
        }
    }
}

/// Signs and verifies links with one key.
pub(crate) struct Links {
    key: SigningKey,
}

/// The signed parts of a link, to be put into its path after its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkSignature {
    /// The time at which it expires, to the second.
    pub(crate) expires_at: Timestamp,
    /// The signature: lower-case hexadecimal digits.
    pub(crate) signature: String,
}

/// The reason why a link is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// This key did not sign it for this purpose, subject and expiry. It does not tell which of them is wrong.
    #[error("this link is not valid: copy it whole, or ask for a new one")]
    Invalid,
    /// It was valid once.
    #[error("this link has expired: ask for a new one")]
    Expired,
}

impl Links {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key }
    }

    /// Signs a link about a subject that is valid for `lifetime`.
    pub(crate) fn sign(
        &self,
        purpose: LinkPurpose,
        subject: &str,
        lifetime: Duration,
        now: Timestamp,
    ) -> LinkSignature {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let end = now.as_second().saturating_add(seconds);
        let expires_at = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        let mac = self.mac(purpose, subject, &expires_at.as_second().to_string());
        LinkSignature {
            expires_at,
            signature: hex::encode(mac.finalize().into_bytes()),
        }
    }

    /// Verifies a link from the texts of its path: the expiry in seconds since 1970, and the signature. Takes the same
    /// time for every wrong signature.
    ///
    /// # Errors
    /// It is not valid, or no longer.
    pub(crate) fn verify(
        &self,
        purpose: LinkPurpose,
        subject: &str,
        expires: &str,
        signature: &str,
        now: Timestamp,
    ) -> Result<(), LinkError> {
        // The signature covers the texts as they are, so a link has only one form.
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_written = signature.len() == SIGNATURE_BYTES && signature.bytes().all(is_digit);
        let signature = hex::decode(signature).unwrap_or_default();
        let is_signed = self
            .mac(purpose, subject, expires)
            .verify_slice(&signature)
            .is_ok();
        let expires = expires.parse().ok().map(Timestamp::from_second);
        match expires {
            Some(Ok(expires)) if is_signed && is_written => match now < expires {
                true => Ok(()),
                false => Err(LinkError::Expired),
            },
            _ => Err(LinkError::Invalid),
        }
    }

    fn mac(&self, purpose: LinkPurpose, subject: &str, expires: &str) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.bytes()).expect("a key");
        mac.update(purpose.text());
        // The subject comes last, so it may contain line breaks.
        mac.update(expires.as_bytes());
        mac.update(b"\n");
        mac.update(subject.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn links() -> Links {
        Links::new(SigningKey::random())
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_link_is_valid_until_it_expires() {
        let links = links();
        for purpose in [LinkPurpose::Report, LinkPurpose::EmailConfirmation] {
            let signed = links.sign(purpose, "ada", LIFETIME, now());
            let expires = signed.expires_at.as_second().to_string();
            let verify = |at| links.verify(purpose, "ada", &expires, &signed.signature, at);
            assert_eq!(signed.expires_at.as_second(), now().as_second() + 60);
            assert_eq!(verify(now()), Ok(()));
            assert_eq!(verify("2026-11-24T12:00:59.9Z".parse().unwrap()), Ok(()));
            assert_eq!(verify(signed.expires_at), Err(LinkError::Expired));
        }
    }

    #[test]
    fn a_link_that_was_changed_anywhere_is_invalid() {
        let links = links();
        let report = LinkPurpose::Report;
        let signed = links.sign(report, "ada", LIFETIME, now());
        let link = [
            "ada".to_owned(),
            signed.expires_at.as_second().to_string(),
            signed.signature,
        ];
        let verify = |purpose, [subject, expires, signature]: &[String; 3]| {
            links.verify(purpose, subject, expires, signature, now())
        };
        assert_eq!(verify(report, &link), Ok(()));
        let other = verify(LinkPurpose::EmailConfirmation, &link);
        assert_eq!(other, Err(LinkError::Invalid));
        for part in 0..link.len() {
            for at in 0..link[part].len() {
                // Each bit of a byte, as far as the text stays ASCII: that covers upper-case digits.
                for bit in 0..7 {
                    let mut bytes = link[part].clone().into_bytes();
                    bytes[at] ^= 1 << bit;
                    let mut changed = link.clone();
                    changed[part] = String::from_utf8(bytes).unwrap();
                    assert_eq!(
                        verify(report, &changed),
                        Err(LinkError::Invalid),
                        "{changed:?}"
                    );
                }
            }
            for (before, after) in [("", "0"), ("0", ""), (" ", ""), ("+", ""), ("", "\n")] {
                let mut changed = link.clone();
                changed[part] = format!("{before}{}{after}", link[part]);
                assert_eq!(
                    verify(report, &changed),
                    Err(LinkError::Invalid),
                    "{changed:?}"
                );
                changed[part] = before.to_owned();
                assert_eq!(
                    verify(report, &changed),
                    Err(LinkError::Invalid),
                    "{changed:?}"
                );
            }
        }
        assert_eq!(
            self::links().verify(report, &link[0], &link[1], &link[2], now()),
            Err(LinkError::Invalid),
            "another key"
        );
    }

    #[test]
    fn parts_cannot_be_moved_into_each_other() {
        let links = links();
        let signed = links.sign(LinkPurpose::Report, "1\nada", LIFETIME, now());
        let moved = format!("{}\n1", signed.expires_at.as_second());
        let verified = links.verify(LinkPurpose::Report, "ada", &moved, &signed.signature, now());
        assert_eq!(verified, Err(LinkError::Invalid));
    }

    #[test]
    fn endless_lifetimes_end_with_time() {
        let signed = links().sign(LinkPurpose::Report, "ada", Duration::MAX, now());
        assert_eq!(signed.expires_at, Timestamp::MAX);
    }
}
