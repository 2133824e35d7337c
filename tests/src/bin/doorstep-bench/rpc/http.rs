//! Plain HTTP/1.1 on loopback over persistent connections: an ordinary server, and a minimal client.

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, routing::post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves echoes. Returns the port and the server's future.
pub(super) async fn answer() -> Result<(u16, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let app = Router::new().route("/", post(async |body: Bytes| body));
    Ok((port, async move {
        use axum::serve::ListenerExt;
        // The other variants do not delay small writes either.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        // The server ends with the process.
        let _ = axum::serve(listener, app).await;
    }))
}

/// One connection, one request after the other.
pub(super) struct HttpLine {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl HttpLine {
    pub(super) async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Returns the number of bytes received.
    pub(super) async fn call(&mut self, body: &[u8]) -> Result<usize> {
        let length = body.len();
        let mut request = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.buffer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.buffer).await?;
            anyhow::ensure!(count > 0, "the HTTP server hung up");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.buffer[..end])?.to_ascii_lowercase();
            anyhow::ensure!(head.starts_with("http/1.1 200"), "the answer was {head:?}");
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("no length in the HTTP answer")?
                .parse()?;
            if self.buffer.len() >= end + 4 + length {
                return Ok(length);
            }
        }
    }
}
