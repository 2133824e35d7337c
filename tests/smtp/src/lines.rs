//! The bytes of a connection: plain or encrypted, in lines.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Maximum bytes of a line that the server reads.
const MAX_LINE: usize = 64 * 1024;

/// A connection to a client.
pub(crate) struct Lines {
    stream: Option<Stream>,
    read: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Lines {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            stream: Some(Stream::Plain(socket)),
            read: Vec::new(),
        }
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream
            .as_mut()
            .ok_or_else(|| io::Error::other("ended"))
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }

    /// Encrypts the connection. What the client sent before is discarded.
    pub(crate) async fn encrypt(&mut self, acceptor: &TlsAcceptor) -> io::Result<()> {
        self.read.clear();
        let Some(Stream::Plain(socket)) = self.stream.take() else {
            return Err(io::Error::other("encrypted already"));
        };
        let stream = acceptor.accept(socket).await?;
        self.stream = Some(Stream::Tls(Box::new(stream)));
        Ok(())
    }

    /// Waits for bytes of the client; returns how many, 0 at the end.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 8192];
        let count = match self.stream()? {
            Stream::Plain(stream) => stream.read(&mut bytes).await?,
            Stream::Tls(stream) => stream.read(&mut bytes).await?,
        };
        self.read.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Reads a line up to CR LF, without it; `None` at the end.
    pub(crate) async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let end = self.read[searched..].windows(2).position(|w| w == b"\r\n");
            if let Some(end) = end {
                let mut line: Vec<u8> = self.read.drain(..searched + end + 2).collect();
                line.truncate(searched + end);
                return Ok(Some(line));
            }
            searched = self.read.len().saturating_sub(1);
            if searched > MAX_LINE {
                return Err(io::Error::other("a line is too long"));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream()? {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Discards all that the client sends, until it ends the connection.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {
            self.read.clear();
        }
        Ok(())
    }

    /// Ends the connection, so that the client reads an end of the stream.
    pub(crate) async fn close(mut self) {
        // What is unread would turn the end into a reset.
        let _ = match self.stream.as_mut() {
            Some(Stream::Plain(stream)) => stream.shutdown().await,
            Some(Stream::Tls(stream)) => stream.shutdown().await,
            None => return,
        };
        let _ = self.drain().await;
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        let linger = match &self.stream {
            Some(Stream::Plain(stream)) => stream.set_zero_linger(),
            Some(Stream::Tls(stream)) => stream.get_ref().0.set_zero_linger(),
            None => Ok(()),
        };
        linger.expect("a socket option");
    }
}
