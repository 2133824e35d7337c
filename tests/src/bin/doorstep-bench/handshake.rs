//! Which broker answers: its product and version, as it greets whoever connects.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use doorstep_messaging::BrokerSettings;

const LIMIT: Duration = Duration::from_secs(2);

/// What the broker calls itself, or that it could not be told, as behind TLS.
pub(crate) fn broker(settings: &BrokerSettings) -> String {
    settings
        .addresses
        .first()
        .and_then(|address| greeting(address.host(), address.port()))
        .and_then(|greeting| {
            Some(format!(
                "{} {}",
                field(&greeting, "product")?,
                field(&greeting, "version")?
            ))
        })
        .unwrap_or_else(|| "unknown broker".to_owned())
}

/// The first bytes of the broker's `connection.start`, which tells its properties before anybody has logged in.
fn greeting(host: &str, port: u16) -> Option<Vec<u8>> {
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
    let mut greeting = Vec::new();
    // A frame: type, channel, length, then as many bytes.
    let mut header = [0; 7];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    stream
        .take(u64::from(length))
        .read_to_end(&mut greeting)
        .ok()?;
    Some(greeting)
}

/// The text of a field in a table: its name after a byte of length, `S`, and the text after four bytes of length.
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
}
