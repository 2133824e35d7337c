//! The stream between the client library and a server, which keeps the server's replies in bounds.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum bytes that are read from a server, as the library reads lines without a bound.
const MAX_BYTES: usize = 64 * 1024;

/// Maximum lines that are read from a server. The library parses a reply anew for each of its lines, so their number counts squared.
const MAX_LINES: usize = 500;

/// A stream whose reading side passes replies on in the form that the library takes:
/// - ASCII. Another byte becomes `?`, since the library refuses a whole reply for one letter of Latin-1.
/// - Each code is followed by a space. The library refuses a reply without text, which the standard permits.
#[derive(Debug)]
pub(super) struct ReplyStream<S> {
    inner: S,
    peer: SocketAddr,
    /// The bytes read from the server so far.
    bytes: usize,
    /// The lines read from the server so far.
    lines: usize,
    /// The position in the current line.
    column: usize,
    pending: VecDeque<u8>,
}

impl<S> ReplyStream<S> {
    pub(super) fn new(inner: S, peer: SocketAddr) -> Self {
        Self {
            inner,
            peer,
            bytes: 0,
            lines: 0,
            column: 0,
            pending: VecDeque::new(),
        }
    }

    /// Returns a stream that begins with a greeting. The library waits for one, but after STARTTLS no server sends it.
    pub(super) fn with_greeting(inner: S, peer: SocketAddr) -> Self {
        let mut stream = Self::new(inner, peer);
        stream.pending.extend(b"220 \r\n");
        stream
    }

    fn take(&mut self, byte: u8) {
        if self.column == 3 && byte == b'\r' {
            self.pending.push_back(b' ');
        }
        self.column += 1;
        if byte == b'\n' {
            self.column = 0;
            self.lines += 1;
        }
        self.pending
            .push_back(if byte.is_ascii() { byte } else { b'?' });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pending.is_empty() {
            let mut bytes = [0; 1024];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut bytes))?;
            this.bytes += bytes.filled().len();
            for &byte in bytes.filled() {
                this.take(byte);
            }
            if this.bytes > MAX_BYTES || this.lines > MAX_LINES {
                let error = format!(
                    "the mail server sent more than {MAX_BYTES} bytes or {MAX_LINES} lines"
                );
                return Poll::Ready(Err(io::Error::other(error)));
            }
        }
        let length = this.pending.len().min(buffer.remaining());
        for byte in this.pending.drain(..length) {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S> AsyncTokioStream for ReplyStream<S>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}
