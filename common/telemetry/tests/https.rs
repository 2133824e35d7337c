//! Tests HTTPS requests with a generated certificate.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

use doorstep_telemetry::{HttpUrl, trace::Tracing};
use doorstep_tls::{
    TlsSettings,
    rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};
use opentelemetry::{
    global,
    trace::{Span, Tracer},
};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn https_requires_a_trusted_server() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        // One connection that does not trust the certificate, and one that does.
        for _ in 0..2 {
            let (socket, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, socket);
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok() {
                let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(response).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    let url: HttpUrl = format!("https://localhost:{port}").parse().unwrap();
    let error = url.get(LIMIT).unwrap_err().to_string();
    assert!(error.contains("DOORSTEP_TLS_CA_FILE"), "{error}");

    let folder = std::env::temp_dir().join(format!("doorstep-https-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let trusting = url.with_tls(TlsSettings {
        ca_file: Some(ca_file),
        client: None,
    });
    let response = trusting.get(LIMIT).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(response, (200, "ok".to_owned()));
    server.join().unwrap();
}

#[test]
fn spans_are_exported_by_https() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let mut request = [0; 4096];
        let bytes = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&request[..bytes]).into_owned())
    });
    let folder = std::env::temp_dir().join(format!("doorstep-spans-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let url: HttpUrl = format!("https://localhost:{port}").parse().unwrap();
    let url = url.with_tls(TlsSettings {
        ca_file: Some(ca_file),
        client: None,
    });
    let tracing = Tracing::start(url, "test");
    global::tracer("test").start("a span").end();
    let request = server.join().unwrap().unwrap();
    drop(tracing);
    std::fs::remove_dir_all(folder).unwrap();
    assert!(request.starts_with("POST /v1/traces "), "{request}");
}
