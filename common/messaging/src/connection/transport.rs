//! The stream to a broker: TCP, encrypted if and only if the address is amqps. lapin uses this stream directly, so each byte that it reads
//! passes through here.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use doorstep_tls::{TlsError, TlsSettings, TlsStream};
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{parser_guard::GuardedReader, socket_guard::SocketHandle};
use crate::connection::address::Address;

/// First byte of a TLS alert, the reply of a TLS server to plain text. No AMQP frame begins with it.
const TLS_ALERT: u8 = 0x15;

#[derive(Debug)]
pub(crate) struct Transport {
    stream: Layer,
    /// Without TLS: the broker's first byte has not arrived yet.
    awaits_first_byte: bool,
}

#[derive(Debug)]
enum Layer {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    stream: TlsStream,
    settings: TlsSettings,
}

impl Transport {
    /// Connects, and performs the TLS handshake for amqps. Has no timeout of its own; cancel-safe. If a name has several addresses, the
    /// first that accepts is used.
    ///
    /// # Errors
    /// Fails if no address accepts, or with a [`TlsError`] inside if the handshake fails.
    pub(crate) async fn connect(
        address: &Address,
        tls: &TlsSettings,
        socket_handle: &SocketHandle,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect((address.host(), address.port())).await?;
        // An ack is a small frame with no other frame behind it, so Nagle's algorithm would delay it.
        socket.set_nodelay(true)?;
        socket_handle.set_socket(&socket)?;
        if !address.uses_tls() {
            return Ok(Self::plain(socket));
        }
        let stream = tls.connect(address.host(), socket).await;
        Ok(Self {
            stream: Layer::Tls(Box::new(Tls {
                stream: stream.map_err(io::Error::other)?,
                settings: tls.clone(),
            })),
            awaits_first_byte: false,
        })
    }

    fn plain(socket: TcpStream) -> Self {
        Self {
            stream: Layer::Plain(socket),
            awaits_first_byte: true,
        }
    }

    /// Checks the first byte received.
    fn check_first(&mut self, read: &[u8]) -> io::Result<()> {
        if self.awaits_first_byte && !read.is_empty() {
            self.awaits_first_byte = false;
            if read[0] == TLS_ALERT {
                return Err(io::Error::other(TlsError::only_tls()));
            }
        }
        Ok(())
    }

    /// Returns a write's result, with the TLS reason if it failed. A server that rejects a client certificate sends a reason and closes the
    /// connection, so the client may notice the close before it has read the reason.
    fn write_result<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let (Poll::Ready(Err(_)), Layer::Tls(tls)) = (&poll, &mut self.stream) else {
            return poll;
        };
        let mut rest = [0; 256];
        match tls.poll_read(cx, &mut ReadBuf::new(&mut rest)) {
            Poll::Ready(Err(reason)) if reason.get_ref().is_some() => Poll::Ready(Err(reason)),
            _ => poll,
        }
    }
}

impl Tls {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream)
            .poll_read(cx, buffer)
            .map_err(|error| match self.settings.explain(&error) {
                Some(reason) => io::Error::other(reason),
                None => error,
            })
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = match &mut self.stream {
            Layer::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Layer::Tls(tls) => tls.poll_read(cx, buffer),
        };
        match poll {
            Poll::Ready(Ok(())) => Poll::Ready(self.check_first(&buffer.filled()[before..])),
            other => other,
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = match &mut self.stream {
            Layer::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Layer::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, bytes),
        };
        self.write_result(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = match &mut self.stream {
            Layer::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Layer::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        };
        self.write_result(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Layer::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Layer::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

/// The same stream by the traits that lapin uses. Content that lapin cannot parse does not reach it, see [`parser_guard`](super::parser_guard).
#[derive(Debug)]
pub(super) struct ClientStream {
    transport: Transport,
    guard: GuardedReader,
}

impl ClientStream {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            guard: GuardedReader::default(),
        }
    }
}

impl futures_io::AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { transport, guard } = &mut *self;
        guard.poll_read(bytes, |bytes| {
            let mut buffer = ReadBuf::new(bytes);
            Pin::new(&mut *transport)
                .poll_read(cx, &mut buffer)
                .map_ok(|()| buffer.filled().len())
        })
    }
}

impl futures_io::AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// lapin's runtime: Tokio's, except for the stream type.
pub(super) type ClientRuntime = Runtime<RuntimeParts<Tokio, ClientReactor>>;

/// Returns the current runtime for lapin. Panics outside of a runtime.
pub(super) fn client_runtime() -> ClientRuntime {
    Runtime::new(RuntimeParts::new(
        Tokio::current(),
        ClientReactor(Tokio::current()),
    ))
}

/// Tokio's reactor, except for the stream type.
#[derive(Debug, Clone)]
pub(super) struct ClientReactor(Tokio);

impl Reactor for ClientReactor {
    type TcpStream = ClientStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H>(
        &self,
        socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static>
    where
        H: io::Read + io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + Send + 'static,
    {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: std::net::SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            let transport = Transport::plain(connecting.await?.into_inner());
            Ok(ClientStream::new(transport))
        }
    }
}
