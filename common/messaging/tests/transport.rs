//! Tests the stream to a broker with a listener that is no broker.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::time::Duration;

use doorstep_messaging::{BrokerSettings, ConnectErrorKind, Publisher, TlsErrorKind, Topology};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a publisher and sends `reply` in response to its first eight bytes. Returns these and the publisher's error.
async fn first_bytes(scheme: &str, reply: &'static [u8]) -> ([u8; 8], ConnectErrorKind, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("{scheme}://shop:secret@{address}");
    let settings = BrokerSettings::new(&url, "test").unwrap();
    let publisher = Publisher::start(&settings, "first bytes", Topology::none());
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut first = [0; 8];
    socket.read_exact(&mut first).await.unwrap();
    socket.write_all(reply).await.unwrap();
    let error = publisher.ready(LIMIT).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    (first, error.kind(), error.to_string())
}

#[tokio::test]
async fn amqps_never_falls_back() {
    let (first, kind, text) = first_bytes("amqps", b"AMQP\x00\x00\x09\x01").await;
    // A TLS handshake record.
    assert_eq!(first[0], 0x16, "{first:?}");
    assert_eq!(kind, ConnectErrorKind::Tls(TlsErrorKind::NotTls), "{text}");
    assert!(text.contains("5671") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn amqp_never_upgrades() {
    // A fatal TLS alert: unexpected message.
    let (first, kind, text) = first_bytes("amqp", b"\x15\x03\x03\x00\x02\x02\x0a").await;
    assert_eq!(&first, b"AMQP\x00\x00\x09\x01");
    assert_eq!(kind, ConnectErrorKind::Tls(TlsErrorKind::OnlyTls), "{text}");
    assert!(text.contains("amqps://"), "{text}");
}
