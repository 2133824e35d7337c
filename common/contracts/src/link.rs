//! A link that works without logging in, until it expires.

use std::{str::FromStr, sync::Arc};

use doorstep_event::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Maximum bytes of a path.
const MAX_BYTES: usize = 300;

/// A link to a page of the gateway. Everybody who has it may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedLink {
    pub path: LinkPath,
    pub expires_at: Timestamp,
}

/// The path of a link with its signature: `/r/ID/EXPIRY/SIGNATURE`. The gateway's public URL precedes it.
///
/// Its `Debug` form hides the signature.
#[derive(Clone, PartialEq, Eq, Hash, derive_more::Debug)]
#[debug("{}/...", _0.rsplit_once('/').map_or("", |(head, _)| head))]
pub struct LinkPath(Arc<str>);

/// The reason why a text is no path of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a link's path begins with one /, has at most {MAX_BYTES} bytes, and has no characters but letters, digits, /, -, _ and ."
)]
pub struct LinkPathError;

impl LinkPath {
    /// Validates the text and takes it unchanged.
    ///
    /// # Errors
    /// Fails if the text is not an absolute path without host, query, fragment and dot segments.
    pub fn new(path: &str) -> Result<Self, LinkPathError> {
        let mut segments = path.split('/');
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let is_segment = |s: &str| !s.is_empty() && !s.starts_with('.') && s.bytes().all(is_plain);
        let fits = path.starts_with('/') && path.len() <= MAX_BYTES && segments.next() == Some("");
        match fits && segments.all(is_segment) {
            true => Ok(Self(path.into())),
            false => Err(LinkPathError),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkPath {
    type Err = LinkPathError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for LinkPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LinkPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_the_gateway_only() {
        for path in ["/r/1/2/ab-_", "/confirm-email/x.y"] {
            assert_eq!(LinkPath::new(path).unwrap().as_str(), path);
        }
        let long = format!("/{}", "x".repeat(MAX_BYTES));
        for path in [
            "",
            "/",
            "r",
            "r/1",
            "//evil.example",
            "/\\evil.example",
            "@evil.example/",
            "/r/../x",
            "/r/1?next=//evil",
            "/r/1#x",
            "/r/ 1",
            "/r/\n1",
            "/r/é",
            "/r//1",
            "/r/",
            &long,
        ] {
            assert_eq!(LinkPath::new(path), Err(LinkPathError), "{path:?}");
        }
    }

    #[test]
    fn signatures_are_not_printed() {
        let path = LinkPath::new("/r/1/2/secret").unwrap();
        assert_eq!(format!("{path:?}"), "/r/1/2/...");
    }
}
