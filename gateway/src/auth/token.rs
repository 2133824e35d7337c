//! Session tokens: `NAME.GENERATION.EXPIRES.SIGNATURE`.
//!
//! The gateway stores no tokens. A token is valid if the key signed it, it has not expired, and its generation is the
//! user's present one. Raising the generation ends every session of the user.
//!
//! A JSON Web Token has an algorithm and claims to be checked. This form has one way to be read, in less code.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_runtime::limits::MAX_CLOCK_SKEW;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::signing_key::SigningKey;
use crate::domain::UserName;

/// The context that is signed with each token, so that a signature of the key is valid for nothing else.
const PURPOSE: &[u8] = b"doorstep gateway token v1\n";

/// Issues and verifies tokens with one key.
pub(crate) struct Tokens {
    key: SigningKey,
    lifetime: Duration,
}

/// The claims of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) name: UserName,
    /// The generation of the user's tokens that it belongs to.
    pub(crate) generation: u64,
    /// The time at which it expires, to the second.
    pub(crate) expires: Timestamp,
}

impl Tokens {
    /// Creates an issuer whose tokens are valid for `lifetime`.
    pub(crate) fn new(key: SigningKey, lifetime: Duration) -> Self {
        Self { key, lifetime }
    }

    /// Issues a token, and returns it with its claims.
    pub(crate) fn issue(
        &self,
        name: &UserName,
        generation: u64,
        now: Timestamp,
    ) -> (String, Claims) {
        let seconds = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let end = now.as_second().saturating_add(seconds);
        let ticket = Claims {
            name: name.clone(),
            generation,
            expires: Timestamp::from_second(end).unwrap_or(Timestamp::MAX),
        };
        let said = format!("{name}.{generation}.{}", ticket.expires.as_second());
        let signature = hex::encode(self.sign(&said).finalize().into_bytes());
        (format!("{said}.{signature}"), ticket)
    }

    /// Returns the claims of a token, or `None` if this key did not sign it or it has expired. Takes the same time for
    /// every wrong signature.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<Claims> {
        let (said, signature) = token.rsplit_once('.')?;
        self.sign(said)
            .verify_slice(&hex::decode(signature).ok()?)
            .ok()?;
        let (rest, expires) = said.rsplit_once('.')?;
        let (name, generation) = rest.rsplit_once('.')?;
        let ticket = Claims {
            name: name.parse().ok()?,
            generation: generation.parse().ok()?,
            expires: Timestamp::from_second(expires.parse().ok()?).ok()?,
        };
        // A clock that was ahead may have issued a token with too late an expiry; it must not outlive its session.
        let latest = self.lifetime.saturating_add(MAX_CLOCK_SKEW);
        let latest = now.checked_add(latest).unwrap_or(Timestamp::MAX);
        (now < ticket.expires && ticket.expires <= latest).then_some(ticket)
    }

    fn sign(&self, said: &str) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.bytes()).expect("a key");
        mac.update(PURPOSE);
        mac.update(said.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(SigningKey::random(), Duration::from_secs(60))
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let tokens = tokens();
        let name: UserName = "ada".parse().unwrap();
        let (token, ticket) = tokens.issue(&name, 7, now());
        assert_eq!(tokens.verify(&token, now()), Some(ticket.clone()));
        assert_eq!((ticket.name, ticket.generation), (name, 7));
        let last = "2026-11-24T12:00:59.9Z".parse().unwrap();
        assert!(tokens.verify(&token, last).is_some());
        assert_eq!(tokens.verify(&token, ticket.expires), None);
    }

    #[test]
    fn tokens_from_the_future_are_rejected() {
        let tokens = tokens();
        let given = |minutes| {
            let ahead = now().checked_add(Duration::from_mins(minutes)).unwrap();
            tokens.issue(&"ada".parse().unwrap(), 7, ahead).0
        };
        assert_eq!(tokens.verify(&given(61), now()), None);
        // The clocks of several gateways may differ slightly.
        assert!(tokens.verify(&given(59), now()).is_some());
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_none() {
        let tokens = tokens();
        let (token, _) = tokens.issue(&"ada".parse().unwrap(), 7, now());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(tokens.verify(&changed, now()), None, "{changed}");
        }
        assert_eq!(self::tokens().verify(&token, now()), None, "another key");
        for bad in ["", ".", "...", "ada", "ada.1.2", "ada.1.2.zz"] {
            assert_eq!(tokens.verify(bad, now()), None);
        }
    }
}
