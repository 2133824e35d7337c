//! The broker's product and version, from its connection greeting.
//!
//! lapin does not expose the server properties, so this opens its own connection, and closes it before logging in.

use std::time::Duration;

use doorstep_tls::TlsSettings;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::connection::{ShutdownOnDrop, Transport, address::Address};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, derive_more::Display)]
#[display("{product} {version}")]
pub struct ServerProperties {
    /// `RabbitMQ`, or another product that speaks AMQP 0-9-1.
    pub product: String,
    pub version: String,
}

/// The client's protocol header.
const PROTOCOL: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Maximum bytes of a greeting; RabbitMQ's has about 500.
const MAX_BYTES: u32 = 64 * 1024;

impl ServerProperties {
    /// Reads the greeting of the broker at this address, over TLS for amqps. Returns `None` if no valid greeting arrives within the limit;
    /// a regular connection reports the reason. Cancel-safe.
    pub async fn fetch(address: &Address, tls: &TlsSettings, limit: Duration) -> Option<Self> {
        let start = timeout(limit, start(address, tls)).await.ok()??;
        Some(Self {
            product: field(&start, "product")?,
            version: field(&start, "version")?,
        })
    }

    /// Returns major and minor version: `(3, 10)` for `3.10.8`.
    #[must_use]
    pub fn release(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some((next()?, next()?))
    }
}

/// Reads the broker's `connection.start`.
async fn start(address: &Address, tls: &TlsSettings) -> Option<Vec<u8>> {
    let shutdown = ShutdownOnDrop::default();
    let mut stream = Transport::connect(address, tls, &shutdown.0).await.ok()?;
    stream.write_all(PROTOCOL).await.ok()?;
    stream.flush().await.ok()?;
    // An AMQP frame: type, channel, length, then that many bytes.
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    let mut start = Vec::new();
    stream
        .take(u64::from(length.min(MAX_BYTES)))
        .read_to_end(&mut start)
        .await
        .ok()?;
    Some(start)
}

/// Returns a text field of a table. A field is a length byte, the name, `S`, four length bytes and the text.
fn field(table: &[u8], name: &str) -> Option<String> {
    let mut needle = vec![u8::try_from(name.len()).ok()?];
    needle.extend(name.as_bytes());
    needle.push(b'S');
    let at = table
        .windows(needle.len())
        .position(|window| window == needle)?
        + needle.len();
    let length = u32::from_be_bytes(table.get(at..at + 4)?.try_into().ok()?);
    let text = table.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let table = b"\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x054.0.5";
        assert_eq!(field(table, "version").as_deref(), Some("4.0.5"));
        assert_eq!(field(table, "platform"), None);
        assert_eq!(field(b"\x07versionS\x00\x00\x00\x10cut", "version"), None);
    }

    #[test]
    fn a_release_is_read_from_the_version() {
        let release = |version: &str| {
            let server = ServerProperties {
                product: "RabbitMQ".to_owned(),
                version: version.to_owned(),
            };
            server.release()
        };
        assert_eq!(release("3.9.27"), Some((3, 9)));
        assert_eq!(release("4.3.0-rc.1"), Some((4, 3)));
        assert_eq!(release("unknown"), None);
    }
}
